//! What a provider offers and what it puts up with.

mod error;
mod file;
mod machine;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dlambda_crypto::negotiation::Terms;
use dlambda_executor::{
    CodeCacheConfig, CompileLimits, ExecutorConfig, Isolation, QueueConfig, executor_program,
};
use dlambda_privacy::network::OverlayNetwork;
use dlambda_proto::{Admission, BatchSize, Plan, PlanName, Region, ServiceTerms};
use zeroize::Zeroizing;

use crate::epoch::effort::Effort;

pub use self::error::ConfigError;
pub use self::file::EXAMPLE;
pub(crate) use self::machine::specs;

/// Everything that an operator may set. [`Default`] is a sensible small machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProviderConfig {
    /// The menu; the first is the default plan.
    pub plans: Vec<Plan>,
    /// How long an epoch's keys are advertised.
    pub epoch: Duration,
    /// How long they still open calls after that.
    pub overlap: Duration,
    /// Streams served at a time; further callers are turned away.
    pub max_sessions: usize,
    /// Bytes being received at a time, over all streams.
    pub receive_bytes: usize,
    /// Bytes of replies waiting to be taken, over all streams.
    pub send_bytes: usize,
    /// Largest function accepted with a call, in bytes.
    pub max_function_bytes: u32,
    /// Bytes of uploaded functions kept on disk; the longest unused go first.
    pub store_bytes: u64,
    /// How many calls of a plan run and wait. A plan that is not in it gets the defaults of
    /// [`ProviderConfig::queue`].
    pub queues: HashMap<PlanName, QueueConfig>,
    /// How published functions spread.
    pub spread: Spread,
    /// How contracts are made.
    pub contracts: Contracts,
    /// How functions are executed.
    pub execution: Execution,
    /// What callers are told of the machine, beside what is measured.
    pub machine: Machine,
    /// The overlay to be found on: the network's, not the operator's to choose.
    pub overlay: Option<OverlayNetwork>,
    /// Deadlines of a session.
    pub deadlines: Deadlines,
}

/// How published functions spread between providers. Functions that callers brought have no part in
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spread {
    /// Bytes of other providers' functions kept on disk; 0 to fetch none.
    pub preload_bytes: u64,
    /// Between two looks for a function to fetch, on average: the times are random.
    pub preload_every: Duration,
    /// Whether to publish, once a day, how often this provider's published functions were called.
    pub tells_demand: bool,
}

/// How contracts are made.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contracts {
    /// What a contract takes.
    pub admission: Admission,
    /// The secrets of invitations.
    pub invitations: Vec<Zeroizing<Vec<u8>>>,
    /// Least work for a contract, under [`Admission::Pow`]: see
    /// `dlambda_crypto::pow`. It rises with the load.
    pub least_effort: u8,
    /// Most work for a contract.
    pub most_effort: u8,
    /// Most calls in one contract.
    pub max_calls: BatchSize,
}

/// What callers are told of the machine. Everything that is told narrows down whose machine it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// Where it is, as its operator says.
    pub region: Option<Region>,
    /// Accelerators by name.
    pub gpu: Vec<String>,
    /// Memory of the largest accelerator in MiB.
    pub gpu_vram_mib: u64,
    /// The trusted execution environment.
    pub tee: Option<String>,
}

/// How functions are executed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execution {
    /// Whether functions run in worker processes. Without them, a hole in the
    /// WebAssembly engine gives away this provider's keys.
    pub process_isolation: bool,
    /// The `dlambda-executor` program; by default the one beside this program.
    pub program: Option<PathBuf>,
    /// Worker processes.
    pub workers: usize,
    /// Functions executing at a time, over all plans.
    pub max_concurrent: usize,
    /// Bytes that all executing functions together may be promised.
    pub memory_bytes: u64,
    /// Bytes of compiled functions kept in memory.
    pub warm_bytes: usize,
    /// Bytes of compiled functions kept on disk.
    pub code_cache_bytes: u64,
    /// What compiling a function may cost.
    pub compile: CompileLimits,
}

