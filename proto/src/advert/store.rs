//! The adverts that were seen, as many as there is room for, and
//! where equivocation is found.

use std::collections::{HashMap, VecDeque};

use super::verify::Authentic;
use crate::{Advert, EquivocationProof, ProviderId};

/// Authentic adverts of many providers. Holds at most [`AdvertStore::MAX`] of
/// them, and [`AdvertStore::MAX_OF_ONE`] of one provider.
#[derive(Debug, Default)]
pub struct AdvertStore(Adverts<Authentic<Advert>>);

/// The oldest of each provider first.
type Adverts<T> = HashMap<ProviderId, VecDeque<T>>;

impl AdvertStore {
    /// Adverts of one provider that are kept: two weeks of the shortest epochs.
    pub const MAX_OF_ONE: usize = 32;
    /// Adverts that are kept: 16 MiB if all are of the largest.
    pub const MAX: usize = 256;

    /// Keeps an advert. If it contradicts one that is kept, it is not kept
    /// itself, and the two are the proof: the first stays the measure.
    pub fn insert(&mut self, shown: &Authentic<Advert>) -> Option<EquivocationProof> {
        let proof = equivocation(self.of(&shown.provider), shown);
        let is_new = self
            .of(&shown.provider)
            .all(|it| it.signed() != shown.signed());
        if proof.is_none() && is_new {
            make_room(&mut self.0, &shown.provider);
            let own = self.0.entry(shown.provider).or_default();
            own.push_back(shown.clone());
        }
        proof
    }

    /// The adverts of a provider, in the order in which they were seen.
    pub fn of(&self, provider: &ProviderId) -> impl Iterator<Item = &Authentic<Advert>> {
        self.0.get(provider).into_iter().flatten()
    }
}

/// The proof that one of these adverts contradicts another, if one does.
#[must_use]
pub fn equivocation<'a>(
    known: impl IntoIterator<Item = &'a Authentic<Advert>>,
    shown: &Authentic<Advert>,
) -> Option<EquivocationProof> {
    let other = known.into_iter().find(|known| known.contradicts(shown))?;
    Some(EquivocationProof {
        one: shown.signed().clone(),
        other: other.signed().clone(),
    })
}

/// Drops the oldest advert: of the provider that brings a new one if that has
/// too many, since it decides how many there are; otherwise of the one with the most.
fn make_room<T>(adverts: &mut Adverts<T>, newcomer: &ProviderId) {
    let all: usize = adverts.values().map(VecDeque::len).sum();
    let own = adverts.get(newcomer).map_or(0, VecDeque::len);
    if own < AdvertStore::MAX_OF_ONE && all < AdvertStore::MAX {
        return;
    }
    let order =
        |(provider, adverts): &(&ProviderId, &VecDeque<T>)| (*provider == newcomer, adverts.len());
    let Some(loser) = adverts.iter().max_by_key(order).map(|(id, _)| *id) else {
        return;
    };
    if let Some(own) = adverts.get_mut(&loser) {
        own.pop_front();
        if own.is_empty() {
            adverts.remove(&loser);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, Epoch, IdentityKey, OnionAddress, ReceiptKey, UnixSeconds};

    fn key(seed: u32) -> IdentityKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        IdentityKey::from_seed(&bytes)
    }

    fn advert(seed: u32, epoch: u64) -> Authentic<Advert> {
        let advert = Advert::minimal(
            key(seed).id(),
            Epoch(epoch),
            UnixSeconds(1_000_000 + epoch * 24 * 3600),
            ReceiptKey::from_seed(&[2; 32]).id(),
            Endpoint::Onion(OnionAddress::from_public_key([1; 32])),
        );
        let signed = advert.sign(&key(seed)).expect("signs");
        signed.authenticate().expect("authentic")
    }

    fn epochs(store: &AdvertStore, seed: u32) -> Vec<u64> {
        store.of(&key(seed).id()).map(|it| it.epoch.0).collect()
    }

    #[test]
    fn a_provider_with_many_epochs_takes_no_room_from_others() {
        let mut store = AdvertStore::default();
        assert_eq!(store.insert(&advert(2, 1)), None);
        for epoch in 1..=100 {
            assert_eq!(store.insert(&advert(1, epoch)), None);
        }
        assert_eq!(epochs(&store, 2), [1]);
        let kept: Vec<_> = (69..=100).collect();
        assert_eq!(epochs(&store, 1), kept);
    }

    #[test]
    fn many_providers_take_no_more_room_than_there_is() {
        let mut store = AdvertStore::default();
        for epoch in 0..20 {
            store.insert(&advert(0, epoch));
        }
        for other in 1..=300 {
            store.insert(&advert(other, 0));
        }
        let all: usize = store.0.values().map(VecDeque::len).sum();
        assert_eq!(all, AdvertStore::MAX);
        assert_eq!(epochs(&store, 300), [0], "the latest");
    }

    #[test]
    fn the_same_advert_is_kept_once() {
        let mut store = AdvertStore::default();
        for _ in 0..3 {
            assert_eq!(store.insert(&advert(1, 1)), None);
        }
        assert_eq!(epochs(&store, 1), [1]);
    }

    #[test]
    fn what_contradicts_is_a_proof_and_is_not_kept() {
        let mut store = AdvertStore::default();
        let first = advert(1, 1);
        store.insert(&first);
        let mut other = Advert::clone(&first);
        other.max_function_bytes += 1;
        let other = other.sign(&key(1)).expect("signs");
        let other = other.authenticate().expect("authentic");
        for _ in 0..2 {
            let proof = store.insert(&other).expect("a contradiction");
            assert!(proof.verify().is_ok());
            assert!(proof.one == *other.signed() && proof.other == *first.signed());
        }
        let kept: Vec<_> = store.of(&key(1).id()).collect();
        assert!(kept.len() == 1 && kept[0].signed() == first.signed());
    }
}
