//! Whether a provider shows everybody the same keys: what this caller has seen
//! of it on other circuits and at other times must agree with what it shows now.

use std::collections::HashSet;
use std::time::Duration;

use dlambda_proto::{Advert, Authentic, Endpoint, EquivocationProof, SignedAdvert, equivocation};
use futures::future::BoxFuture;

use crate::contracts::{Open, blocking};
use crate::patience::Patience;
use crate::wallet::Unchecked;
use crate::{ContractError, Querier};

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
        let Ok(shown) = elsewhere.authenticate() else {
            return Ok(None);
        };
        self.equivocation(&shown).await
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
        let now = self.clock().now();
        let mut waiting = blocking(move || wallet.unchecked(now)).await?;
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
        // Nothing is sent, so that the visit is anonymous.
        drop(stream);
        let shown = welcome.advert.authentic();
        let (mut checked, mut unlisted) = (0, 0);
        for contract in waiting {
            let bought_under = contract.advert.clone().authenticate();
            if !bought_under.is_ok_and(|it| shown.vouches_for(&it)) {
                unlisted += 1;
                continue;
            }
            let wallet = self.needed_wallet()?;
            let (id, shown) = (contract.id, shown.clone());
            blocking(move || wallet.checked(&id, &shown)).await?;
            checked += 1;
        }
        Ok((checked, unlisted))
    }

    /// Keeps an advert, and returns the proof if it contradicts one that was seen.
    ///
    /// Without a token, the answer must not change what is sent: a caller that
    /// hangs up when it sees a second advert tells the provider that it has
    /// seen a first one. So such a call goes on, and its caller hears of it
    /// afterwards.
    pub(crate) fn remember(&self, shown: &Authentic<Advert>) -> Option<EquivocationProof> {
        self.adverts().insert(shown)
    }

    /// The proof that this advert contradicts one that this querier or its wallet has seen.
    pub(crate) async fn equivocation(
        &self,
        shown: &Authentic<Advert>,
    ) -> Result<Option<EquivocationProof>, ContractError> {
        if let Some(proof) = self.remember(shown) {
            return Ok(Some(proof));
        }
        let Some(wallet) = self.wallet().cloned() else {
            return Ok(None);
        };
        let provider = shown.provider;
        let known = blocking(move || wallet.adverts(&provider)).await?;
        Ok(equivocation(&known, shown))
    }
}
