//! Whether a provider shows everybody the same keys: what this caller has seen
//! of it on other circuits and at other times must agree with what it shows now.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dlambda_proto::{Endpoint, EquivocationProof, ProviderId, Sighting, SignedAdvert};
use futures::future::BoxFuture;

use crate::contracts::{Open, blocking};
use crate::patience::Patience;
use crate::wallet::Unchecked;
use crate::{ContractError, Querier};

/// Epochs with good tokens that may have ended early before a provider is
/// refused. A changed offer ends one; the crowd of a call is split by each.
pub(crate) const MAX_EARLY_ENDS: usize = 1;

/// Adverts that are remembered, of one provider and of all together: 16 MiB if all are of the largest.
const MAX_OF_ONE: usize = 32;
const MAX_ADVERTS: usize = 256;

/// What became of contracts whose provider was looked at once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Looked {
    /// Contracts whose tokens can be spent from now on.
    pub checked: usize,
    /// Contracts whose provider did not answer.
    pub left: usize,
    /// Contracts made under an advert that the provider does not list: their
    /// tokens stay where they are.
    pub unlisted: usize,
}

/// The adverts that a querier has seen, the latest of each provider.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Adverts<Sighting>>);

type Adverts<T> = HashMap<ProviderId, VecDeque<T>>;

impl Seen {
    /// Remembers an advert, and returns one that contradicts it, if there is one.
    pub(crate) fn remember(&self, shown: &Sighting) -> Option<SignedAdvert> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let provider = shown.advert().provider;
        let adverts = || seen.get(&provider).into_iter().flatten();
        let contradicting = first_contradiction(adverts(), shown);
        // What contradicts is not remembered: the first one stays the measure.
        if contradicting.is_none() && adverts().all(|known| known.signed() != shown.signed()) {
            make_room(&mut seen, &provider);
            seen.entry(provider).or_default().push_back(shown.clone());
        }
        contradicting
    }
}

/// Forgets the oldest advert, of the provider that brings a new one if it has any, for it decides how many there are;
/// otherwise of the one with the most.
fn make_room<T>(seen: &mut Adverts<T>, newcomer: &ProviderId) {
    let all: usize = seen.values().map(VecDeque::len).sum();
    let own = seen.get(newcomer).map_or(0, VecDeque::len);
    if own < MAX_OF_ONE && all < MAX_ADVERTS {
        return;
    }
    let order =
        |(provider, adverts): &(&ProviderId, &VecDeque<T>)| (*provider == newcomer, adverts.len());
    let Some(loser) = seen.iter().max_by_key(order).map(|(provider, _)| *provider) else {
        return;
    };
    if let Some(adverts) = seen.get_mut(&loser) {
        adverts.pop_front();
        if adverts.is_empty() {
            seen.remove(&loser);
        }
    }
}

