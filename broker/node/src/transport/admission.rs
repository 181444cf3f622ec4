//! Which of the connections that are being set up make room for new ones.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::future::{AbortHandle, BoxFuture, FutureExt as _, abortable};
use libp2p_core::Transport;
use libp2p_core::multiaddr::Multiaddr;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};

/// A transport that sets up at most so many arrivals at a time. When another arrives, the one
/// that has taken longest is given up: a peer that opens connections and says nothing displaces
/// its own connections rather than those that go on.
pub(crate) struct NewestFirst<T> {
    inner: T,
    limit: usize,
    /// The oldest first.
    pending: VecDeque<Pending>,
}

struct Pending {
    handle: AbortHandle,
    /// Gone as soon as the set-up has ended.
    running: Weak<()>,
}

impl<T> NewestFirst<T> {
    /// At most `limit` arrivals of `inner` at a time.
    pub(crate) fn new(inner: T, limit: usize) -> Self {
        Self {
            inner,
            limit,
            pending: VecDeque::new(),
        }
    }

    fn admit<F, O>(&mut self, upgrade: F) -> BoxFuture<'static, io::Result<O>>
    where
        F: Future<Output = io::Result<O>> + Send + 'static,
    {
        self.pending
            .retain(|pending| pending.running.strong_count() > 0);
        if self.pending.len() >= self.limit
            && let Some(oldest) = self.pending.pop_front()
        {
            oldest.handle.abort();
        }
        let running = Arc::new(());
        let (upgrade, handle) = abortable(upgrade);
        self.pending.push_back(Pending {
            handle,
            running: Arc::downgrade(&running),
        });
        let admitted = async move {
            let _running = running;
            match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        };
        admitted.boxed()
    }
}

impl<T> Transport for NewestFirst<T>
where
    T: Transport<Error = io::Error> + Unpin,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<T::Output>>;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let polled = Pin::new(&mut self.inner).poll(cx);
        polled.map(|event| event.map_upgrade(|upgrade| self.admit(upgrade)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_arrival_makes_room_and_those_that_ended_do_not_count() {
        let mut admission = NewestFirst::new((), 2);
        let oldest = admission.admit(pending::<io::Result<()>>());
        let ended = admission.admit(async { Ok(1) });
        assert_eq!(ended.await.expect("is admitted"), 1);
        let mut middle = admission.admit(pending::<io::Result<()>>());
        assert!((&mut middle).now_or_never().is_none());
        let mut newest = admission.admit(pending::<io::Result<()>>());
        let given_up = oldest.now_or_never().expect("has taken longest");
        let given_up = given_up.expect_err("has taken longest");
        assert_eq!(given_up.kind(), io::ErrorKind::ConnectionAborted);
        assert!((&mut middle).now_or_never().is_none());
        assert!((&mut newest).now_or_never().is_none());
    }
}
