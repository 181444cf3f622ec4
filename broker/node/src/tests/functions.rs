//! Functions that nodes hand on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::FunctionId;

use super::support::{Peer, endpoint, quick};
use crate::{FetchError, FunctionPart, PublishedFunctions};

const FAST: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// What a node has, published or not, and how it lies.
#[derive(Default)]
struct Shelf {
    published: HashMap<FunctionId, Vec<u8>>,
    /// Adds this to every byte.
    shift: u8,
}

impl Shelf {
    fn publish(mut self, wasm: Vec<u8>) -> Self {
        self.published.insert(FunctionId::of(&wasm), wasm);
        self
    }
}

impl PublishedFunctions for Shelf {
    fn part(&self, function: &FunctionId, offset: u32, most: usize) -> Option<FunctionPart> {
        let wasm = self.published.get(function)?;
        let rest = wasm.get(offset as usize..)?;
        let part = &rest[..rest.len().min(most)];
        Some(FunctionPart {
            size: u32::try_from(wasm.len()).ok()?,
            bytes: part.iter().map(|byte| byte ^ self.shift).collect(),
        })
    }
}

async fn publisher(network: &MemoryNetwork, shelf: Shelf) -> Peer {
    let mut config = quick(&[]);
    config.functions = Some(Arc::new(shelf));
    // The machines of a test are busy.
    config.pace.request_deadline = LONG;
    Peer::start(network, 1, config).await
}

async fn fetcher(network: &MemoryNetwork, number: u8) -> Peer {
    let mut config = quick(&[]);
    config.pace.request_deadline = LONG;
    config.pace.dial_deadline = LONG;
    Peer::start(network, number, config).await
}

async fn fetch(
    by: &Peer,
    from: &Peer,
    function: FunctionId,
    most: usize,
) -> Result<Vec<u8>, FetchError> {
    let most = u32::try_from(most).expect("small");
    let handle = by.handle();
    let fetched = handle.fetch_function(from.node.endpoint(), function, most, LONG);
    fetched.await
}

fn function(len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(len).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_function_comes_whole_and_another_does_not() {
    let network = MemoryNetwork::new(FAST);
    let (wasm, id) = (function(MIB + 1), FunctionId::of(&function(MIB + 1)));
    let from = publisher(&network, Shelf::default().publish(wasm.clone())).await;
    let by = fetcher(&network, 2).await;
    assert_eq!(fetch(&by, &from, id, MIB + 1).await, Ok(wasm.clone()));
    assert_eq!(fetch(&by, &from, id, MIB + 1).await, Ok(wasm), "connected");
    let unpublished = FunctionId::of(b"brought by a caller");
    let refused = fetch(&by, &from, unpublished, MIB).await;
    assert_eq!(refused, Err(FetchError::Missing));
    let refused = fetch(&by, &from, id, MIB).await;
    assert_eq!(refused, Err(FetchError::TooLarge));
    let sent = from.status().await.function_bytes_sent;
    assert!(sent >= 2 * MIB as u64, "{sent}");
    // A node that publishes nothing has nothing to give.
    let refused = fetch(&from, &by, id, MIB).await;
    assert_eq!(refused, Err(FetchError::Missing));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_their_sender_is_not_asked_again() {
    let network = MemoryNetwork::new(FAST);
    let (wasm, id) = (function(MIB), FunctionId::of(&function(MIB)));
    let mut shelf = Shelf::default().publish(wasm);
    shelf.shift = 1;
    let liar = publisher(&network, shelf).await;
    let by = fetcher(&network, 2).await;
    let fetched = fetch(&by, &liar, id, MIB).await;
    assert_eq!(fetched, Err(FetchError::WrongBytes));
    assert_eq!(by.refusals("function of other bytes").await, 1);
    let sent = liar.status().await.function_bytes_sent;
    assert_eq!(fetch(&by, &liar, id, MIB).await, Err(FetchError::LeftAlone));
    assert_eq!(liar.status().await.function_bytes_sent, sent);
    // Others find out for themselves.
    let other = fetcher(&network, 3).await;
    let fetched = fetch(&other, &liar, id, MIB).await;
    assert_eq!(fetched, Err(FetchError::WrongBytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_gets_the_largest_function_and_then_has_to_wait() {
    let network = MemoryNetwork::new(Duration::ZERO);
    let (wasm, id) = (function(16 * MIB), FunctionId::of(&function(16 * MIB)));
    let from = publisher(&network, Shelf::default().publish(wasm)).await;
    let by = fetcher(&network, 2).await;
    let fetched = fetch(&by, &from, id, 16 * MIB).await;
    assert_eq!(fetched.map(|it| it.len()), Ok(16 * MIB));
    let fetched = fetch(&by, &from, id, 16 * MIB).await;
    assert_eq!(fetched.err(), Some(FetchError::Busy));
    assert!(from.refusals("too many function requests").await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_fetch_at_a_time_and_it_ends_when_it_is_dropped() {
    let network = MemoryNetwork::new(FAST);
    let (wasm, id) = (function(MIB), FunctionId::of(&function(MIB)));
    let from = publisher(&network, Shelf::default().publish(wasm)).await;
    let by = fetcher(&network, 2).await;
    // Nothing listens there: the dial lasts.
    let nowhere = endpoint(&network, 9);
    let handle = by.handle();
    let hanging = handle.fetch_function(nowhere, id, 1, Duration::from_millis(1));
    let ended = hanging.await;
    assert!(
        matches!(ended, Err(FetchError::Deadline | FetchError::Unreachable)),
        "{ended:?}"
    );
    let both = tokio::join!(fetch(&by, &from, id, MIB), fetch(&by, &from, id, MIB),);
    assert!(both.0.is_ok());
    assert_eq!(both.1, Err(FetchError::Occupied));
    let own = by.node.endpoint();
    let fetched = by.handle().fetch_function(own, id, 1, LONG).await;
    assert_eq!(fetched, Err(FetchError::Unreachable));
}
