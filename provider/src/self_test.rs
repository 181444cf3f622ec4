//! A call to ourselves, through the network, before we say that we are ready.

use std::sync::Arc;
use std::time::Duration;

use dlambda_crypto::seal::SealedCall;
use dlambda_crypto::tokens::BlindedCalls;
use dlambda_privacy::exchange::{acknowledge, exchange, receive_greeting};
use dlambda_privacy::transport::{Service, Transport};
use dlambda_privacy::{ExchangeError, os_rng};
use dlambda_proto::{
    BatchSize, CallToken, Completion, Endpoint, FunctionSource, HasKind as _, Request,
};
use rand_core::Rng as _;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::ProviderError;
use crate::epoch::Epochs;

/// `(module (func (export "_start")))`: ends at once, successfully.
const NOTHING: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\
                         \x0a\x04\x01\x02\0\x0b";

/// For one step of a try.
const STEP: Duration = Duration::from_secs(30);

/// Calls ourselves at every endpoint until it works or `deadline` has passed
/// for one: a new onion service takes a moment until its descriptor can be found.
///
/// # Errors
///
/// [`ProviderError`]: that of the last call to an endpoint that did not work.
pub(crate) async fn run(
    transport: Arc<dyn Transport>,
    endpoints: Vec<Endpoint>,
    epochs: Arc<Epochs>,
    deadline: Duration,
) -> Result<(), ProviderError> {
    for endpoint in endpoints {
        call_until_it_works(&*transport, &endpoint, &epochs, deadline).await?;
    }
    Ok(())
}

async fn call_until_it_works(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    epochs: &Epochs,
    deadline: Duration,
) -> Result<(), ProviderError> {
    let give_up = Instant::now() + deadline;
    loop {
        let error = match call_once(transport, endpoint, epochs).await {
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
    epochs: &Epochs,
) -> Result<(), ProviderError> {
    let mut stream = transport.dial(endpoint, Service::Calls).await?.stream;
    let welcome = receive_greeting(&mut *stream, endpoint, epochs.now(), STEP)
        .await
        .map_err(ProviderError::SelfTest)?;
    let request = Request {
        function: FunctionSource::Attached(NOTHING.to_vec()),
        args: Vec::new(),
        input: Vec::new(),
        seed: [0; 32],
        http: None,
        token: own_token(epochs),
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

/// A token of our own for the default plan, if it needs one.
fn own_token(epochs: &Epochs) -> Option<CallToken> {
    let keys = epochs.current();
    let advert = &keys.advert;
    let key = advert.call_key(&advert.plans.first()?.name)?;
    let issuer = keys.issuers.calls.get(&key.plan)?;
    let batch = BatchSize::Calls8;
    let mut seed = Zeroizing::new([0; 32]);
    os_rng().fill_bytes(&mut *seed);
    let blinded = BlindedCalls::blind(key, &advert.provider, advert.epoch, batch, &seed).ok()?;
    let response = issuer.issue(blinded.request(), batch).ok()?;
    blinded.unblind(&response).ok()?.pop()
}
