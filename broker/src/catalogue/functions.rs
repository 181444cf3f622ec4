//! How often functions are called: the latest statement of each listed provider.

use dlambda_proto::{FunctionDemand, SignedFunctionDemand, UnixSeconds};

use super::{Catalogue, Inserted, Refusal};

impl Catalogue {
    /// Takes a listed provider's statement of the calls to its published functions: one a day, and
    /// the latest only, for two days.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn insert_function_demand(
        &mut self,
        signed: SignedFunctionDemand,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let result = self.try_insert_function_demand(signed, now);
        self.count(result)
    }

    /// The statements that are of use now, in the order of their providers' ids.
    pub fn function_demands(&self, now: UnixSeconds) -> impl Iterator<Item = &FunctionDemand> {
        let demands = self.active.function_demands.values();
        demands.filter(move |it| it.check_time(now).is_ok())
    }

    fn try_insert_function_demand(
        &mut self,
        signed: SignedFunctionDemand,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let claims = signed.claims(self.rules.network)?;
        claims.check_time(now)?;
        if self.get(&claims.provider).is_none() {
            return Err(Refusal::Unlisted);
        }
        let inserted = match self.active.function_demands.get(&claims.provider) {
            None => Inserted::New,
            Some(held) if *held == claims => return Ok(Inserted::Known),
            Some(held) if claims.day < held.day => return Err(Refusal::Superseded),
            Some(held) if claims.day == held.day => return Err(Refusal::OverQuota),
            Some(_) => Inserted::Renewed,
        };
        signed.authenticate(self.rules.network)?;
        // Nodes that come later hear the next one: the signature is of no use any more.
        let demands = &mut self.active.function_demands;
        demands.insert(claims.provider, claims);
        Ok(inserted)
    }
}
