//! The engine that all functions of a runtime share: its settings, its name, and the thread that
//! makes guests yield.

pub(crate) mod bounds;
mod fuel;
mod ticker;

use std::hash::{Hash as _, Hasher};
use std::sync::LazyLock;

use dlambda_proto::{EngineFingerprint, EngineProfile, HttpResponse};
use sha2::{Digest as _, Sha256};
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    Strategy,
};

pub(crate) use fuel::{PER_HOST_BYTE, PER_HOST_CALL};
pub(crate) use ticker::Ticker;

use crate::ExecutorError;

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
/// Memory of a finished call that is zeroed in place instead of being given back: faster for small
/// guests.
const KEEP_RESIDENT: usize = 128 << 10;
const INSTANCE_BYTES: usize = 1 << 20;
const RESERVED_PER_MEMORY: usize = 4 << 30;

/// Number of the rules that no other field of the profile states: virtual clocks, random numbers,
/// the kinds of completions. Every change of them takes the next number.
const RULES: u32 = 2;

/// The proposals that a function may use: WebAssembly 2.0 and what compilers emit without being
/// asked. No threads, no 64-bit memories, no garbage collection, no exceptions.
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

/// The name of [`profile`].
#[must_use]
pub fn fingerprint() -> EngineFingerprint {
    static FINGERPRINT: LazyLock<EngineFingerprint> = LazyLock::new(|| profile().fingerprint());
    *FINGERPRINT
}

/// All facts that decide what a function computes and what that costs. The same on every machine.
#[must_use]
pub fn profile() -> EngineProfile {
    // Set by build.rs: `name version`, separated by commas.
    let libraries = env!("DLAMBDA_ENGINE_LIBRARIES")
        .split(',')
        .filter_map(|library| library.split_once(' '));
    EngineProfile::new(
        RULES,
        libraries
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect(),
        features(),
        fuel::facts(),
        bounds(),
    )
}

/// The names of proposals, as the specification writes them.
fn features() -> Vec<String> {
    FEATURES
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase().replace('_', "-"))
        .collect()
}

fn bounds() -> Vec<(String, u64)> {
    let sizes = [
        ("field-bytes", bounds::FIELD_BYTES),
        ("handles", bounds::HANDLES),
        ("head-bytes", HttpResponse::MAX_HEAD_BYTES),
        ("head-fields", HttpResponse::MAX_HEAD_FIELDS),
        ("host-call-bytes", bounds::BYTES_PER_HOST_CALL),
        ("stack-bytes", WASM_STACK),
        ("stderr-bytes", bounds::STDERR_BYTES),
        ("subscriptions", bounds::SUBSCRIPTIONS),
        ("table-elements", TABLE_ELEMENTS),
    ];
    let counts = [
        ("instances", INSTANCES_PER_CALL.into()),
        ("memories", MEMORIES_PER_CALL.into()),
        ("random-bytes", bounds::RANDOM_BYTES),
        ("tables", TABLES_PER_CALL.into()),
    ];
    let sizes = sizes.map(|(name, size)| (name, size as u64));
    let all = sizes.into_iter().chain(counts);
    all.map(|(name, number)| (name.to_owned(), number))
        .collect()
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

    /// If this fails, receipts of this version cannot be compared with those of the version
    /// before. That is right after an update of a library; otherwise decide whether the rules have
    /// changed, and give them the next number.
    #[test]
    fn the_profile_is_made_of_names_and_numbers() {
        let profile = profile();
        let libraries: Vec<_> = profile
            .libraries
            .iter()
            .map(|(name, _)| &name[..])
            .collect();
        assert_eq!(
            libraries,
            ["wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"]
        );
        for (_, version) in &profile.libraries {
            let parts: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
            assert!(
                parts.len() == 3 && parts.iter().all(Result::is_ok),
                "{version}"
            );
        }
        let facts = profile.prices.iter().chain(&profile.bounds);
        let names = facts.map(|(name, _)| name).chain(&profile.features);
        for name in names {
            let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(name.bytes().all(fit), "{name} is no identifier");
        }
        assert!(profile.features.iter().any(|name| name == "relaxed-simd"));
        assert!(!profile.features.iter().any(|name| name == "threads"));
        let price = |wanted: &str| profile.prices.iter().find(|(name, _)| name == wanted);
        assert_eq!(
            price("memory_grow_per_page").map(|(_, fuel)| *fuel),
            Some(255)
        );
        let bytes = dlambda_proto::encode(&profile);
        assert_eq!(dlambda_proto::decode(&bytes), Ok(profile.clone()));
        assert_eq!(fingerprint(), profile.fingerprint());
    }

    #[test]
    fn the_features_in_the_profile_are_those_that_are_on() {
        let named = features().into_iter().map(|name| {
            let name = name.replace('-', "_").to_ascii_uppercase();
            WasmFeatures::from_name(&name).unwrap()
        });
        assert_eq!(
            named.fold(WasmFeatures::empty(), WasmFeatures::union),
            FEATURES
        );
    }
}
