//! Whom the wallet holds tokens of.

use std::collections::BTreeMap;

use dlambda_proto::{Advert, Authentic, Endpoint, ProviderId};

use super::file::Slot;
use super::{TokenQuery, Wallet, WalletError};

/// A provider that a call may be paid at.
#[derive(Clone)]
#[non_exhaustive]
pub struct Held {
    /// The provider.
    pub provider: ProviderId,
    /// Where it says that it is reached: first where the contract was proposed.
    pub endpoints: Vec<Endpoint>,
    /// What it last showed.
    pub advert: Authentic<Advert>,
    /// Tokens that no call was made with.
    pub fresh: usize,
    /// Whether the very same call was interrupted here, and would get its token back.
    pub resumable: bool,
}

impl Wallet {
    /// The providers that [`Wallet::reserve`] would have a token of, in the order of their ids;
    /// `query` says what is asked for at an endpoint. Damaged files are passed over. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read; [`WalletError::Busy`].
    pub fn holdings(
        &self,
        query: impl Fn(&Endpoint) -> TokenQuery,
    ) -> Result<Vec<Held>, WalletError> {
        let operation = self.shared.enter()?;
        let mut all: BTreeMap<ProviderId, Held> = BTreeMap::new();
        for id in operation.contracts()? {
            let Ok(Some(record)) = operation.read(&id) else {
                continue;
            };
            let query = query(&record.endpoint);
            let (plan, valid_at) = (query.plan.as_ref(), query.valid_at);
            let Some(holdings) = record.serving(&record.endpoint, plan, valid_at) else {
                continue;
            };
            let Some(seen) = holdings.seen.clone() else {
                continue;
            };
            let Ok(advert) = seen.authenticate() else {
                continue;
            };
            let is_fresh = |slot: &&Slot| matches!(slot, Slot::Fresh(_));
            let fresh = holdings.slots.iter().filter(is_fresh).count();
            let resumable = operation.interrupted(id, holdings, &query).is_some();
            if fresh == 0 && !resumable {
                continue;
            }
            let held = all.entry(advert.provider).or_insert_with(|| Held {
                provider: advert.provider,
                endpoints: vec![record.endpoint],
                advert: advert.clone(),
                fresh: 0,
                resumable: false,
            });
            held.fresh += fresh;
            held.resumable |= resumable;
            if advert.epoch > held.advert.epoch {
                held.advert = advert;
            }
            for endpoint in &held.advert.endpoints {
                if !held.endpoints.contains(endpoint) {
                    held.endpoints.push(*endpoint);
                }
            }
        }
        Ok(all.into_values().collect())
    }
}
