//! What a caller asks of a provider.

use crate::{Advert, FunctionId, PlanName};

/// Requirements that an advert meets or not. The default asks for nothing.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirements {
    /// At least so many cores.
    pub cores: u16,
    /// At least so much memory of the machine, in MiB.
    pub memory_mib: u64,
    /// An accelerator.
    pub gpu: bool,
    /// A trusted execution environment.
    pub tee: bool,
    /// A plan of this name; without one, any.
    pub plan: Option<PlanName>,
    /// A plan, of that name if one is given, at no more than this price.
    pub max_price: Option<u64>,
    /// A function that the provider always has.
    pub function: Option<FunctionId>,
}

impl Requirements {
    /// Whether the provider of this advert claims to meet them.
    #[must_use]
    pub fn are_met_by(&self, advert: &Advert) -> bool {
        let specs = &advert.specs;
        let has_function = |id: &FunctionId| advert.functions.iter().any(|it| it.id == *id);
        let has_plan = advert.plans.iter().any(|plan| {
            self.plan.as_ref().is_none_or(|name| plan.name == *name)
                && self.max_price.is_none_or(|most| plan.price <= most)
        });
        specs.cpu.cores >= self.cores
            && specs.memory >= self.memory_mib
            && (!self.gpu || !specs.gpu.is_empty())
            && (!self.tee || specs.tee.is_some())
            && has_plan
            && self.function.as_ref().is_none_or(has_function)
    }
}

impl std::fmt::Debug for Requirements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requirements([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Endpoint, Epoch, IdentityKey, OnionAddress, PublishedFunction, ReceiptKey, UnixSeconds,
    };

    fn advert() -> Advert {
        let mut advert = Advert::minimal(
            IdentityKey::from_seed(&[1; 32]).id(),
            Epoch(1),
            UnixSeconds(1_000),
            ReceiptKey::from_seed(&[2; 32]).id(),
            Endpoint::Onion(OnionAddress::from_public_key([1; 32])),
        );
        advert.specs.cpu.cores = 4;
        advert.specs.memory = 1024;
        for (at, plan) in advert.plans.iter_mut().enumerate() {
            plan.price = 10 * (at as u64 + 1);
        }
        advert.functions.push(PublishedFunction {
            id: FunctionId::of(b"f"),
            alias: "f".into(),
            size: 1,
        });
        advert
    }

    #[test]
    fn each_requirement_is_met_or_refuses() {
        let plain = Requirements::default;
        let second = Some(advert().plans[1].name.clone());
        let met = [
            plain(),
            Requirements {
                cores: 4,
                ..plain()
            },
            Requirements {
                memory_mib: 1024,
                ..plain()
            },
            Requirements {
                max_price: Some(10),
                ..plain()
            },
            Requirements {
                plan: second.clone(),
                max_price: Some(20),
                ..plain()
            },
            Requirements {
                function: Some(FunctionId::of(b"f")),
                ..plain()
            },
        ];
        let unmet = [
            Requirements {
                cores: 5,
                ..plain()
            },
            Requirements {
                memory_mib: 1025,
                ..plain()
            },
            Requirements {
                gpu: true,
                ..plain()
            },
            Requirements {
                tee: true,
                ..plain()
            },
            Requirements {
                max_price: Some(9),
                ..plain()
            },
            Requirements {
                plan: second,
                max_price: Some(19),
                ..plain()
            },
            Requirements {
                plan: Some("other".parse().expect("a name")),
                ..plain()
            },
            Requirements {
                function: Some(FunctionId::of(b"g")),
                ..plain()
            },
        ];
        assert!(met.iter().all(|it| it.are_met_by(&advert())));
        assert!(!unmet.iter().any(|it| it.are_met_by(&advert())));
        let mut equipped = advert();
        equipped.specs.gpu.push("a".into());
        equipped.specs.tee = Some("b".into());
        let wanted = Requirements {
            gpu: true,
            tee: true,
            ..plain()
        };
        assert!(wanted.are_met_by(&equipped));
    }
}