impl Querier {
    /// Compares an advert that was seen elsewhere, by another caller or in
    /// gossip, with all that this querier and its wallet have seen of the provider.
    /// Nothing is believed of it but its signature.
    ///
    /// # Errors
    ///
    /// [`ContractError::Wallet`] if the wallet cannot be read. An advert that
    /// nobody signed contradicts nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn compare(
        &self,
        elsewhere: SignedAdvert,
    ) -> Result<Option<EquivocationProof>, ContractError> {
        let Ok(shown) = Sighting::new(elsewhere) else {
            return Ok(None);
        };
        let other = self.contradiction(&shown).await?;
        let one = shown.signed().clone();
        Ok(other.map(|other| EquivocationProof { one, other }))
    }

    /// Looks at the adverts of the providers of new contracts once more, each on
    /// a circuit of its own. Tokens are spent only after this: a provider that
    /// made keys for one buyer would have to know who looks.
    ///
    /// The sooner after the contract, the better it can guess: wait for a random time before.
    ///
    /// # Errors
    ///
    /// [`ContractError::Equivocation`] if a provider shows other keys now, and
    /// [`ContractError::Wallet`]. Providers that cannot be reached are counted.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not looked at waits.
    pub fn look_again(&self, max_time: Duration) -> BoxFuture<'_, Result<Looked, ContractError>> {
        // Boxed, so that it is compiled here.
        Box::pin(self.look_at_all(None, max_time))
    }

    /// The same for the contracts of one provider: visits to several, one right
    /// after the other, would tell providers that collude that they have one caller.
    ///
    /// # Errors
    ///
    /// Those of [`Querier::look_again`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Querier::look_again`].
    pub fn look_again_at<'a>(
        &'a self,
        provider: &Endpoint,
        max_time: Duration,
    ) -> BoxFuture<'a, Result<Looked, ContractError>> {
        Box::pin(self.look_at_all(Some(*provider), max_time))
    }

    async fn look_at_all(
        &self,
        only: Option<Endpoint>,
        max_time: Duration,
    ) -> Result<Looked, ContractError> {
        let wallet = self.needed_wallet()?;
        let mut looked = Looked::default();
        let mut waiting = blocking(move || wallet.unchecked()).await?;
        waiting.retain(|it| only.is_none_or(|only| it.endpoint == only));
        let endpoints: HashSet<Endpoint> = waiting.iter().map(|it| it.endpoint).collect();
        for endpoint in endpoints {
            let here: Vec<_> = waiting
                .iter()
                .filter(|it| it.endpoint == endpoint)
                .collect();
            match self.look(&endpoint, &here, Patience::new(max_time)).await {
                Ok((checked, unlisted)) => {
                    looked.checked += checked;
                    looked.unlisted += unlisted;
                }
                Err(error @ (ContractError::Equivocation(_) | ContractError::Wallet(_))) => {
                    return Err(error);
                }
                _ => looked.left += here.len(),
            }
        }
        Ok(looked)
    }

    /// How many of these contracts were made under an advert that is still
    /// shown or listed, and how many not.
    async fn look(
        &self,
        endpoint: &Endpoint,
        waiting: &[&Unchecked],
        patience: Patience,
    ) -> Result<(usize, usize), ContractError> {
        let Open {
            stream, welcome, ..
        } = self.greet(endpoint, patience, &mut |_| {}).await?;
        // Nothing is sent, so that nobody can tell whose visit it is.
        drop(stream);
        let shown = Sighting::verified(&welcome.advert, &welcome.signed);
        let (mut checked, mut unlisted) = (0, 0);
        for contract in waiting {
            let bought_under = Sighting::new(contract.advert.clone());
            if !bought_under.is_ok_and(|it| shown.vouches_for(&it)) {
                unlisted += 1;
                continue;
            }
            let wallet = self.needed_wallet()?;
            let (id, shown) = (contract.id, shown.signed().clone());
            blocking(move || wallet.checked(&id, &shown)).await?;
            checked += 1;
        }
        Ok((checked, unlisted))
    }

    /// Remembers an advert, and returns one that contradicts it, if it has seen one.
    ///
    /// Without a token, the answer must not change what is sent: a caller that
    /// hangs up when it sees a second advert tells the provider that it has
    /// seen a first one. So such a call goes on, and its caller hears of it
    /// afterwards.
    pub(crate) fn remember(&self, shown: &Sighting) -> Option<SignedAdvert> {
        self.seen().remember(shown)
    }

    /// An advert that this querier or its wallet has seen, and that contradicts this one.
    pub(crate) async fn contradiction(
        &self,
        shown: &Sighting,
    ) -> Result<Option<SignedAdvert>, ContractError> {
        if let Some(other) = self.remember(shown) {
            return Ok(Some(other));
        }
        let Some(wallet) = self.wallet().cloned() else {
            return Ok(None);
        };
        let provider = shown.advert().provider;
        let known = blocking(move || wallet.adverts(&provider)).await?;
        Ok(contradicted(known, shown))
    }
}

/// One of these adverts that contradicts another.
pub(crate) fn contradicted(known: Vec<SignedAdvert>, shown: &Sighting) -> Option<SignedAdvert> {
    let known: Vec<_> = known
        .into_iter()
        .filter(|known| known != shown.signed())
        .filter_map(|known| Sighting::new(known).ok())
        .collect();
    first_contradiction(known.iter(), shown)
}

fn first_contradiction<'a>(
    mut known: impl Iterator<Item = &'a Sighting>,
    shown: &Sighting,
) -> Option<SignedAdvert> {
    let contradicting = known.find(|known| known.contradicts(shown));
    contradicting.map(|known| known.signed().clone())
}

#[cfg(test)]
mod tests {
    use dlambda_proto::IdentityKey;

    use super::*;

    fn provider(seed: u32) -> ProviderId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        IdentityKey::from_seed(&bytes).id()
    }

    fn remember(seen: &mut Adverts<u32>, provider: ProviderId, advert: u32) {
        make_room(seen, &provider);
        seen.entry(provider).or_default().push_back(advert);
    }

    #[test]
    fn a_provider_with_many_epochs_takes_no_room_from_others_and_no_more_than_there_is() {
        let (busy, quiet) = (provider(1), provider(2));
        let mut seen = Adverts::new();
        remember(&mut seen, quiet, 1);
        for epoch in 1..=1_000 {
            remember(&mut seen, busy, epoch);
        }
        assert_eq!(seen[&quiet], [1]);
        assert_eq!(seen[&busy].len(), MAX_OF_ONE);
        assert_eq!(seen[&busy].back(), Some(&1_000));
    }

    #[test]
    fn many_providers_take_no_more_room_than_there_is() {
        let mut seen = Adverts::new();
        for epoch in 0..20 {
            remember(&mut seen, provider(0), epoch);
        }
        for other in 1..=300 {
            remember(&mut seen, provider(other), 0);
        }
        let all: usize = seen.values().map(VecDeque::len).sum();
        assert_eq!(all, MAX_ADVERTS);
        assert!(seen.contains_key(&provider(300)), "the latest");
    }
}
