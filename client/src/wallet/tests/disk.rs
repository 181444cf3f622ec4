//! Files: their format, damage, permissions, leftovers.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use dlambda_proto::{ErrorKind, HasKind as _, SignedAdvert, decode, encode};
use minicbor::{CborLen, Decode, Encode};

use super::super::WalletError;
use super::super::file::{Holdings, MAX_FILE, Rating, Record, Slot, Stage, call_tag};
use super::super::lock::LeaseId;
use super::*;

fn set_mode(path: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("our own file");
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("there");
    metadata.permissions().mode() & 0o777
}

#[test]
fn everything_is_for_its_owner_alone() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    assert_eq!(mode(&place.path), 0o700);
    let mut files = 0;
    for dir in [place.path.clone(), place.path.join("owners")] {
        for entry in std::fs::read_dir(dir).expect("reads") {
            let path = entry.expect("reads").path();
            let is_dir = path.is_dir();
            files += usize::from(!is_dir);
            assert_eq!(mode(&path), if is_dir { 0o700 } else { 0o600 }, "{path:?}");
        }
    }
    assert_eq!(files, 3, "contract, lock, owner");
    drop((held, wallet));
    let owners = std::fs::read_dir(place.path.join("owners")).expect("reads");
    assert_eq!(owners.count(), 0);
}

#[test]
fn a_directory_that_others_can_read_is_refused() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    set_mode(&place.path, 0o755);
    let opened = Wallet::open(&place.path).expect_err("is refused");
    assert!(matches!(opened, WalletError::File { .. }));
    assert_eq!(opened.kind(), ErrorKind::Local);
    assert!(
        opened
            .to_string()
            .contains(&place.path.display().to_string())
    );
    assert!(matches!(
        wallet.reserve(&call(1)),
        Err(WalletError::File { .. })
    ));
    let other = Like { number: 2, ..USUAL };
    assert!(wallet.begin(&other.draft()).is_err());
    set_mode(&place.path, 0o700);
    take(&wallet, 1).release().expect("all is well again");
}

#[test]
fn a_file_that_others_can_read_is_not_used() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    set_mode(&place.file(&USUAL.id()), 0o640);
    assert!(wallet.reserve(&call(1)).expect("looks").is_none());
    let listing = wallet.contracts(NOW).expect("lists");
    assert!(listing.contracts.is_empty());
    assert!(matches!(listing.damaged[..], [WalletError::File { .. }]));
    assert!(
        listing.damaged[0]
            .to_string()
            .contains(&hex::encode(USUAL.id().0))
    );
    set_mode(&place.file(&USUAL.id()), 0o600);
    assert_eq!(counts(&wallet), [8, 0, 0, 0]);
}

#[test]
fn a_file_that_is_not_a_file_is_not_used() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let file = place.file(&USUAL.id());
    let elsewhere = place.path.join("elsewhere");
    std::fs::rename(&file, &elsewhere).expect("renames");
    symlink(&elsewhere, &file).expect("links");
    assert!(wallet.reserve(&call(1)).expect("looks").is_none());
    std::fs::remove_file(&file).expect("removes");
    std::fs::create_dir(&file).expect("makes");
    assert_eq!(wallet.contracts(NOW).expect("lists").damaged.len(), 1);
}

#[test]
fn no_flipped_bit_and_no_missing_end_goes_unnoticed() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    drop(take(&wallet, 1));
    take(&wallet, 2).commit().expect("spends");
    let file = std::fs::read(place.file(&USUAL.id())).expect("reads");
    assert!(Record::from_file(&file, &USUAL.id()).is_ok());
    for index in 0..file.len() {
        let mut bad = file.clone();
        bad[index] ^= 1 << (index % 8);
        assert!(
            Record::from_file(&bad, &USUAL.id()).is_err(),
            "byte {index}"
        );
        assert!(
            Record::from_file(&file[..index], &USUAL.id()).is_err(),
            "{index} bytes"
        );
    }
    let other = Like { number: 2, ..USUAL };
    assert!(Record::from_file(&file, &other.id()).is_err());
}

#[test]
fn a_damaged_file_is_named_and_kept_and_the_others_are_used() {
    let place = Place::new();
    let wallet = place.open();
    let damaged = Like {
        until: 9_000,
        ..USUAL
    };
    damaged.buy(&wallet);
    Like { number: 2, ..USUAL }.buy(&wallet);
    let file = place.file(&damaged.id());
    let too_long = vec![0; MAX_FILE + 1];
    let mut later = std::fs::read(&file).expect("reads");
    later[1] = 2;
    for (bytes, reason) in [
        (&b""[..], "no contract's file"),
        (b"junk", "no contract's file"),
        (&too_long, "too long"),
        (&later, "another version"),
    ] {
        std::fs::write(&file, bytes).expect("writes");
        assert_eq!(take(&wallet, 1).token().nonce[0], 2);
        let listing = wallet.contracts(NOW).expect("lists");
        assert_eq!((listing.contracts.len(), listing.damaged.len()), (1, 1));
        let error = &listing.damaged[0];
        assert!(matches!(error, WalletError::Damaged { path, .. } if *path == file));
        assert_eq!(error.kind(), ErrorKind::Local);
        assert!(error.to_string().contains(reason), "{reason}");
        assert!(!error.to_string().contains(&endpoint(1).unredacted()));
        let is_damaged = |result| matches!(result, Err(WalletError::Damaged { .. }));
        assert!(is_damaged(wallet.begin(&damaged.draft())));
        assert!(is_damaged(wallet.abandon(&damaged.id())));
        assert!(is_damaged(wallet.confirmed(&damaged.id())));
        assert!(is_damaged(wallet.complete(
            &damaged.id(),
            damaged.signed(),
            damaged.tokens(),
            damaged.ratings(),
        )));
        assert_eq!(wallet.forget_expired(UnixSeconds(1_999)).expect("looks"), 0);
        assert!(wallet.drafts().expect("lists").is_empty());
        assert!(std::fs::read(&file).expect("still there") == bytes);
    }
    assert_eq!(
        wallet
            .forget_expired(UnixSeconds(u64::MAX))
            .expect("forgets"),
        1
    );
    assert!(file.exists());
}

