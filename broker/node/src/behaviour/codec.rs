//! Requests and answers as `length (4, big endian) | CBOR`.

use std::io;
use std::marker::PhantomData;

use dlambda_proto::{decode, encode};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p_request_response::Codec;
use libp2p_swarm::StreamProtocol;
use minicbor::{CborLen, Decode, Encode};

/// Requests `Q` of at most `MAX_REQUEST` bytes, and answers `A` of at most `MAX_ANSWER`.
pub(crate) struct CborCodec<Q, A, const MAX_REQUEST: usize, const MAX_ANSWER: usize>(
    PhantomData<fn() -> (Q, A)>,
);

impl<Q, A, const MAX_REQUEST: usize, const MAX_ANSWER: usize> Clone
    for CborCodec<Q, A, MAX_REQUEST, MAX_ANSWER>
{
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<Q, A, const MAX_REQUEST: usize, const MAX_ANSWER: usize> Default
    for CborCodec<Q, A, MAX_REQUEST, MAX_ANSWER>
{
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q, A, const MAX_REQUEST: usize, const MAX_ANSWER: usize> Codec
    for CborCodec<Q, A, MAX_REQUEST, MAX_ANSWER>
where
    Q: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()> + Send,
    A: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()> + Send,
{
    type Protocol = StreamProtocol;
    type Request = Q;
    type Response = A;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Q>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, MAX_REQUEST).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<A>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, MAX_ANSWER).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Q,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, MAX_REQUEST, &encode(&request)).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: A,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, MAX_ANSWER, &encode(&answer)).await
    }
}

/// Reads one message. Memory grows as bytes arrive, not as they are announced.
pub(super) async fn read<T, M>(io: &mut T, limit: usize) -> io::Result<M>
where
    T: AsyncRead + Unpin + Send,
    M: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()>,
{
    let mut len = [0; 4];
    io.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len);
    if len as usize > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    io.take(len.into()).read_to_end(&mut bytes).await?;
    if bytes.len() != len as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(&bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

pub(super) async fn write<T>(io: &mut T, limit: usize, bytes: &[u8]) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    if bytes.len() > limit {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    io.write_all(&len.to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}
