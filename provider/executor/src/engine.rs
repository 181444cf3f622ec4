//! The engine that all functions of an executor share, and the thread that makes its guests yield.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    Strategy,
};

use crate::ExecutorError;

/// How large an executor is.
///
/// Address space (not memory) for two times `max_concurrent` memories of 4 GiB is reserved at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// Calls that run at the same time. Default 32.
    pub max_concurrent: usize,
    /// Calls that may wait for a free place, and, counted apart, functions that may wait to be compiled.
    /// Each keeps its input or its module in memory meanwhile. Default 256.
    pub max_queued: usize,
    /// Bytes of a module or component. Default 32 MiB.
    pub max_module_bytes: usize,
    /// Functions in one module or component. Default 100,000.
    pub max_functions: usize,
    /// Bytes of the longest function in a module or component. Default 1 MiB.
    pub max_function_bytes: usize,
    /// Bytes of compiled functions that are kept when nobody uses them. Default 256 MiB.
    pub cache_bytes: usize,
    /// Bytes that any one memory may have, whatever the limits of the call; at most 4 GiB. Default 1 GiB.
    pub max_memory_bytes: usize,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            max_concurrent: 32,
            max_queued: 256,
            max_module_bytes: 32 << 20,
            max_functions: 100_000,
            max_function_bytes: 1 << 20,
            cache_bytes: 256 << 20,
            max_memory_bytes: 1 << 30,
        }
    }
}

/// Core instances of one call; a component with the preview 1 adapter takes four.
pub(crate) const INSTANCES_PER_CALL: u32 = 32;
/// Memories of one call.
pub(crate) const MEMORIES_PER_CALL: u32 = 2;
/// Tables of one call.
pub(crate) const TABLES_PER_CALL: u32 = 16;
/// Elements of one table.
pub(crate) const TABLE_ELEMENTS: usize = 65_536;

/// How often guests are made to yield, and so the longest that one holds an async worker.
const TICK: Duration = Duration::from_millis(5);
/// Stack of one call; deep recursion traps well before the host's own frames run short.
const WASM_STACK: usize = 512 << 10;
const HOST_STACK: usize = 2 << 20;
/// Memory of a finished call that is zeroed in place instead of being given back: faster for small guests.
const KEEP_RESIDENT: usize = 128 << 10;
const INSTANCE_BYTES: usize = 1 << 20;
const RESERVED_PER_MEMORY: usize = 4 << 30;

/// The proposals that a function may use: WebAssembly 2.0 and what compilers emit without being asked.
/// No threads, no 64-bit memories, no garbage collection, no exceptions.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::COMPONENT_MODEL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .difference(WasmFeatures::GC_TYPES);

/// Makes the engine and starts its ticker.
pub(crate) fn start(config: &ExecutorConfig) -> Result<Engine, ExecutorError> {
    let engine = Engine::new(&engine_config(config)).map_err(setup)?;
    start_ticker(&engine)?;
    Ok(engine)
}

pub(crate) fn setup(error: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Setup(format!("{error:#}"))
}

/// Starts the thread that lets guests yield. It ends soon after the last handle to the engine is gone.
fn start_ticker(engine: &Engine) -> Result<JoinHandle<()>, ExecutorError> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("wasm-ticker".into())
        .spawn(move || tick(&engine))
        .map_err(setup)
}

fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::sleep(TICK);
    }
}

fn engine_config(config: &ExecutorConfig) -> Config {
    let mut engine = Config::new();
    engine
        .wasm_features(WasmFeatures::all().difference(FEATURES), false)
        .wasm_features(FEATURES, true)
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(HOST_STACK)
        .memory_init_cow(true)
        .memory_reservation(RESERVED_PER_MEMORY as u64)
        .generate_address_map(false)
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(None)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    engine
}

fn pool(config: &ExecutorConfig) -> PoolingAllocationConfig {
    let calls = u32::try_from(config.max_concurrent.max(1)).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(calls.saturating_mul(INSTANCES_PER_CALL))
        .total_component_instances(calls)
        .total_memories(calls.saturating_mul(MEMORIES_PER_CALL))
        .total_tables(calls.saturating_mul(TABLES_PER_CALL))
        .total_stacks(calls)
        .max_unused_warm_slots(calls)
        .max_core_instances_per_component(INSTANCES_PER_CALL)
        .max_memories_per_component(MEMORIES_PER_CALL)
        .max_tables_per_component(TABLES_PER_CALL)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_PER_CALL)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_memory_size(config.max_memory_bytes.min(RESERVED_PER_MEMORY))
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticker_ends_with_its_engine() {
        let engine = Engine::new(&engine_config(&ExecutorConfig::default())).unwrap();
        let ticker = start_ticker(&engine).unwrap();
        thread::sleep(3 * TICK);
        assert!(!ticker.is_finished());
        drop(engine);
        ticker.join().unwrap();
    }
}
