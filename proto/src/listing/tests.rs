//! What a reader of listings refuses, and what two of them prove.

use super::*;
use crate::{Authentic, FunctionId, IdentityKey, OnionAddress, Requirements, UnixSeconds};

const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);
const DAY: u64 = 20_000;

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn listing() -> Listing {
    let from = Day(DAY).begins();
    Listing {
        network: NETWORK,
        provider: key(1).id(),
        number: 0,
        previous: None,
        epoch: Epoch(5),
        advert: AdvertDigest([3; 32]),
        validity: Validity {
            from,
            until: from.plus(3600 * 30),
        },
        endpoints: vec![Endpoint::Onion(OnionAddress::from_public_key([1; 32]))],
        node: vec![Endpoint::Onion(OnionAddress::from_public_key([2; 32]))],
        resources: Resources {
            cores: 4,
            memory_mib: 8192,
            gpu_vram_mib: 0,
            tee: false,
        },
        region: Some("eu".parse().unwrap()),
        plans: vec![ListedPlan {
            name: "small".parse().unwrap(),
            price: 10,
        }],
        functions: vec![FunctionPrefix::of(&FunctionId::of(b"f"))],
        work: Work {
            day: Day(DAY),
            nonce: [1; 16],
            solution: [2; 68],
        },
    }
}

fn authentic(listing: &Listing) -> Authentic<Listing> {
    let signed = listing.sign(&key(1)).unwrap();
    signed.authenticate(NETWORK).unwrap()
}

/// The next listing of the same epoch.
fn renewal(of: &Authentic<Listing>) -> Listing {
    let mut next = Listing::clone(of);
    next.number += 1;
    next.previous = Some(of.digest());
    next
}

#[test]
fn a_listing_is_small_and_survives_the_wire() {
    let signed = listing().sign(&key(1)).unwrap();
    let bytes = crate::encode(&signed);
    println!("{} bytes", bytes.len());
    assert!(bytes.len() < 550, "{}", bytes.len());
    let read = SignedListing::from_bytes(&bytes).unwrap();
    let read = read.authenticate(NETWORK).unwrap();
    assert!(*read == listing());
    let large = vec![0; Listing::MAX_BYTES + 1];
    assert_eq!(
        SignedListing::from_bytes(&large),
        Err(ListingError::TooLarge)
    );
}

#[test]
fn another_network_and_another_signer_are_refused() {
    let signed = listing().sign(&key(1)).unwrap();
    let elsewhere = NetworkId::from_bytes([8; 16]);
    let refused = signed.clone().authenticate(elsewhere).unwrap_err();
    assert_eq!(refused, ListingError::OtherNetwork);
    assert_eq!(listing().sign(&key(2)), Err(ListingError::Signature));
    // The bytes of one, with the signature of another.
    let mut other = listing();
    other.number = 1;
    other.previous = Some(signed.digest());
    let other = other.sign(&key(1)).unwrap();
    let mut bytes = crate::encode(&signed);
    let theirs = crate::encode(&other);
    let at = bytes.len() - 64;
    bytes[at..].copy_from_slice(&theirs[theirs.len() - 64..]);
    let forged = SignedListing::from_bytes(&bytes).unwrap();
    let refused = forged.authenticate(NETWORK).unwrap_err();
    assert_eq!(refused, ListingError::Signature);
}

#[test]
fn every_bound_is_kept() {
    type Break = fn(&mut Listing);
    let breaks: [(&str, Break); 10] = [
        ("validity", |it| it.validity.until = it.validity.from),
        ("validity", |it| {
            it.validity.until = it.validity.from.plus(Listing::MAX_VALIDITY_SECONDS + 1);
        }),
        ("day of work", |it| it.work.day = Day(DAY - 1)),
        ("predecessor", |it| it.number = 1),
        ("endpoints", |it| it.endpoints.clear()),
        ("node", |it| it.node = vec![it.node[0]; 3]),
        ("memory", |it| it.resources.memory_mib = 1000),
        ("plans", |it| it.plans.clear()),
        ("plan names", |it| it.plans.push(it.plans[0].clone())),
        ("functions", |it| it.functions = vec![it.functions[0]; 17]),
    ];
    for (what, change) in breaks {
        let mut bad = listing();
        change(&mut bad);
        assert_eq!(bad.sign(&key(1)), Err(ListingError::Bound(what)), "{what}");
        // One that is signed all the same is not believed.
        let bytes = crate::encode(&bad);
        let signature = key(1).sign(&NETWORK.domain("listing/v1"), &bytes);
        let signed = SignedListing::from_parts(bytes, signature);
        let refused = signed.authenticate(NETWORK).unwrap_err();
        assert_eq!(refused, ListingError::Bound(what));
    }
}