/// How long a provider waits for the other side, or for itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Deadlines {
    /// For a caller to take the advert.
    pub advert: Duration,
    /// For a whole call to arrive once the stream is open.
    pub call: Duration,
    /// For a function to be compiled and given a turn.
    pub prepare: Duration,
    /// For a caller to take the reply.
    pub reply: Duration,
    /// For the acknowledgement.
    pub ack: Duration,
    /// For running calls to end when the provider is told to stop.
    pub drain: Duration,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            plans: Plan::standard_menu(),
            epoch: Duration::from_secs(24 * 3600),
            overlap: Duration::from_secs(3600),
            max_sessions: 256,
            receive_bytes: 512 << 20,
            send_bytes: 512 << 20,
            max_function_bytes: 32 << 20,
            store_bytes: 512 << 20,
            queues: HashMap::new(),
            spread: Spread::default(),
            contracts: Contracts::default(),
            execution: Execution::default(),
            machine: Machine::default(),
            overlay: None,
            deadlines: Deadlines::default(),
        }
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            preload_bytes: 256 << 20,
            preload_every: Duration::from_secs(6 * 3600),
            tells_demand: true,
        }
    }
}

impl Default for Contracts {
    fn default() -> Self {
        Self {
            admission: Admission::Open,
            invitations: Vec::new(),
            least_effort: 6,
            most_effort: 12,
            max_calls: BatchSize::Calls128,
        }
    }
}

impl Contracts {
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            max_calls: self.max_calls,
            invitations: self.invitations.clone(),
        }
    }

    pub(crate) fn effort(&self) -> Effort {
        match self.admission {
            Admission::Pow => Effort::new(self.least_effort, self.most_effort),
            _ => Effort::new(0, 0),
        }
    }
}

impl fmt::Debug for Contracts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contracts({:?}, [scrubbed])", self.admission)
    }
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            process_isolation: true,
            program: None,
            workers: processors(),
            max_concurrent: 4 * processors(),
            memory_bytes: half_of_memory(),
            warm_bytes: 256 << 20,
            code_cache_bytes: 1 << 30,
            compile: CompileLimits::default(),
        }
    }
}

impl ProviderConfig {
    /// The default, but with plans for anybody: calls need no token.
    #[must_use]
    pub fn without_tokens() -> Self {
        let mut config = Self::default();
        for plan in &mut config.plans {
            plan.needs_token = false;
        }
        config
    }

    /// How many calls of this plan run and wait.
    #[must_use]
    pub fn queue(&self, plan: &PlanName) -> QueueConfig {
        self.queues.get(plan).copied().unwrap_or(QueueConfig {
            concurrent: self.execution.max_concurrent,
            queued: self.max_sessions,
            max_wait: self.deadlines.prepare,
        })
    }

    /// The promise in contracts: the longest that a call waits on any plan.
    pub(crate) fn service(&self) -> ServiceTerms {
        let waits = self
            .plans
            .iter()
            .map(|plan| self.queue(&plan.name).max_wait);
        let longest = waits.max().unwrap_or(self.deadlines.prepare);
        ServiceTerms {
            start_within_ms: u32::try_from(longest.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// The executor for this configuration. Compiled code is kept in
    /// `code_cache`, authenticated with `key`.
    pub(crate) fn executor(
        &self,
        code_cache: PathBuf,
        key: [u8; 32],
    ) -> Result<ExecutorConfig, ConfigError> {
        let memory = self.plans.iter().map(|plan| plan.memory_bytes).max();
        let execution = &self.execution;
        let isolation = if execution.process_isolation {
            let program = match &execution.program {
                Some(program) => program.clone(),
                None => executor_program()?,
            };
            Isolation::Processes {
                program,
                workers: execution.workers.max(1),
            }
        } else {
            Isolation::DangerouslyInProcess
        };
        Ok(ExecutorConfig {
            max_concurrent: execution.max_concurrent.max(1),
            max_queued: self.max_sessions,
            max_wait: self.deadlines.prepare,
            memory_budget: execution.memory_bytes,
            max_module_bytes: self.max_function_bytes as usize,
            max_memory_bytes: usize::try_from(memory.unwrap_or(1 << 30)).unwrap_or(usize::MAX),
            warm_bytes: execution.warm_bytes,
            compile: execution.compile,
            code_cache: (execution.code_cache_bytes > 0).then_some(CodeCacheConfig {
                directory: code_cache,
                key,
                bytes: execution.code_cache_bytes,
            }),
            ..ExecutorConfig::new(isolation)
        })
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// The rest is for the system, the network and compiling.
fn half_of_memory() -> u64 {
    (rustix::system::sysinfo().totalram / 2).max(1 << 30)
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            advert: seconds(30),
            call: seconds(300),
            prepare: seconds(120),
            reply: seconds(300),
            ack: seconds(30),
            drain: seconds(150),
        }
    }
}
