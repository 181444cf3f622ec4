//! What the host does for a guest, in fuel: the engine counts a guest's own instructions only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::{CallHook, StoreContextMut, Trap};

use crate::engine::{PER_HOST_BYTE, PER_HOST_CALL};
use crate::runtime::host::Host;

/// Fuel that is owed for the host's work and not yet paid. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct HostFuel(Arc<AtomicU64>);

impl HostFuel {
    /// Owes for a call that copied this many bytes.
    pub(crate) fn charge_call(&self, bytes: usize) {
        self.0.fetch_add(PER_HOST_CALL, Ordering::Relaxed);
        self.charge_bytes(bytes);
    }

    /// Owes for this many bytes.
    pub(crate) fn charge_bytes(&self, bytes: usize) {
        let price = (bytes as u64).saturating_mul(PER_HOST_BYTE);
        self.0.fetch_add(price, Ordering::Relaxed);
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Pays after each host call. A guest that cannot pay is out of fuel there and then, in every run
/// alike.
///
/// The engine also calls this around work of its own, at ticks of the clock for instance, so
/// nothing may be charged for being called. A host call may call the guest back, to have it
/// allocate; ticks come there too, while compiled code holds the fuel in a register and would
/// overwrite what is paid. So only the return from the outermost call pays.
pub(crate) fn on_host_call(
    mut store: StoreContextMut<'_, Host>,
    hook: CallHook,
) -> wasmtime::Result<()> {
    match hook {
        CallHook::CallingHost => store.data_mut().depth += 1,
        CallHook::ReturningFromHost => {
            let host = store.data_mut();
            host.drain_response()?;
            host.depth = host.depth.saturating_sub(1);
            if host.depth == 0 {
                settle(store)?;
            }
        }
        CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
    }
    Ok(())
}

/// Pays what is owed.
pub(crate) fn settle(mut store: StoreContextMut<'_, Host>) -> wasmtime::Result<()> {
    let owed = store.data().host_fuel.take();
    if owed == 0 {
        return Ok(());
    }
    let left = store.get_fuel()?;
    store.set_fuel(left.saturating_sub(owed))?;
    if owed > left {
        return Err(Trap::OutOfFuel.into());
    }
    Ok(())
}
