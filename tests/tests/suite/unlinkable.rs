//! The privacy rule: a provider's record of two calls by one caller holds
//! nothing that ties them together. And the test can tell: it fails when a key,
//! a stream or a value is reused on purpose.

use std::collections::HashSet;

use dlambda_client::Call;
use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::exchange::{VerifiedGreeting, exchange};
use dlambda_privacy::os_rng;
use dlambda_privacy::wire::write_frame;
use dlambda_proto::{FunctionSource, Request};
use dlambda_provider::SessionRecord;
use dlambda_tests::view::{Link, View, links};
use rand_core::{CryptoRng, Rng as _, TryCryptoRng, TryRng};

use crate::support::{LONG, World, alias};

/// Calls of one caller, with different functions and inputs, as life has it.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_calls_of_one_caller_share_nothing() {
    let world = World::new().await;
    let querier = world.querier();
    for i in 0..20_usize {
        let function = ["upper", "sha256"][i % 2];
        let mut input = vec![0; 100 + 37 * i];
        os_rng().fill_bytes(&mut input);
        let call = Call::new(world.endpoint(), alias(function)).input(input);
        querier.call(&call, LONG, |_| {}).await.expect("an answer");
    }
    let records = world.provider.recorder.wait_for(20).await;
    assert_eq!(provider_view(&records, 20), HashSet::new());
}

/// What the provider can tell from its record of these calls.
pub(crate) fn provider_view(records: &[SessionRecord], calls: usize) -> HashSet<Link> {
    let views: Vec<View> = records.iter().map(View::new).collect();
    links(&views, calls)
}

/// A caller built to leak.
struct Leak<'a> {
    world: &'a World,
    seed: [u8; 32],
}

impl Leak<'_> {
    fn seal(&self, welcome: &VerifiedGreeting, rng: &mut impl CryptoRng) -> SealedCall {
        let mut input = vec![0; 64];
        os_rng().fill_bytes(&mut input);
        let request = Request {
            function: FunctionSource::Known(welcome.advert.functions[0].id),
            args: vec![],
            input,
            seed: self.seed,
            http: None,
            token: None,
        };
        let plan = &welcome.advert.plans[0].name;
        SealedCall::seal(&welcome.sealing, plan, &request, rng).expect("seals")
    }

    async fn call(&self, rng: &mut impl CryptoRng) {
        let (mut stream, welcome) = self.world.open().await;
        // A reused key is refused as a replay; the record holds it all the same.
        let _ = exchange(&mut *stream, self.seal(&welcome, rng), LONG).await;
    }
}

/// Always the same "random" bytes.
struct Stuck;

impl TryRng for Stuck {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(7)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(7)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.fill(7);
        Ok(())
    }
}

impl TryCryptoRng for Stuck {}

fn fresh_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    os_rng().fill_bytes(&mut seed);
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_key_is_seen() {
    let world = World::new().await;
    for _ in 0..2 {
        let leak = Leak {
            world: &world,
            seed: fresh_seed(),
        };
        leak.call(&mut Stuck).await;
    }
    let found = provider_view(&world.provider.recorder.wait_for(2).await, 2);
    let in_clear = |link: &Link| {
        matches!(
            link,
            Link::SharedString {
                first: "bytes received",
                second: "bytes received",
                ..
            }
        )
    };
    assert!(found.iter().any(in_clear), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_lives_for_two_calls_is_seen() {
    let world = World::new().await;
    let seed = fresh_seed();
    for _ in 0..2 {
        let leak = Leak {
            world: &world,
            seed,
        };
        leak.call(&mut os_rng()).await;
    }
    let found = provider_view(&world.provider.recorder.wait_for(2).await, 2);
    let inside = |link: &Link| matches!(link, Link::SharedString { first: "seed", .. });
    assert!(found.iter().any(inside), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_stream_is_seen() {
    let world = World::new().await;
    let leak = Leak {
        world: &world,
        seed: fresh_seed(),
    };
    let (mut stream, welcome) = world.open().await;
    for _ in 0..2 {
        let call = leak.seal(&welcome, &mut os_rng());
        let _ = write_frame(&mut *stream, call.frame(), LONG).await;
    }
    drop(stream);
    let found = provider_view(&world.provider.recorder.wait_for(1).await, 2);
    assert!(
        found.contains(&Link::SharedStream {
            streams: 1,
            calls: 2
        }),
        "{found:?}"
    );
}
