//! The engine that all functions of a sandbox share: its settings, its name, and the thread that makes guests yield.

pub(crate) mod bounds;
mod fuel;
mod ticker;

use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    Strategy,
};

pub(crate) use fuel::{PER_HOST_BYTE, PER_HOST_CALL};
pub(crate) use ticker::Ticker;

use crate::ExecutorError;

/// Names everything that decides what a function computes and what that costs: the engine's version, its settings and
/// the prices of fuel. The same on every machine.
pub type EngineFingerprint = [u8; 32];

/// Core instances of one call; a component with the preview 1 adapter takes four.
pub(crate) const INSTANCES_PER_CALL: u32 = 32;
/// Memories of one call.
pub(crate) const MEMORIES_PER_CALL: u32 = 2;
/// Tables of one call.
pub(crate) const TABLES_PER_CALL: u32 = 16;
/// Elements of one table.
pub(crate) const TABLE_ELEMENTS: usize = 65_536;

/// Stack of one call; deep recursion traps well before the host's own frames run short.
const WASM_STACK: usize = 512 << 10;
const HOST_STACK: usize = 2 << 20;
/// Memory of a finished call that is zeroed in place instead of being given back: faster for small guests.
const KEEP_RESIDENT: usize = 128 << 10;
const INSTANCE_BYTES: usize = 1 << 20;
const RESERVED_PER_MEMORY: usize = 4 << 30;

/// The engine's version. Code and fuel may differ between versions, so it is part of the fingerprint.
const ENGINE: &str = "wasmtime 48.0.8";

/// The proposals that a function may use: WebAssembly 2.0 and what compilers emit without being asked.
/// No threads, no 64-bit memories, no garbage collection, no exceptions.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::COMPONENT_MODEL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .difference(WasmFeatures::GC_TYPES);

/// An engine that runs up to `calls` calls at a time, each memory of at most `memory_bytes`.
pub(crate) fn for_running(calls: usize, memory_bytes: usize) -> Result<Engine, ExecutorError> {
    let mut config = settings();
    let pool = InstanceAllocationStrategy::Pooling(pool(calls, memory_bytes));
    config.allocation_strategy(pool);
    Engine::new(&config).map_err(setup)
}

/// An engine for compiling only: it reserves nothing, and its code runs on the other kind.
pub(crate) fn for_compiling() -> Result<Engine, ExecutorError> {
    Engine::new(&settings()).map_err(setup)
}

/// See [`EngineFingerprint`].
pub fn fingerprint() -> EngineFingerprint {
    let mut hash = Sha256::new();
    hash.update(b"dlambda engine 1\n");
    hash.update(ENGINE);
    hash.update(format!(
        "\n{:?}\n{}\n{}\n{:?}\n{WASM_STACK} {TABLE_ELEMENTS} {INSTANCES_PER_CALL}\n{}",
        fuel::prices(),
        PER_HOST_BYTE,
        PER_HOST_CALL,
        FEATURES,
        bounds::all(),
    ));
    hash.finalize().into()
}

/// Names all that compiled code depends on, this machine's processor included.
pub(crate) fn code_compatibility(engine: &Engine) -> [u8; 32] {
    struct Into256(Sha256);
    impl Hasher for Into256 {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Into256(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.update(fingerprint());
    hasher.0.finalize().into()
}

pub(crate) fn setup(error: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Setup(format!("{error:#}"))
}

/// What code depends on; the same for compiling and running.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::all().difference(FEATURES), false)
        .wasm_features(FEATURES, true)
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .operator_cost(fuel::prices())
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(HOST_STACK)
        .memory_init_cow(true)
        .memory_reservation(RESERVED_PER_MEMORY as u64)
        .generate_address_map(false)
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(None);
    config
}

fn pool(calls: usize, memory_bytes: usize) -> PoolingAllocationConfig {
    let calls = u32::try_from(calls.max(1)).unwrap_or(u32::MAX);
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
        .max_memory_size(memory_bytes.min(RESERVED_PER_MEMORY))
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        // It would want to open a file in /proc, which a worker cannot.
        .pagemap_scan(Enabled::No);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_compiled_by_one_engine_runs_on_the_other() {
        let compiling = for_compiling().unwrap();
        let running = for_running(4, 1 << 20).unwrap();
        assert_eq!(code_compatibility(&compiling), code_compatibility(&running));
    }

    /// If this fails, the library has changed what something costs, or that something exists: decide on the prices,
    /// then give the protocol's engine a new number.
    #[test]
    fn the_prices_of_fuel_are_those_of_the_protocol() {
        let prices = format!("{:?}", fuel::prices());
        let digest = hex(&Sha256::digest(prices));
        assert_eq!(
            digest,
            "26a07c2bd5244931a6a81cf25e8498a04ab4492d264bbc8ae378ff950b1374c1"
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