#[test]
fn a_listing_is_valid_in_its_time_only() {
    let begins = Day(DAY).begins().0;
    let at = |now: u64| authentic(&listing()).at(UnixSeconds(now)).err();
    assert_eq!(at(begins), None);
    assert_eq!(at(begins - 3600), None);
    assert_eq!(at(begins - 3601), Some(ListingError::TooEarly));
    assert_eq!(at(begins + 30 * 3600 - 1), None);
    assert_eq!(at(begins + 30 * 3600), Some(ListingError::Expired));
}

#[test]
fn an_honest_chain_proves_nothing() {
    let first = authentic(&listing());
    let second = authentic(&renewal(&first));
    let mut third = renewal(&second);
    third.epoch = Epoch(6);
    third.advert = AdvertDigest([4; 32]);
    let third = authentic(&third);
    assert!(second.succeeds(&first) && third.succeeds(&second) && !third.succeeds(&first));
    let chain = [first, second, third];
    for one in &chain {
        for other in &chain {
            assert!(!one.contradicts(other));
            assert_eq!(one.fork(other), None);
        }
    }
}

#[test]
fn every_way_to_show_another_listing_is_a_fork() {
    let first = authentic(&listing());
    let second = authentic(&renewal(&first));
    type Break = fn(&mut Listing);
    let breaks: [(&str, Break); 5] = [
        ("another second", |it| it.plans[0].price += 1),
        ("one predecessor, another number", |it| it.number += 1),
        ("one epoch, two adverts", |it| {
            it.advert = AdvertDigest([9; 32]);
            it.number = 9;
            it.previous = Some(ListingDigest([9; 32]));
        }),
        ("an earlier epoch later", |it| {
            it.epoch = Epoch(4);
            it.number = 9;
            it.previous = Some(ListingDigest([9; 32]));
        }),
        ("a hidden predecessor", |it| {
            it.number = 2;
            it.previous = Some(ListingDigest([9; 32]));
        }),
    ];
    for (what, change) in breaks {
        let mut other = Listing::clone(&second);
        change(&mut other);
        let other = authentic(&other);
        let fork = second.fork(&other).unwrap_or_else(|| panic!("{what}"));
        assert_eq!(other.fork(&second), Some(fork.clone()), "{what}");
        assert_eq!(fork.verify(NETWORK), Ok(key(1).id()), "{what}");
        let elsewhere = fork.verify(NetworkId::from_bytes([8; 16]));
        assert_eq!(elsewhere, Err(ListingError::OtherNetwork));
    }
    let agreeing = ListingFork {
        one: first.signed().clone(),
        other: second.signed().clone(),
    };
    assert_eq!(agreeing.verify(NETWORK), Err(ListingError::NoFork));
}

#[test]
fn a_class_covers_every_machine_that_meets_the_requirements() {
    let machines = [1_u16, 3, 4, 16, 200].into_iter().flat_map(|cores| {
        [512_u64, 4096, 1 << 15, 1 << 20].map(|memory_mib| Resources {
            cores,
            memory_mib,
            gpu_vram_mib: u64::from(cores % 2) * 8192,
            tee: memory_mib > 4096,
        })
    });
    let machines: Vec<_> = machines.collect();
    for wanted in &machines {
        let requirements = Requirements {
            cores: wanted.cores,
            memory_mib: wanted.memory_mib,
            gpu_vram_mib: wanted.gpu_vram_mib,
            tee: wanted.tee,
            ..Requirements::default()
        };
        let class = Class::that_covers(&requirements);
        for machine in &machines {
            let mut it = listing();
            it.resources = *machine;
            if requirements.unmet_by(&it).is_empty() {
                assert!(it.is_in(Topic::Class(class)), "{wanted:?} {machine:?}");
            }
        }
    }
    let numbers = (0..=u8::MAX).filter_map(Class::from_number);
    assert_eq!(numbers.count(), usize::from(Class::COUNT));
    let weak = listing().resources;
    let met = (0..Class::COUNT).filter_map(Class::from_number);
    let met: Vec<_> = met.filter(|it| it.is_met_by(&weak)).collect();
    assert_eq!(met.len(), 4, "two levels of cores times two of memory");
}

#[test]
fn a_function_is_found_by_its_first_byte() {
    let id = FunctionId::of(b"f");
    let first = id.digest()[0];
    assert!(listing().is_in(Topic::Function(first)));
    assert!(!listing().is_in(Topic::Function(first ^ 1)));
    let wanted = |function| Requirements {
        function: Some(function),
        ..Requirements::default()
    };
    assert!(wanted(id).unmet_by(&listing()).is_empty());
    assert_eq!(
        wanted(FunctionId::of(b"g")).unmet_by(&listing()),
        [crate::Requirement::Function]
    );
}
