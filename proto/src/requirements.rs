//! What a caller asks of a provider.

use serde::Serialize;

use crate::{Advert, FunctionId, FunctionPrefix, Listing, PlanName, Region, Resources};

/// Requirements that an advert or a listing meets or not. The default asks for nothing.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirements {
    /// At least so many cores.
    pub cores: u16,
    /// At least so much memory of the machine, in MiB.
    pub memory_mib: u64,
    /// An accelerator.
    pub gpu: bool,
    /// An accelerator with at least so much memory, in MiB.
    pub gpu_vram_mib: u64,
    /// A trusted execution environment.
    pub tee: bool,
    /// A machine that says that it is there.
    pub region: Option<Region>,
    /// A plan of this name; without one, any.
    pub plan: Option<PlanName>,
    /// A plan, of that name if one is given, at no more than this price.
    pub max_price: Option<u64>,
    /// A function that the provider always has.
    pub function: Option<FunctionId>,
}

/// One of the [`Requirements`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Requirement {
    /// [`Requirements::cores`].
    Cores,
    /// [`Requirements::memory_mib`].
    Memory,
    /// [`Requirements::gpu`] and [`Requirements::gpu_vram_mib`].
    Gpu,
    /// [`Requirements::tee`].
    Tee,
    /// [`Requirements::region`].
    Region,
    /// [`Requirements::plan`].
    Plan,
    /// [`Requirements::max_price`].
    Price,
    /// [`Requirements::function`].
    Function,
}

impl Requirements {
    /// Whether the provider of this advert claims to meet them.
    #[must_use]
    pub fn are_met_by(&self, advert: &Advert) -> bool {
        let has_function = |id: &FunctionId| advert.functions.iter().any(|it| it.id == *id);
        self.unmet(
            &advert.specs.resources(),
            advert.specs.region.as_ref(),
            advert.plans.iter().map(|plan| (&plan.name, plan.price)),
            has_function,
        )
        .is_empty()
    }

    /// Which of them the provider of this listing does not claim to meet. A listing names few
    /// functions, and by a prefix: the advert has the last word.
    #[must_use]
    pub fn unmet_by(&self, listing: &Listing) -> Vec<Requirement> {
        let has_function = |id: &FunctionId| listing.functions.contains(&FunctionPrefix::of(id));
        self.unmet(
            &listing.resources,
            listing.region.as_ref(),
            listing.plans.iter().map(|plan| (&plan.name, plan.price)),
            has_function,
        )
    }

    fn unmet<'a>(
        &self,
        machine: &Resources,
        region: Option<&Region>,
        plans: impl Iterator<Item = (&'a PlanName, u64)> + Clone,
        has_function: impl Fn(&FunctionId) -> bool,
    ) -> Vec<Requirement> {
        let vram = self.gpu_vram_mib.max(u64::from(self.gpu));
        let wanted = plans.filter(|(name, _)| self.plan.as_ref().is_none_or(|it| it == *name));
        let cheap = |price: u64| self.max_price.is_none_or(|most| price <= most);
        let has_plan = wanted.clone().next().is_some();
        [
            (Requirement::Cores, machine.cores >= self.cores),
            (Requirement::Memory, machine.memory_mib >= self.memory_mib),
            (Requirement::Gpu, machine.gpu_vram_mib >= vram),
            (Requirement::Tee, !self.tee || machine.tee),
            (
                Requirement::Region,
                self.region.is_none() || self.region.as_ref() == region,
            ),
            (Requirement::Plan, has_plan),
            (
                Requirement::Price,
                !has_plan || wanted.clone().any(|(_, price)| cheap(price)),
            ),
            (
                Requirement::Function,
                self.function.as_ref().is_none_or(has_function),
            ),
        ]
        .into_iter()
        .filter_map(|(requirement, is_met)| (!is_met).then_some(requirement))
        .collect()
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cores => "cores",
            Self::Memory => "memory",
            Self::Gpu => "accelerator",
            Self::Tee => "trusted execution environment",
            Self::Region => "region",
            Self::Plan => "plan",
            Self::Price => "price",
            Self::Function => "function",
        })
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
