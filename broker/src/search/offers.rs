//! Active search: the offers of a class, as most of up to five nodes have them, without I/O.
//!
//! Offers are public. One that a single node shows could steer the guest it is shown to, so
//! a provider's offer counts only if most nodes that answer have one of it.

use std::collections::BTreeMap;

use dlambda_proto::{
    Answer, Ask, Authentic, Class, Offer, ProviderId, SignedOffer, UnixSeconds, encode,
};

use crate::sources::{Plan, Request, Roster, Sources};
use crate::{GuestError, Refusal, Rules, SourceFault};

/// A search for offers. See the module.
pub struct FindOffers {
    rules: Rules,
    class: Class,
    now: UnixSeconds,
    roster: Roster<Option<Offers>>,
    /// By their signed bytes: each is checked once.
    checked: BTreeMap<Vec<u8>, Authentic<Offer>>,
}

type Offers = BTreeMap<ProviderId, Vec<u8>>;

impl FindOffers {
    /// A search at these nodes.
    #[must_use]
    pub fn new(rules: Rules, class: Class, sources: Sources, now: UnixSeconds) -> Self {
        Self {
            rules,
            class,
            now,
            roster: Roster::new(sources),
            checked: BTreeMap::new(),
        }
    }

    /// One offer of each provider of which most nodes that answered have one: that which most of
    /// them have, and of two such the newer.
    #[must_use]
    pub fn finish(self) -> Vec<Authentic<Offer>> {
        let members = self.roster.members.iter().filter(|it| !it.is_out());
        let answers: Vec<_> = members.filter_map(|it| it.state.as_ref()).collect();
        let mut counts = BTreeMap::<ProviderId, BTreeMap<&Vec<u8>, usize>>::new();
        for (provider, offer) in answers.iter().flat_map(|it| it.iter()) {
            *counts
                .entry(*provider)
                .or_default()
                .entry(offer)
                .or_default() += 1;
        }
        let most = |it: &BTreeMap<&Vec<u8>, usize>| it.values().sum::<usize>() * 2 > answers.len();
        let shared = counts.into_values().filter(most);
        let best = shared.filter_map(|offers| {
            let offers = offers.into_iter();
            let checked = offers.filter_map(|(it, count)| Some((count, self.checked.get(it)?)));
            checked.max_by_key(|(count, it)| (*count, it.minute))
        });
        best.map(|(_, offer)| offer.clone()).collect()
    }

    fn take(&mut self, offers: Vec<SignedOffer>) -> Result<Offers, SourceFault> {
        if offers.len() > Answer::MAX_LISTINGS {
            return Err(SourceFault::WrongAnswer);
        }
        let mut taken = Offers::new();
        for signed in offers {
            let claims = signed.claims(self.rules.network).map_err(Refusal::from)?;
            // Whether the machine belongs to the class that was asked for, its listing says.
            if taken.contains_key(&claims.provider) {
                return Err(SourceFault::WrongAnswer);
            }
            let key = encode(&claims);
            if !self.checked.contains_key(&key) {
                let offer = signed.authenticate(self.rules.network);
                let offer = offer.map_err(Refusal::from)?;
                self.checked.insert(key.clone(), offer);
            }
            // The node's clock may be another.
            if claims.check_time(self.now).is_ok() {
                taken.insert(claims.provider, key);
            }
        }
        Ok(taken)
    }
}

impl Plan for FindOffers {
    fn next(&mut self) -> Option<Request> {
        let unasked = self.roster.unasked()?;
        Some(self.roster.request(unasked, Ask::Offers(self.class)))
    }

    fn receive(&mut self, id: u64, answer: Result<Answer, GuestError>) {
        let Some((member, _)) = self.roster.take(id) else {
            return;
        };
        let taken = match answer {
            Err(error) => Err(error.into()),
            Ok(Answer::Busy) => Err(SourceFault::Busy),
            Ok(Answer::Offers(offers)) => self.take(offers),
            Ok(_) => Err(SourceFault::WrongAnswer),
        };
        match taken {
            Ok(offers) => self.roster.members[member].state = Some(offers),
            Err(fault) => self.roster.fail(member, fault),
        }
    }

    fn is_done(&self) -> bool {
        self.roster.is_answered()
    }
}

impl std::fmt::Debug for FindOffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FindOffers([scrubbed])")
    }
}
