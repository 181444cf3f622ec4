//! Which providers a call may go to, and in which order.
//!
//! Only the wallet is asked, the market as it was fetched, and what earlier calls have shown: a
//! choice causes no request. It depends on what the call needs, and on nothing else of it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use dlambda_broker::selection::{self, Prospect};
use dlambda_privacy::os_rng;
use dlambda_proto::{Endpoint, FunctionId, Requirements};
use rand_core::Rng;

use super::options::{Call, Candidate, FunctionName, Target};
use super::payment::{blocking, token_queries};
use crate::experience::Experience;
use crate::wallet::{Held, Resuming};
use crate::{CallError, Querier};

/// Others are near if they answer within so many times the time of the nearest.
const NEAR: u32 = 2;

impl Querier {
    /// The providers that a call may go to, in the order in which they are to be asked.
    ///
    /// # Errors
    ///
    /// [`CallError::NoCandidate`], [`CallError::UnknownAlias`], [`CallError::AmbiguousAlias`],
    /// [`CallError::NothingToResume`], [`CallError::Wallet`].
    pub(super) async fn candidates(&self, call: &Call) -> Result<Vec<Candidate>, CallError> {
        let wanted = match &call.target {
            Target::Provider(endpoint) => return Ok(vec![Candidate::at(*endpoint)]),
            Target::Any(wanted) => wanted,
        };
        let wallet = self.wallet().cloned().ok_or(CallError::NoCandidate)?;
        let query = token_queries(call, self.clock().now());
        let held = blocking(move || wallet.holdings(query)).await?;
        let eligible = held
            .into_iter()
            .filter_map(|held| self.eligible(held, wanted));
        let mut eligible: Vec<Eligible> = eligible.collect();
        // One that calls itself two things at one address would be compared with itself.
        let mut endpoints = HashSet::new();
        eligible.retain(|it| endpoints.insert(it.endpoint));
        if call.resuming == Resuming::AtAnyTime {
            eligible.retain(|it| it.held.resumable);
            if eligible.is_empty() {
                return Err(CallError::NothingToResume);
            }
        }
        if eligible.is_empty() {
            return Err(CallError::NoCandidate);
        }
        let function = settle_alias(&mut eligible, &call.function)?;
        let order = order(&eligible, &self.experience(), &mut os_rng());
        let candidates = order.into_iter().filter_map(|index| eligible.get(index));
        let candidates = candidates.map(|it| Candidate {
            endpoint: it.endpoint,
            function,
        });
        Ok(candidates.collect())
    }

    fn eligible(&self, held: Held, wanted: &Requirements) -> Option<Eligible> {
        let endpoint = *held.endpoints.iter().find(|it| self.reaches(it))?;
        let is_bad = self.experience().has_misbehaved(&endpoint)
            || self.check_endpoint(&endpoint).is_err()
            || !wanted.are_met_by(&held.advert);
        (!is_bad).then_some(Eligible { endpoint, held })
    }
}

/// A provider that a call may go to.
struct Eligible {
    endpoint: Endpoint,
    held: Held,
}

/// Leaves those that publish the alias, and says what it stands for. Two providers that give it to
/// different functions are no choice to make at random.
fn settle_alias(
    eligible: &mut Vec<Eligible>,
    function: &FunctionName,
) -> Result<Option<FunctionId>, CallError> {
    let FunctionName::Alias(alias) = function else {
        return Ok(None);
    };
    let names = |it: &Eligible| {
        let functions = it.held.advert.functions.iter();
        functions.map(|it| it.alias.clone()).collect::<Vec<_>>()
    };
    let known: BTreeSet<String> = eligible.iter().flat_map(names).collect();
    let id = |it: &Eligible| it.held.advert.function_by_alias(alias).map(|it| it.id);
    eligible.retain(|it| id(it).is_some());
    let ids: BTreeSet<FunctionId> = eligible.iter().filter_map(id).collect();
    match ids.len() {
        0 => Err(CallError::UnknownAlias {
            known: known.into_iter().collect(),
        }),
        1 => Ok(ids.into_iter().next()),
        _ => Err(CallError::AmbiguousAlias {
            ids: ids.into_iter().collect(),
        }),
    }
}

/// First whom this very call was interrupted at; else one drawn by how well it served. After it
/// those that answer quickly, then those not known, then those far away.
fn order(eligible: &[Eligible], experience: &Experience, rng: &mut impl Rng) -> Vec<usize> {
    let prospects: Vec<Prospect> = eligible
        .iter()
        .map(|it| Prospect::known(experience.lower_bound(&it.endpoint)))
        .collect();
    let mut order = selection::draw(&prospects, eligible.len(), rng);
    let latency = |index: &usize| experience.latency(&eligible.get(*index)?.endpoint);
    let near = order.iter().filter_map(latency).min();
    let near = near.unwrap_or(Duration::ZERO).saturating_mul(NEAR);
    if let Some((_, others)) = order.split_first_mut() {
        others.sort_by_key(|index| match latency(index) {
            Some(latency) if latency <= near => 0,
            None => 1,
            Some(_) => 2,
        });
    }
    let resumable = |index: &usize| eligible.get(*index).is_some_and(|it| it.held.resumable);
    order.sort_by_key(|index| !resumable(index));
    order
}
