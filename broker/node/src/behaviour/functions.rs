//! Published functions, part by part: a request and an answer for each.

use std::fmt;
use std::time::Duration;

use dlambda_proto::FunctionId;
use libp2p_request_response::{Config, ProtocolSupport};
use libp2p_swarm::StreamProtocol;
use minicbor::bytes::ByteVec;
use minicbor::{CborLen, Decode, Encode};

use super::codec::CborCodec;

/// Most bytes of a function in one answer: 256 KiB.
pub(crate) const MAX_PART: usize = 256 << 10;

/// Bytes of the longest request.
const MAX_REQUEST: usize = 64;

/// Bytes of the longest answer: a part and what is around it.
const MAX_ANSWER: usize = MAX_PART + 32;

/// Requests on one connection at a time, both ways together.
const MAX_CONCURRENT: usize = 2;

/// Requests for functions, and their answers.
pub(crate) type Behaviour =
    libp2p_request_response::Behaviour<CborCodec<PartRequest, PartAnswer, MAX_REQUEST, MAX_ANSWER>>;

/// What happens to them.
pub(crate) type Event = libp2p_request_response::Event<PartRequest, PartAnswer>;

/// Asks for the bytes of a published function from `offset` on.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) struct PartRequest {
    /// The function.
    #[n(0)]
    pub(crate) function: FunctionId,
    /// The first byte that is wanted.
    #[n(1)]
    pub(crate) offset: u32,
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) enum PartAnswer {
    /// Not now.
    #[n(0)]
    Busy,
    /// The node does not publish the function, or it has no such byte.
    #[n(1)]
    Missing,
    /// Some of its bytes.
    #[n(2)]
    Part {
        /// Bytes of the whole function.
        #[n(0)]
        size: u32,
        /// The bytes from the offset on: 1 to [`MAX_PART`].
        #[n(1)]
        bytes: ByteVec,
    },
}

/// The protocol, in which each request has so long, its answer included.
pub(super) fn new(protocol: StreamProtocol, deadline: Duration) -> Behaviour {
    let config = Config::default()
        .with_request_timeout(deadline)
        .with_max_concurrent_streams(MAX_CONCURRENT);
    Behaviour::new([(protocol, ProtocolSupport::Full)], config)
}

impl fmt::Debug for PartRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartRequest([scrubbed])")
    }
}

impl fmt::Debug for PartAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartAnswer([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::encode;
    use futures::io::Cursor;

    use super::super::codec::{read, write};
    use super::*;

    #[tokio::test]
    async fn the_longest_part_fits_and_one_that_is_longer_is_not_read() {
        for (len, fits) in [(MAX_PART, true), (MAX_PART + 33, false)] {
            let part = PartAnswer::Part {
                size: u32::MAX,
                bytes: vec![1; len].into(),
            };
            let mut bytes = Vec::new();
            let mut cursor = Cursor::new(&mut bytes);
            let written = write(&mut cursor, 1 << 20, &encode(&part)).await;
            written.expect("is written");
            let read = read::<_, PartAnswer>(&mut Cursor::new(&bytes), MAX_ANSWER).await;
            assert_eq!(read.is_ok_and(|it| it == part), fits);
        }
        let request = PartRequest {
            function: FunctionId::from_digest([1; 32]),
            offset: u32::MAX,
        };
        assert!(encode(&request).len() <= MAX_REQUEST);
    }
}
