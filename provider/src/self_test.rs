//! A call to ourselves, through the network, before we say that we are ready.

use std::time::Duration;

use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::exchange::{acknowledge, exchange, receive_greeting};
use dlambda_privacy::transport::{Service, Transport};
use dlambda_privacy::{ExchangeError, os_rng};
use dlambda_proto::{CallToken, Completion, Endpoint, FunctionSource, HasKind as _, Request};
use tokio::time::{Instant, sleep};

use crate::ProviderError;

/// `(module (func (export "_start")))`: ends at once, successfully.
const NOTHING: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// For one step of a try.
const STEP: Duration = Duration::from_secs(30);

/// Calls ourselves until it works or `deadline` has passed: a new onion
/// service takes a moment until its descriptor can be found.
pub(crate) async fn call_ourselves(
    transport: &dyn Transport,
    endpoint: Endpoint,
    clock: &dyn Clock,
    deadline: Duration,
    mint: impl Fn() -> Option<CallToken>,
) -> Result<(), ProviderError> {
    let give_up = Instant::now() + deadline;
    loop {
        let error = match call_once(transport, &endpoint, clock, mint()).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        tracing::info!(kind = ?error.kind(), "not reachable yet");
        if Instant::now() >= give_up {
            return Err(error);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn call_once(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    clock: &dyn Clock,
    token: Option<CallToken>,
) -> Result<(), ProviderError> {
    let mut stream = transport.dial(endpoint, Service::Calls).await?.stream;
    let welcome = receive_greeting(&mut *stream, endpoint, clock.now(), STEP)
        .await
        .map_err(ProviderError::SelfTest)?;
    let request = Request {
        function: FunctionSource::Attached(NOTHING.to_vec()),
        args: Vec::new(),
        input: Vec::new(),
        seed: [0; 32],
        http: None,
        token,
    };
    let plan = welcome
        .advert
        .plan(None)
        .ok_or(ProviderError::SelfTestAnswer)?;
    let call = SealedCall::seal(&welcome.sealing, &plan.name, &request, &mut os_rng())
        .map_err(|error| ProviderError::SelfTest(ExchangeError::Seal(error)))?;
    let exchanged = exchange(&mut *stream, call, STEP)
        .await
        .map_err(ProviderError::SelfTest)?;
    acknowledge(stream).await;
    match exchanged.reply.completion {
        Completion::Exited { status: 0, .. } => Ok(()),
        _ => Err(ProviderError::SelfTestAnswer),
    }
}
