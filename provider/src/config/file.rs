//! The configuration file.

use std::path::Path;
use std::time::Duration;

use dlambda_executor::QueueConfig;
use dlambda_proto::{Admission, BatchSize, Greeting, Plan, PlanName};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{ConfigError, Machine, ProviderConfig};

/// A configuration file with every setting at its default, explained.
pub const EXAMPLE: &str = include_str!("example.toml");

const MIB: u64 = 1 << 20;
/// Most plans on a menu: many plans make small anonymity sets.
const MAX_PLANS: usize = 8;
/// Longest time between two looks for functions to fetch: a week.
const MAX_PRELOAD_MINUTES: u64 = 7 * 24 * 60;
/// Shortest secret of an invitation, in bytes.
const MIN_INVITATION: usize = 16;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    contracts: ContractsTable,
    functions: FunctionsTable,
    execution: Execution,
    machine: MachineTable,
    plan: Vec<PlanTable>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ContractsTable {
    admission: Option<Admission>,
    invitations: Vec<String>,
    least_effort: Option<u8>,
    most_effort: Option<u8>,
    max_calls: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FunctionsTable {
    preload_mib: Option<u64>,
    preload_minutes: Option<u64>,
    tell_demand: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Execution {
    process_isolation: Option<bool>,
    program: Option<std::path::PathBuf>,
    workers: usize,
    concurrent: usize,
    memory_mib: u64,
    warm_mib: Option<u64>,
    code_cache_mib: Option<u64>,
    compile_memory_mib: Option<u64>,
    compile_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MachineTable {
    region: Option<String>,
    gpu: Vec<String>,
    gpu_vram_mib: u64,
    tee: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanTable {
    name: String,
    memory_mib: u64,
    fuel: u64,
    wall_ms: u32,
    input_kib: u32,
    output_kib: u32,
    #[serde(default = "yes")]
    deterministic: bool,
    #[serde(default)]
    price: u64,
    #[serde(default = "yes")]
    token: bool,
    #[serde(default)]
    concurrent: usize,
    queued: Option<usize>,
    max_wait_seconds: Option<u64>,
}

fn yes() -> bool {
    true
}

impl ProviderConfig {
    /// Reads a configuration file; what it does not set stays at its default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the line or the setting.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&std::fs::read_to_string(path).map_err(ConfigError::Read)?)
    }

    /// The same from text.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the line or the setting.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)?;
        let mut config = Self::default();
        config.apply_contracts(file.contracts)?;
        config.apply_functions(&file.functions)?;
        config.apply_execution(file.execution)?;
        config.apply_machine(file.machine)?;
        if !file.plan.is_empty() {
            config.apply_plans(file.plan)?;
        }
        let priced = config.plans.iter().any(|plan| plan.price > 0);
        if priced && config.contracts.admission != Admission::Invite {
            return Err(wrong(
                "price of a plan".into(),
                "needs `admission = \"invite\"`: there is no other way yet to be paid",
            ));
        }
        Ok(config)
    }

    fn apply_contracts(&mut self, table: ContractsTable) -> Result<(), ConfigError> {
        let contracts = &mut self.contracts;
        let setting = |name: &str| format!("contracts.{name}");
        contracts.admission = table.admission.unwrap_or(contracts.admission);
        for secret in table.invitations {
            if secret.len() < MIN_INVITATION {
                return Err(wrong(
                    setting("invitations"),
                    "must have 16 characters or more each",
                ));
            }
            contracts
                .invitations
                .push(Zeroizing::new(secret.into_bytes()));
        }
        if contracts.admission == Admission::Invite && contracts.invitations.is_empty() {
            return Err(wrong(
                setting("invitations"),
                "must be given for `admission = \"invite\"`",
            ));
        }
        contracts.least_effort = table.least_effort.unwrap_or(contracts.least_effort);
        contracts.most_effort = table.most_effort.unwrap_or(contracts.most_effort);
        let ordered = contracts.least_effort <= contracts.most_effort;
        if !ordered || contracts.most_effort > Greeting::MAX_EFFORT {
            return Err(wrong(
                setting("most_effort"),
                "must be 16 at most, and least_effort no more",
            ));
        }
        if let Some(calls) = table.max_calls {
            let size = BatchSize::of_calls(calls);
            contracts.max_calls =
                size.ok_or_else(|| wrong(setting("max_calls"), "must be 8, 32 or 128"))?;
        }
        Ok(())
    }

    fn apply_functions(&mut self, table: &FunctionsTable) -> Result<(), ConfigError> {
        let spread = &mut self.spread;
        let wrong = |name: &str, problem| wrong(format!("functions.{name}"), problem);
        if let Some(mib) = table.preload_mib {
            let bytes = mib.checked_mul(MIB);
            spread.preload_bytes = bytes.ok_or_else(|| wrong("preload_mib", "is too large"))?;
        }
        if let Some(minutes) = table.preload_minutes {
            if !(1..=MAX_PRELOAD_MINUTES).contains(&minutes) {
                return Err(wrong("preload_minutes", "must be 1 to 10080"));
            }
            spread.preload_every = Duration::from_secs(minutes * 60);
        }
        spread.tells_demand = table.tell_demand.unwrap_or(spread.tells_demand);
        Ok(())
    }

    fn apply_execution(&mut self, table: Execution) -> Result<(), ConfigError> {
        let execution = &mut self.execution;
        let bytes = |setting: &str, mib: u64| {
            mib.checked_mul(MIB)
                .ok_or_else(|| wrong(format!("execution.{setting}"), "is too large"))
        };
        execution.process_isolation = table.process_isolation.unwrap_or(true);
        execution.program = table.program;
        if table.workers > 0 {
            execution.workers = table.workers;
        }
        if table.concurrent > 0 {
            execution.max_concurrent = table.concurrent;
        }
        if table.memory_mib > 0 {
            execution.memory_bytes = bytes("memory_mib", table.memory_mib)?;
        }
        if let Some(mib) = table.warm_mib {
            execution.warm_bytes = usize::try_from(bytes("warm_mib", mib)?).unwrap_or(usize::MAX);
        }
        if let Some(mib) = table.code_cache_mib {
            execution.code_cache_bytes = bytes("code_cache_mib", mib)?;
        }
        if let Some(mib) = table.compile_memory_mib {
            execution.compile.memory_bytes = bytes("compile_memory_mib", mib)?;
        }
        if let Some(seconds) = table.compile_seconds {
            let cpu_time = Duration::from_secs(seconds);
            execution.compile.cpu_time = cpu_time;
            execution.compile.wall_time = cpu_time.saturating_mul(3);
        }
        Ok(())
    }

    fn apply_machine(&mut self, table: MachineTable) -> Result<(), ConfigError> {
        let wrong = |name: &str, problem| wrong(format!("machine.{name}"), problem);
        let short = |text: &String| (1..=64).contains(&text.len());
        if table.gpu.len() > 16 || !table.gpu.iter().all(short) {
            return Err(wrong("gpu", "is at most 16 names of 1 to 64 bytes"));
        }
        if table.gpu.is_empty() && table.gpu_vram_mib > 0 {
            return Err(wrong(
                "gpu_vram_mib",
                "needs the name of an accelerator in `gpu`",
            ));
        }
        if !table.tee.iter().all(short) {
            return Err(wrong("tee", "is a name of 1 to 64 bytes"));
        }
        let region = table.region.map(|text| text.parse()).transpose();
        self.machine = Machine {
            region: region.map_err(|_| wrong("region", "must be 2 to 8 of a-z, 0-9 and -"))?,
            gpu: table.gpu,
            gpu_vram_mib: table.gpu_vram_mib,
            tee: table.tee,
        };
        Ok(())
    }

    fn apply_plans(&mut self, tables: Vec<PlanTable>) -> Result<(), ConfigError> {
        if tables.len() > MAX_PLANS {
            return Err(wrong("plan".into(), "is given too often: at most 8 plans"));
        }
        self.plans.clear();
        for table in tables {
            let (plan, queue) = self.plan(table)?;
            if self.plans.iter().any(|other| other.name == plan.name) {
                return Err(wrong(format!("plan {}", plan.name), "is given twice"));
            }
            self.queues.insert(plan.name.clone(), queue);
            self.plans.push(plan);
        }
        Ok(())
    }

    fn plan(&self, table: PlanTable) -> Result<(Plan, QueueConfig), ConfigError> {
        let setting = |name: &str| format!("{name} of plan {}", table.name);
        let positive = |name: &str, value: u64, most: u64| match value {
            0 => Err(wrong(setting(name), "must not be 0")),
            value if value > most => Err(wrong(setting(name), "is too large")),
            value => Ok(value),
        };
        positive("memory_mib", table.memory_mib, 4096)?;
        positive("fuel", table.fuel, u64::MAX)?;
        positive("wall_ms", table.wall_ms.into(), 3_600_000)?;
        positive("input_kib", table.input_kib.into(), 32 << 10)?;
        positive("output_kib", table.output_kib.into(), 32 << 10)?;
        let name: PlanName = table
            .name
            .parse()
            .map_err(|_| wrong("name of a plan".into(), "must be 1 to 16 of a-z, 0-9 and -"))?;
        let defaults = self.queue(&name);
        let queue = QueueConfig {
            concurrent: if table.concurrent > 0 {
                table.concurrent
            } else {
                defaults.concurrent
            },
            queued: table.queued.unwrap_or(defaults.queued),
            max_wait: table
                .max_wait_seconds
                .map_or(defaults.max_wait, Duration::from_secs),
        };
        let plan = Plan {
            name,
            memory_bytes: table.memory_mib * MIB,
            fuel: table.fuel,
            wall_ms: table.wall_ms,
            input_bytes: table.input_kib << 10,
            output_bytes: table.output_kib << 10,
            deterministic: table.deterministic,
            price: table.price,
            needs_token: table.token,
        };
        if plan.price > 0 && !plan.needs_token {
            return Err(wrong(
                format!("price of plan {}", plan.name),
                "needs `token = true`: a call without a token cannot be paid",
            ));
        }
        Ok((plan, queue))
    }
}

fn wrong(setting: String, problem: &'static str) -> ConfigError {
    ConfigError::Value { setting, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_sets_everything_to_its_default() {
        let example = ProviderConfig::parse(EXAMPLE).expect("a good example");
        let default = ProviderConfig::default();
        assert_eq!(example.contracts, default.contracts);
        assert_eq!(example.execution, default.execution);
        assert_eq!(example.machine, default.machine);
        assert_eq!(example.spread, default.spread);
        assert_eq!(example.plans, default.plans);
        for plan in &default.plans {
            assert_eq!(example.queue(&plan.name), default.queue(&plan.name));
        }
    }

    #[test]
    fn a_missing_setting_keeps_its_default() {
        let config = ProviderConfig::parse("[execution]\nworkers = 7").expect("parses");
        assert_eq!(config.execution.workers, 7);
        assert_eq!(config.plans, ProviderConfig::default().plans);
    }

    #[test]
    fn mistakes_are_named() {
        let plan = |more: &str| {
            format!(
                "[[plan]]\nname = 'a'\nmemory_mib = 1\nfuel = 1\nwall_ms = 1\n\
                 input_kib = 1\noutput_kib = 1\n{more}\n"
            )
        };
        assert!(ProviderConfig::parse(&plan("")).is_ok());
        for (text, blamed) in [
            ("[execution]\nworker = 1".to_owned(), "worker"),
            (plan("fule = 3"), "fule"),
            (plan("").replace("fuel = 1", "fuel = 0"), "fuel of plan a"),
            (plan("").replace("'a'", "'A'"), "name of a plan"),
            (
                plan("").replace("input_kib = 1", "input_kib = 99999999"),
                "input_kib",
            ),
            (plan("") + &plan(""), "plan a"),
            (plan("price = 3"), "price of a plan"),
            (plan("price = 3\ntoken = false"), "price of plan a"),
            ("[machine]\nregion = 'E'".to_owned(), "machine.region"),
            ("[machine]\ngpu_vram_mib = 1".to_owned(), "gpu_vram_mib"),
            ("[machine]\ngpu = ['']".to_owned(), "machine.gpu"),
            ("[machine]\ntee = ''".to_owned(), "machine.tee"),
            (
                "[contracts]\nadmission = 'invite'".to_owned(),
                "invitations",
            ),
            (
                "[contracts]\ninvitations = ['short']".to_owned(),
                "invitations",
            ),
            ("[contracts]\nmax_calls = 9".to_owned(), "max_calls"),
            (
                "[functions]\npreload_mib = 18446744073709551615".to_owned(),
                "preload_mib",
            ),
            (
                "[functions]\npreload_minutes = 0".to_owned(),
                "preload_minutes",
            ),
            ("[contracts]\nmost_effort = 17".to_owned(), "most_effort"),
            ("[contracts]\nadmission = 'closed'".to_owned(), "closed"),
            (plan("").replace("wall_ms = 1\n", ""), "wall_ms"),
            (
                "[execution]\nmemory_mib = 18446744073709551615".to_owned(),
                "memory_mib",
            ),
        ] {
            let error = ProviderConfig::parse(&text).expect_err(&text).to_string();
            assert!(error.contains(blamed), "{error} does not name {blamed}");
        }
    }
}
