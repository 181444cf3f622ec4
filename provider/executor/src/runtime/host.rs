//! Everything that a guest can reach.

use bytes::Bytes;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::engine::bounds::{BYTES_PER_HOST_CALL, HANDLES};
use crate::runtime::http::Http;
use crate::runtime::memory::MemoryMeter;
use crate::runtime::metering::{self, HostFuel};
use crate::runtime::scheduler::{RunSlot, Scheduler};
use crate::runtime::wasi::clock::GuestClock;
use crate::runtime::wasi::random;
use crate::runtime::wasi::stdin::Input;
use crate::runtime::wasi::stdout::{CappedOutput, OverflowPolicy};
use crate::{Abi, Invocation, Limits};

/// The host side of one call.
pub(crate) struct Host {
    pub(crate) host_fuel: HostFuel,
    pub(crate) clock: GuestClock,
    /// Host calls that have not returned.
    pub(crate) depth: u32,
    pub(crate) http: Http,
    pub(crate) memory: MemoryMeter,
    pub(crate) stderr: CappedOutput,
    /// Standard output of a command, the response's body of an HTTP function.
    pub(crate) stdout: CappedOutput,
    pub(crate) slot: RunSlot,
    pub(crate) wasi: WasiP1Ctx,
}

/// argv[0] of every function: names depend on who calls.
const NAME: &str = "function";

impl Host {
    /// A store for one call, with fuel and memory limit set up. No memory grows beyond `largest`
    /// bytes.
    pub(crate) fn store(
        engine: &Engine,
        slot: RunSlot,
        largest: u64,
        abi: Abi,
        invocation: &Invocation,
        limits: &Limits,
    ) -> wasmtime::Result<Store<Self>> {
        let memory = MemoryMeter::new(limits.memory_bytes, largest);
        let mut store = Store::new(engine, Self::new(memory, slot, abi, invocation, limits));
        store.limiter(|host| &mut host.memory);
        store.set_fuel(limits.fuel)?;
        store.set_hostcall_fuel(BYTES_PER_HOST_CALL);
        store.call_hook(metering::on_host_call);
        Ok(store)
    }

    /// A store in which nothing will run.
    pub(crate) fn scratch(engine: &Engine) -> Store<Self> {
        let slot = Scheduler::new(1).register();
        let memory = MemoryMeter::new(0, 0);
        let nothing = Invocation::default();
        let host = Self::new(memory, slot, Abi::Preview1, &nothing, &Limits::default());
        Store::new(engine, host)
    }

    fn new(
        memory: MemoryMeter,
        slot: RunSlot,
        abi: Abi,
        invocation: &Invocation,
        limits: &Limits,
    ) -> Self {
        let host_fuel = HostFuel::default();
        let stdout =
            CappedOutput::new(limits.output_bytes, OverflowPolicy::Stop, host_fuel.clone());
        let stderr =
            CappedOutput::new(limits.stderr_bytes, OverflowPolicy::Drop, host_fuel.clone());
        let clock = if limits.deterministic {
            GuestClock::deterministic(host_fuel.clone())
        } else {
            GuestClock::real(host_fuel.clone(), slot.clone())
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
                .stdin(Input::new(invocation.input.clone(), host_fuel.clone()))
                .stdout(stdout.clone());
        }
        if limits.deterministic {
            random::seed(&mut builder, invocation.seed, &host_fuel);
        } else {
            random::bound(&mut builder);
        }
        let mut wasi = builder.build_p1();
        wasi.ctx().table.set_max_capacity(HANDLES);
        Self {
            host_fuel,
            clock,
            depth: 0,
            http: Http::default(),
            memory,
            stderr,
            stdout,
            slot,
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
