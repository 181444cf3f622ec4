//! Standard input from memory, each byte paid for.

use bytes::Bytes;
use tokio::io::AsyncRead;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use crate::runtime::metering::HostFuel;

/// A stream that hands out its bytes once, to all its readers together.
#[derive(Clone)]
pub(crate) struct Input {
    rest: std::sync::Arc<std::sync::Mutex<Bytes>>,
    host_fuel: HostFuel,
}

impl Input {
    pub(crate) fn new(bytes: Bytes, host_fuel: HostFuel) -> Self {
        Self {
            rest: std::sync::Arc::new(std::sync::Mutex::new(bytes)),
            host_fuel,
        }
    }
}

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut rest = self
            .rest
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if rest.is_empty() {
            return Err(StreamError::Closed);
        }
        let size = size.min(rest.len());
        self.host_fuel.charge_call(size);
        Ok(rest.split_to(size))
    }
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {}
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Input {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }

    /// Only preview 3 asks for this stream, and preview 3 is not linked.
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(tokio::io::empty())
    }
}
