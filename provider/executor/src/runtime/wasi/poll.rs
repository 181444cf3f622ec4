//! Sleeping by the clock of the call, for both previews: the library's own sleeps always take real
//! time.

use wasmtime::component::{self, Resource};
use wasmtime::{Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{WasiView as _, async_trait};

use crate::engine::bounds::SUBSCRIPTIONS;
use crate::runtime::host::Host;
use crate::runtime::wasi::clock::GuestClock;

/// The interface whose sleeps are replaced, as the library names it.
const MONOTONIC_CLOCK: &str = "wasi:clocks/monotonic-clock@0.2.12";

/// Replaces the sleeps of preview 2.
pub(crate) fn add_to_preview2(linker: &mut component::Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clock = linker.instance(MONOTONIC_CLOCK)?;
    clock.func_wrap(
        "subscribe-duration",
        |mut store: StoreContextMut<'_, Host>, (length,): (u64,)| {
            let host = store.data_mut();
            let until = host.clock.elapsed().saturating_add(length);
            Ok((sleep(host, until)?,))
        },
    )?;
    clock.func_wrap(
        "subscribe-instant",
        |mut store: StoreContextMut<'_, Host>, (until,): (u64,)| {
            Ok((sleep(store.data_mut(), until)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

struct Sleep {
    clock: GuestClock,
    until: u64,
}

#[async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        self.clock.sleep_until(self.until).await;
    }
}

fn sleep(host: &mut Host, until: u64) -> wasmtime::Result<Resource<DynPollable>> {
    let clock = host.clock.clone();
    let table = host.ctx().table;
    let sleep = table.push(Sleep { clock, until })?;
    subscribe(table, sleep)
}

/// Replaces `poll_oneoff` of preview 1.
pub(crate) fn add_to_preview1(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "poll_oneoff",
        |caller, (asked, events, count, result): (i32, i32, i32, i32)| {
            Box::new(poll_oneoff(caller, asked, events, count, result))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

// Layout of `subscription` and `event` in wasi_snapshot_preview1.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
const CLOCK: u8 = 0;
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const ABSOLUTE: u16 = 1;
const SUCCESS: i32 = 0;
const EBADF: u16 = 8;
const EFAULT: i32 = 21;
const EINVAL: i32 = 28;

/// Standard streams are always ready; if none is asked for, sleeps until the earliest time that is.
async fn poll_oneoff(
    mut caller: Caller<'_, Host>,
    asked: i32,
    events: i32,
    count: i32,
    result: i32,
) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("no memory");
    };
    let count = count.cast_unsigned() as usize;
    if count == 0 || count > SUBSCRIPTIONS {
        return Ok(EINVAL);
    }
    let clock = caller.data().clock.clone();
    caller.data().host_fuel.charge_call(count * SUBSCRIPTION);
    let Some(asked) = slice(memory.data(&caller), asked, count * SUBSCRIPTION) else {
        return Ok(EFAULT);
    };
    let Some(answer) = answer(&clock, asked) else {
        return Ok(EINVAL);
    };
    if let Some(until) = answer.sleep_until {
        clock.sleep_until(until).await;
    }
    let written = u32::try_from(answer.events.len() / EVENT).unwrap_or(u32::MAX);
    let memory = memory.data_mut(&mut caller);
    let Some(target) = slice_mut(memory, events, answer.events.len()) else {
        return Ok(EFAULT);
    };
    target.copy_from_slice(&answer.events);
    let Some(target) = slice_mut(memory, result, 4) else {
        return Ok(EFAULT);
    };
    target.copy_from_slice(&written.to_le_bytes());
    Ok(SUCCESS)
}

struct PollResult {
    events: Vec<u8>,
    sleep_until: Option<u64>,
}

/// Events for what is ready, or nothing for a clock that there is not.
fn answer(clock: &GuestClock, asked: &[u8]) -> Option<PollResult> {
    let mut ready = Vec::new();
    let mut earliest: Option<(u64, [u8; EVENT])> = None;
    for subscription in asked.chunks_exact(SUBSCRIPTION) {
        if subscription[8] == CLOCK {
            let until = wakes(clock, subscription)?;
            if earliest.is_none_or(|(time, _)| until < time) {
                earliest = Some((until, event(subscription, 0)));
            }
        } else {
            let descriptor = u32::from_le_bytes(subscription[16..20].try_into().ok()?);
            let error = if descriptor < 3 { 0 } else { EBADF };
            ready.extend(event(subscription, error));
        }
    }
    let earliest = earliest.filter(|_| ready.is_empty());
    ready.extend(earliest.iter().flat_map(|(_, event)| event));
    Some(PollResult {
        events: ready,
        sleep_until: earliest.map(|(until, _)| until),
    })
}

/// When a clock subscription wakes, on the monotonic clock.
fn wakes(clock: &GuestClock, subscription: &[u8]) -> Option<u64> {
    let id = u32::from_le_bytes(subscription[16..20].try_into().ok()?);
    let timeout = u64::from_le_bytes(subscription[24..32].try_into().ok()?);
    let flags = u16::from_le_bytes(subscription[40..42].try_into().ok()?);
    let now = clock.elapsed();
    match (id, flags & ABSOLUTE != 0) {
        (MONOTONIC, true) => Some(timeout),
        (MONOTONIC | REALTIME, false) => Some(now.saturating_add(timeout)),
        (REALTIME, true) => Some(now.saturating_add(timeout.saturating_sub(clock.wall()))),
        _ => None,
    }
}

fn event(subscription: &[u8], error: u16) -> [u8; EVENT] {
    let mut event = [0; EVENT];
    event[..8].copy_from_slice(&subscription[..8]);
    event[8..10].copy_from_slice(&error.to_le_bytes());
    event[10] = subscription[8];
    if subscription[8] != CLOCK {
        event[16] = 1;
    }
    event
}

fn slice(memory: &[u8], start: i32, len: usize) -> Option<&[u8]> {
    memory.get(start.cast_unsigned() as usize..)?.get(..len)
}

fn slice_mut(memory: &mut [u8], start: i32, len: usize) -> Option<&mut [u8]> {
    memory
        .get_mut(start.cast_unsigned() as usize..)?
        .get_mut(..len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::metering::HostFuel;

    fn clock_subscription(userdata: u8, id: u32, timeout: u64, flags: u16) -> [u8; SUBSCRIPTION] {
        let mut bytes = [0; SUBSCRIPTION];
        bytes[0] = userdata;
        bytes[16..20].copy_from_slice(&id.to_le_bytes());
        bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
        bytes[40..42].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn the_earliest_timer_wakes() {
        let clock = GuestClock::deterministic(HostFuel::default());
        let asked = [
            clock_subscription(1, MONOTONIC, 700, 0),
            clock_subscription(2, MONOTONIC, 600, ABSOLUTE),
            clock_subscription(3, REALTIME, clock.wall() + 900, ABSOLUTE),
        ];
        let answer = answer(&clock, &asked.concat()).unwrap();
        assert_eq!((answer.events.len(), answer.events[0]), (EVENT, 2));
        assert_eq!(answer.sleep_until, Some(600));
    }

    #[test]
    fn streams_are_ready_and_no_time_passes() {
        let clock = GuestClock::deterministic(HostFuel::default());
        let mut stdin = [0; SUBSCRIPTION];
        (stdin[0], stdin[8]) = (9, 1);
        let asked = [clock_subscription(1, MONOTONIC, 700, 0), stdin];
        let answer = answer(&clock, &asked.concat()).unwrap();
        let events = answer.events;
        assert_eq!((events.len(), events[0], events[10]), (EVENT, 9, 1));
        assert_eq!(answer.sleep_until, None);
    }

    #[test]
    fn other_clocks_are_refused() {
        let asked = clock_subscription(1, 2, 0, 0);
        assert!(answer(&GuestClock::deterministic(HostFuel::default()), &asked).is_none());
    }
}
