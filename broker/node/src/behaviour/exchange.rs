//! Requests between nodes, each with one answer.

use std::fmt;
use std::time::Duration;

use dlambda_proto::OnionAddress;
use libp2p_request_response::{Config, ProtocolSupport};
use libp2p_swarm::StreamProtocol;
use minicbor::bytes::ByteVec;
use minicbor::{CborLen, Decode, Encode};

use super::codec::CborCodec;

/// Bytes of the longest request.
pub(crate) const MAX_REQUEST: usize = 16 << 10;

/// Bytes of the longest answer.
pub(crate) const MAX_ANSWER: usize = 1 << 20;

/// Items in an answer.
pub(crate) const MAX_ITEMS: usize = 256;

/// Requests on one connection at a time, both ways together.
const MAX_CONCURRENT: usize = 4;

/// Requests and answers of nodes.
pub(crate) type Behaviour =
    libp2p_request_response::Behaviour<CborCodec<Request, Answer, MAX_REQUEST, MAX_ANSWER>>;

/// What happens to them.
pub(crate) type Event = libp2p_request_response::Event<Request, Answer>;

/// Which run of a reconciliation a request is about: random, and also the salt of the run's ids.
pub(crate) type RunId = [u8; 16];

/// What a node asks another.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) enum Request {
    /// Where can you be reached?
    #[n(0)]
    Hello,
    /// A message of negentropy.
    #[n(1)]
    Reconcile {
        /// The run.
        #[cbor(n(0), with = "minicbor::bytes")]
        run: RunId,
        /// The message.
        #[n(1)]
        message: ByteVec,
    },
    /// Items that the asker lacks.
    #[n(2)]
    Fetch {
        /// The run.
        #[cbor(n(0), with = "minicbor::bytes")]
        run: RunId,
        /// Their ids in this run, 32 bytes each.
        #[n(1)]
        ids: ByteVec,
    },
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) enum Answer {
    /// Not now.
    #[n(0)]
    Busy,
    /// Where the node listens, as a peer can check by dialling.
    #[n(1)]
    Hello(#[n(0)] String),
    /// A message of negentropy.
    #[n(2)]
    Reconcile(#[n(0)] ByteVec),
    /// Of the items asked for, those that there are.
    #[n(3)]
    Items(#[n(0)] Batch),
}

/// At most [`MAX_ITEMS`] items.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(pub(crate) Vec<ByteVec>);

impl Answer {
    /// The answer to a [`Request::Hello`].
    pub(crate) fn hello(address: &OnionAddress) -> Self {
        Self::Hello(address.unredacted())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request([scrubbed])")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer([scrubbed])")
    }
}

impl<C> Encode<C> for Batch {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.encode(e, ctx)
    }
}

impl<C> CborLen<C> for Batch {
    fn cbor_len(&self, ctx: &mut C) -> usize {
        self.0.cbor_len(ctx)
    }
}

impl<'b, C> Decode<'b, C> for Batch {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let refused = || minicbor::decode::Error::message("not a batch of items");
        let count = d.array()?.ok_or_else(refused)?;
        if count > MAX_ITEMS as u64 {
            return Err(refused());
        }
        let items = (0..count).map(|_| Ok(d.bytes()?.to_vec().into()));
        items.collect::<Result<_, _>>().map(Self)
    }
}

/// The protocol of requests, each of which has so long, its answer included.
pub(super) fn new(protocol: StreamProtocol, deadline: Duration) -> Behaviour {
    let config = Config::default()
        .with_request_timeout(deadline)
        .with_max_concurrent_streams(MAX_CONCURRENT);
    Behaviour::new([(protocol, ProtocolSupport::Full)], config)
}

#[cfg(test)]
mod tests {
    use std::io;

    use dlambda_proto::encode;
    use futures::io::Cursor;

    use super::super::codec::{read, write};
    use super::*;

    async fn read_all(bytes: &[u8], limit: usize) -> io::Result<Answer> {
        read(&mut Cursor::new(bytes), limit).await
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).expect("short");
        [&len.to_be_bytes()[..], body].concat()
    }

    #[tokio::test]
    async fn a_message_is_read_as_it_was_written() {
        let items = Batch(vec![vec![1; 400].into(), vec![].into()]);
        let answer = Answer::Items(items);
        let mut bytes = Vec::new();
        let mut cursor = Cursor::new(&mut bytes);
        write(&mut cursor, MAX_ANSWER, &encode(&answer))
            .await
            .expect("fits");
        let read = read_all(&bytes, MAX_ANSWER).await.expect("is whole");
        assert!(read == answer);
    }

    #[tokio::test]
    async fn what_is_too_long_truncated_or_garbage_is_refused() {
        let busy = encode(&Answer::Busy);
        let good = framed(&busy);
        assert!(read_all(&good, 10).await.is_ok());
        let many = Batch(vec![ByteVec::from(vec![]); MAX_ITEMS + 1]);
        let many = encode(&Answer::Items(many));
        for (what, bytes, limit) in [
            ("longer than allowed", good.clone(), busy.len() - 1),
            ("truncated", good[..good.len() - 1].to_vec(), 100),
            ("garbage", framed(&[0xff; 20]), 100),
            ("trailing bytes", framed(&[&busy[..], &[0]].concat()), 100),
            ("a length without bytes", vec![0, 15, 0, 0], MAX_ANSWER),
            ("too many items", framed(&many), MAX_ANSWER),
        ] {
            assert!(read_all(&bytes, limit).await.is_err(), "{what}");
        }
    }
}
