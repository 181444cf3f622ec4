//! Everything that a guest can reach.

use bytes::Bytes;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::engine::bounds::{BYTES_PER_HOST_CALL, HANDLES};
use crate::sandbox::charge::{self, Charge};
use crate::sandbox::clock::GuestClock;
use crate::sandbox::http::Http;
use crate::sandbox::input::Input;
use crate::sandbox::memory::MemoryMeter;
use crate::sandbox::output::{Beyond, CappedOutput};
use crate::sandbox::random;
use crate::sandbox::turn::{Turn, Turns};
use crate::{Abi, Invocation, Limits};

/// The host side of one call.
pub(crate) struct Host {
    pub(crate) charge: Charge,
    pub(crate) clock: GuestClock,
    /// Host calls that have not returned.
    pub(crate) depth: u32,
    pub(crate) http: Http,
    pub(crate) memory: MemoryMeter,
    pub(crate) stderr: CappedOutput,
    /// Standard output of a command, the response's body of an HTTP function.
    pub(crate) stdout: CappedOutput,
    pub(crate) turn: Turn,
    pub(crate) wasi: WasiP1Ctx,
}

/// argv[0] of every function: names depend on who calls.
const NAME: &str = "function";

impl Host {
    /// A store for one call, with fuel and memory limit set up. No memory grows beyond `largest` bytes.
    pub(crate) fn store(
        engine: &Engine,
        turn: Turn,
        largest: u64,
        abi: Abi,
        invocation: &Invocation,
        limits: &Limits,
    ) -> wasmtime::Result<Store<Self>> {
        let memory = MemoryMeter::new(limits.memory_bytes, largest);
        let mut store = Store::new(engine, Self::new(memory, turn, abi, invocation, limits));
        store.limiter(|host| &mut host.memory);
        store.set_fuel(limits.fuel)?;
        store.set_hostcall_fuel(BYTES_PER_HOST_CALL);
        store.call_hook(charge::on_host_call);
        Ok(store)
    }

    /// A store in which nothing will run.
    pub(crate) fn scratch(engine: &Engine) -> Store<Self> {
        let turn = Turns::new(1).claim();
        let memory = MemoryMeter::new(0, 0);
        let nothing = Invocation::default();
        let host = Self::new(memory, turn, Abi::Preview1, &nothing, &Limits::default());
        Store::new(engine, host)
    }

    fn new(
        memory: MemoryMeter,
        turn: Turn,
        abi: Abi,
        invocation: &Invocation,
        limits: &Limits,
    ) -> Self {
        let charge = Charge::default();
        let stdout = CappedOutput::new(limits.output_bytes, Beyond::Stop, charge.clone());
        let stderr = CappedOutput::new(limits.stderr_bytes, Beyond::Drop, charge.clone());
        let clock = if limits.deterministic {
            GuestClock::deterministic(charge.clone())
        } else {
            GuestClock::real(charge.clone(), turn.clone())
        };
        let mut builder = WasiCtx::builder();
        builder
            .arg(NAME)
            .stderr(stderr.clone())
            .wall_clock(clock.clone())
            .monotonic_clock(clock.clone())
            .allow_blocking_current_thread(false)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if abi == Abi::Http {
            // Its answer is the response; what it prints besides is for its maker.
            builder.stdout(stderr.clone());
        } else {
            builder
                .args(&invocation.args)
                .stdin(Input::new(invocation.input.clone(), charge.clone()))
                .stdout(stdout.clone());
        }
        if limits.deterministic {
            random::seed(&mut builder, invocation.seed, &charge);
        } else {
            random::bound(&mut builder);
        }
        let mut wasi = builder.build_p1();
        wasi.ctx().table.set_max_capacity(HANDLES);
        Self {
            charge,
            clock,
            depth: 0,
            http: Http::default(),
            memory,
            stderr,
            stdout,
            turn,
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
