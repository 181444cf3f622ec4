//! Everything that a guest can reach.

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::clock::VirtualClock;
use crate::limits::MemoryMeter;
use crate::output::{Beyond, CappedOutput};
use crate::{ExecutorConfig, Invocation, Limits};

/// The host side of one call.
pub(crate) struct Host {
    pub(crate) memory: MemoryMeter,
    pub(crate) stderr: CappedOutput,
    pub(crate) stdout: CappedOutput,
    pub(crate) wasi: WasiP1Ctx,
}

/// argv[0] of every function: names depend on who calls.
const NAME: &str = "function";
/// Bytes that a guest may pass to the host in one call of the host.
const BYTES_PER_HOST_CALL: usize = 16 << 20;
/// Handles to host objects that one guest may hold.
const HANDLES: usize = 1_024;
/// Random bytes in one request.
const RANDOM_BYTES: u64 = 1 << 20;

impl Host {
    /// A store for one call, with fuel and memory limit set up.
    pub(crate) fn store(
        engine: &Engine,
        config: &ExecutorConfig,
        invocation: Invocation,
        limits: &Limits,
    ) -> wasmtime::Result<Store<Self>> {
        let memory = MemoryMeter::new(limits.memory_bytes, config.max_memory_bytes as u64);
        let mut store = Store::new(engine, Self::new(memory, invocation, limits));
        store.limiter(|host| &mut host.memory);
        store.set_fuel(limits.fuel)?;
        store.set_hostcall_fuel(BYTES_PER_HOST_CALL);
        Ok(store)
    }

    /// A store in which nothing will run.
    pub(crate) fn scratch(engine: &Engine) -> Store<Self> {
        Store::new(
            engine,
            Self::new(
                MemoryMeter::new(0, 0),
                Invocation::default(),
                &Limits::default(),
            ),
        )
    }

    fn new(memory: MemoryMeter, invocation: Invocation, limits: &Limits) -> Self {
        let stdout = CappedOutput::new(limits.output_bytes, Beyond::Stop);
        let stderr = CappedOutput::new(limits.stderr_bytes, Beyond::Drop);
        let clock = VirtualClock::default();
        let mut builder = WasiCtx::builder();
        builder
            .arg(NAME)
            .args(&invocation.args)
            .stdin(MemoryInputPipe::new(invocation.input))
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .wall_clock(clock.clone())
            .monotonic_clock(clock)
            .allow_blocking_current_thread(false)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        seed(&mut builder, invocation.seed);
        let mut wasi = builder.build_p1();
        wasi.ctx().table.set_max_capacity(HANDLES);
        Self {
            memory,
            stderr,
            stdout,
            wasi,
        }
    }

    pub(crate) fn take_output(&mut self) -> (Bytes, Bytes) {
        (self.stdout.take(), self.stderr.take())
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Three independent streams of one seed, for the three sources of randomness that WASI has.
fn seed(builder: &mut WasiCtxBuilder, seed: [u8; 32]) {
    let stream = |number| {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(number);
        rng
    };
    let mut third = stream(2);
    let hash_seed = u128::from(third.next_u64()) << 64 | u128::from(third.next_u64());
    builder
        .secure_random(stream(0))
        .insecure_random(stream(1))
        .insecure_random_seed(hash_seed)
        .max_random_size(RANDOM_BYTES);
}