#[test]
fn what_a_killed_process_left_half_written_is_removed_and_does_no_harm() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let name = |like: Like| format!("{}.new", hex::encode(like.id().0));
    let whole = std::fs::read(place.file(&USUAL.id())).expect("reads");
    let never_begun = Like { number: 2, ..USUAL };
    std::fs::write(place.path.join(name(USUAL)), &whole[..100]).expect("writes");
    std::fs::write(place.path.join(name(never_begun)), &whole).expect("writes");
    let foreign = place.path.join("notes.new");
    std::fs::write(&foreign, b"not ours").expect("writes");
    let dead = place.path.join("owners").join(hex::encode([7; 16]));
    std::fs::write(&dead, b"").expect("writes");
    let wallet = place.open();
    assert_eq!(counts(&wallet), [8, 0, 0, 0]);
    assert!(!place.path.join(name(USUAL)).exists());
    assert!(!place.path.join(name(never_begun)).exists());
    assert!(foreign.exists(), "only our own leftovers go");
    assert!(!dead.exists());
}

#[test]
fn debug_output_says_nothing() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let text = format!(
        "{wallet:?} {held:?} {:?} {:?} {:?} {:?}",
        call(1),
        USUAL.draft(),
        wallet.contracts(NOW).expect("lists"),
        only(&wallet),
    );
    let scrubbed = [
        "Wallet",
        "ReservedToken",
        "TokenQuery",
        "Draft",
        "Listing",
        "ContractSummary",
    ];
    assert_eq!(
        text,
        scrubbed.map(|name| format!("{name}([scrubbed])")).join(" ")
    );
}

/// One of each kind, small: the advert is not a real one.
fn samples() -> [Record; 2] {
    let mut draft = USUAL.draft();
    draft.contract.plan = Plan {
        name: plan(0),
        memory_bytes: 1 << 26,
        fuel: 5_000_000_000,
        wall_ms: 10_000,
        input_bytes: 1 << 20,
        output_bytes: 1 << 20,
        deterministic: true,
        price: 7,
        needs_token: true,
    };
    let mut advert = vec![0x82, 0x41, 0x01, 0x58, 0x40];
    advert.extend([0x0a; 64]);
    let advert: SignedAdvert = decode(&advert).expect("an advert's frame");
    let token = |byte| CallToken {
        epoch: Epoch(3),
        nonce: [byte; 32],
        authenticator: [byte + 1; 64],
    };
    let taken = |owner| Slot::Taken {
        token: token(0x30),
        seed: [0x31; 32],
        call: [0x32; 32],
        owner,
        since: None,
    };
    let record = |stage| Record {
        endpoint: draft.endpoint,
        advert: advert.clone(),
        contract: draft.contract.clone(),
        stage,
    };
    [
        record(Stage::Draft {
            seed: [0x10; 32],
            invitation: None,
        }),
        record(Stage::Signed(Box::new(Holdings {
            provider_signature: [0x11; 64],
            client_signature: [0x12; 64],
            confirmed: true,
            slots: vec![
                Slot::Fresh(token(0x20)),
                taken(Some(LeaseId([0x33; 16]))),
                taken(None),
                Slot::Spent,
                Slot::Spent,
                Slot::Spent,
                Slot::Spent,
                Slot::Spent,
            ],
            ratings: vec![Rating {
                token: RatingToken {
                    epoch: Epoch(3),
                    key: RatingKey::from_seed(&[0x40; 32]).id(),
                    authenticator: vec![0x41; 2],
                },
                seed: [0x40; 32],
            }],
            seen: Some(advert.clone()),
        }))),
    ]
}

/// Files of format 1 are in people's directories: what is here must be read,
/// and written, for as long as there is a format 1.
#[test]
fn the_format_of_files_is_the_one_that_was_published() {
    let golden = include_str!("golden.txt");
    let golden: Vec<_> = golden
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let written = samples().map(|record| hex::encode(&*record.to_file()));
    assert_eq!(written.as_slice(), golden);
    for (record, golden) in samples().into_iter().zip(golden) {
        let golden = hex::decode(golden).expect("hexadecimal");
        assert!(Record::from_file(&golden, &record.contract.id()) == Ok(record));
    }
    let tag = call_tag(&[1; 32], &[2; 32]);
    assert_eq!(
        hex::encode(tag),
        "c63b4902d30f37fd404305db72f1fefb837b545cf632ac9ea5ef0bcc6a3a5bda"
    );
}

#[test]
fn every_part_of_a_file_is_encoded_in_one_way() {
    fn again<T: PartialEq + for<'b> Decode<'b, ()> + Encode<()> + CborLen<()>>(value: &T) -> bool {
        let bytes = encode(value);
        minicbor::len(value) == bytes.len() && decode::<T>(&bytes).is_ok_and(|it| it == *value)
    }
    assert!(samples().iter().all(again));
    let mut holdings = samples()[1].holdings().cloned().expect("signed");
    for slot in &mut holdings.slots {
        if let Slot::Taken { since, .. } = slot {
            *since = Some(NOW);
        }
    }
    assert!(holdings.slots.iter().all(again) && holdings.ratings.iter().all(again));
}
