//! How large an executor is, and what stands between its guests and the machine.

use std::path::PathBuf;
use std::time::Duration;

/// How large an executor is. [`ExecutorConfig::new`] is a sensible small machine.
///
/// Each runtime reserves address space (not memory) for two times its share of `max_concurrent`
/// memories of 4 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// What stands between guests and the machine besides WebAssembly.
    pub isolation: Isolation,
    /// Calls that run at the same time. Default 32.
    pub max_concurrent: usize,
    /// Calls that name no queue and may wait for a free place, and, counted apart, functions that
    /// may wait to be compiled. Each keeps its input or its module in memory meanwhile. Default
    /// 256.
    pub max_queued: usize,
    /// Longest wait for a free place. Default 60 s.
    pub max_wait: Duration,
    /// Bytes that all running calls together may be promised; a call that does not fit waits.
    /// Default 4 GiB.
    pub memory_budget: u64,
    /// Bytes of a module or component. Default 32 MiB.
    pub max_module_bytes: usize,
    /// Functions in one module or component. Default 100,000.
    pub max_functions: usize,
    /// Bytes of the longest function in a module or component. Default 1 MiB.
    pub max_function_bytes: usize,
    /// Bytes of compiled functions kept in memory while they are not used. Default 256 MiB.
    /// As many may be in use beside them, or one function of any size; a function for which nothing
    /// is left has to come again.
    pub warm_bytes: usize,
    /// Bytes that any one memory may have, whatever the limits of the call; at most 4 GiB. Default
    /// 1 GiB.
    pub max_memory_bytes: usize,
    /// What compiling one function may cost.
    pub compile: CompileLimits,
    /// Where compiled code outlives the process, if anywhere. Default nowhere.
    pub code_cache: Option<CodeCacheConfig>,
}

/// What stands between guests and the machine besides WebAssembly.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Guests run in worker processes that can reach nothing, and compiling happens in a process of
    /// its own. A hole in the WebAssembly engine then gives an attacker one worker, and nothing of
    /// this process.
    Processes {
        /// The `dlambda-executor` program of this very version; see
        /// [`executor_program`](crate::executor_program).
        program: PathBuf,
        /// Worker processes, each with one thread for guests.
        workers: usize,
    },
    /// Guests run in this process: a hole in the engine gives an attacker everything it holds.
    DangerouslyInProcess,
}

/// What compiling one function may cost before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of memory. Default 1.5 GiB. Not enforced in process.
    pub memory_bytes: u64,
    /// CPU time. Default 60 s. Not enforced in process.
    pub cpu_time: Duration,
    /// Time on the clock. Default 180 s. Not enforced in process.
    pub wall_time: Duration,
}

/// Where compiled code is kept between runs.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeCacheConfig {
    /// A directory that only this user may write to.
    pub directory: PathBuf,
    /// Authenticates the files: loading native code of others would run it. Keep it
    /// secret, and out of that directory.
    pub key: [u8; 32],
    /// Bytes of files; the longest unused go first.
    pub bytes: u64,
}

impl ExecutorConfig {
    /// The defaults, with this isolation.
    pub fn new(isolation: Isolation) -> Self {
        Self {
            isolation,
            max_concurrent: 32,
            max_queued: 256,
            max_wait: Duration::from_secs(60),
            memory_budget: 4 << 30,
            max_module_bytes: 32 << 20,
            max_functions: 100_000,
            max_function_bytes: 1 << 20,
            warm_bytes: 256 << 20,
            max_memory_bytes: 1 << 30,
            compile: CompileLimits::default(),
            code_cache: None,
        }
    }

    /// Guests in this process, for tests and for machines without process isolation.
    pub fn dangerously_in_process() -> Self {
        Self::new(Isolation::DangerouslyInProcess)
    }
}

impl Isolation {
    /// As many workers as this machine has processors.
    pub fn processes(program: PathBuf) -> Self {
        let processors = std::thread::available_parallelism();
        Self::Processes {
            program,
            workers: processors.map_or(2, std::num::NonZero::get),
        }
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 3 << 29,
            cpu_time: Duration::from_secs(60),
            wall_time: Duration::from_secs(180),
        }
    }
}

/// Shows neither the key nor where the cache is.
impl std::fmt::Debug for CodeCacheConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCacheConfig")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
