//! What an executor has done so far.

/// Totals since the executor was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests for a function whose code was in memory.
    pub warm_starts: u64,
    /// Requests for a function whose code was on disk.
    pub cached_starts: u64,
    /// Functions compiled.
    pub compiled: u64,
    /// Functions that could not be compiled, or were not worth it.
    pub not_compiled: u64,
    /// Functions in memory now.
    pub warm_functions: usize,
    /// Bytes of their code.
    pub warm_bytes: u64,
    /// Files of the code cache that were changed by others, or broken.
    pub cache_rejected: u64,
    /// Worker processes that died.
    pub workers_lost: u64,
}
