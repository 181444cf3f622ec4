//! Standard output and standard error, kept in memory and capped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::runtime::metering::HostFuel;

/// A stream that keeps the first `cap` bytes.
#[derive(Clone)]
pub(crate) struct CappedOutput {
    cap: usize,
    overflow: OverflowPolicy,
    host_fuel: HostFuel,
    buffer: Arc<Mutex<Buffer>>,
}

/// What happens to bytes beyond the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverflowPolicy {
    /// They are dropped, and the guest is not told.
    Drop,
    /// The guest is stopped.
    Stop,
}

/// The most a guest is told that it can write at once; bounds what the host copies for one call.
const PERMIT: usize = 64 << 10;

#[derive(Default)]
struct Buffer {
    bytes: BytesMut,
    exceeded: bool,
}

impl CappedOutput {
    pub(crate) fn new(cap: usize, overflow: OverflowPolicy, host_fuel: HostFuel) -> Self {
        Self {
            cap,
            overflow,
            host_fuel,
            buffer: Arc::default(),
        }
    }

    /// Takes what was kept; the stream is empty afterwards.
    pub(crate) fn take(&self) -> Bytes {
        std::mem::take(&mut self.lock().bytes).freeze()
    }

    /// Whether the guest wrote, or tried to write, more than the cap.
    pub(crate) fn exceeded(&self) -> bool {
        self.lock().exceeded
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl OutputStream for CappedOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // Dropped bytes were copied, too.
        self.host_fuel.charge_call(bytes.len());
        let mut buffer = self.lock();
        let room = self.cap.saturating_sub(buffer.bytes.len());
        let fits = bytes.len().min(room);
        buffer.bytes.extend_from_slice(&bytes[..fits]);
        if fits == bytes.len() {
            return Ok(());
        }
        buffer.exceeded = true;
        match self.overflow {
            OverflowPolicy::Drop => Ok(()),
            OverflowPolicy::Stop => Err(StreamError::trap("output limit")),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let room = self.cap.saturating_sub(self.lock().bytes.len());
        match self.overflow {
            OverflowPolicy::Drop => Ok(PERMIT),
            // Never zero: that would mean "wait", and the guest is to be stopped when it writes,
            // not before.
            OverflowPolicy::Stop => Ok(room.clamp(1, PERMIT)),
        }
    }
}

#[async_trait]
impl Pollable for CappedOutput {
    async fn ready(&mut self) {}
}

impl IsTerminal for CappedOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for CappedOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Only preview 3 asks for this stream, and preview 3 is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_exactly_the_beginning(
            cap in 0usize..100,
            stop in any::<bool>(),
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10),
        ) {
            let overflow = if stop { OverflowPolicy::Stop } else { OverflowPolicy::Drop };
            let output = CappedOutput::new(cap, overflow, HostFuel::default());
            let mut stream = output.clone();
            let all = writes.concat();
            for bytes in writes {
                if stream.write(bytes.into()).is_err() {
                    break;
                }
            }
            prop_assert_eq!(output.exceeded(), all.len() > cap);
            prop_assert_eq!(&output.take()[..], &all[..all.len().min(cap)]);
        }
    }

    #[test]
    fn a_permit_is_never_zero() {
        for overflow in [OverflowPolicy::Drop, OverflowPolicy::Stop] {
            assert!(
                CappedOutput::new(0, overflow, HostFuel::default())
                    .check_write()
                    .is_ok_and(|permit| permit > 0)
            );
        }
    }
}
