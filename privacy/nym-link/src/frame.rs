//! Frames: a length of 4 bytes, big-endian, and a CBOR value.

use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{LinkError, MAX_MESSAGE};

/// Bytes of the longest frame, its length apart.
pub const MAX_FRAME: usize = MAX_MESSAGE + 1024;

/// Reads one frame; `None` at the end of the stream between two frames.
///
/// # Errors
///
/// [`LinkError`]; the stream is then of no more use.
///
/// # Cancel safety
///
/// Not cancel safe: a part of a frame may be lost.
pub async fn read_frame<T, R>(reader: &mut R) -> Result<Option<T>, LinkError>
where
    T: for<'b> Decode<'b, ()>,
    R: AsyncRead + Unpin,
{
    let mut len = [0; 4];
    match reader.read(&mut len).await.map_err(LinkError::Lost)? {
        0 => return Ok(None),
        read => reader.read_exact(&mut len[read..]).await,
    }
    .map_err(LinkError::Lost)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(LinkError::TooLong(len));
    }
    let mut body = vec![0; len];
    reader
        .read_exact(&mut body)
        .await
        .map_err(LinkError::Lost)?;
    let mut decoder = minicbor::Decoder::new(&body);
    let value = decoder.decode().map_err(|_| LinkError::Malformed)?;
    if decoder.position() != body.len() {
        return Err(LinkError::Malformed);
    }
    Ok(Some(value))
}

/// Writes one frame and flushes it.
///
/// # Errors
///
/// [`LinkError`]; nothing was written if it is [`LinkError::TooLong`].
///
/// # Cancel safety
///
/// Not cancel safe: a part of the frame may have been written.
pub async fn write_frame<T, W>(writer: &mut W, value: &T) -> Result<(), LinkError>
where
    T: Encode<()>,
    W: AsyncWrite + Unpin,
{
    let mut frame = vec![0; 4];
    minicbor::encode(value, &mut frame).map_err(|_| LinkError::Malformed)?;
    let len = frame.len() - 4;
    if len > MAX_FRAME {
        return Err(LinkError::TooLong(len));
    }
    let bytes = u32::try_from(len).map_err(|_| LinkError::TooLong(len))?;
    frame[..4].copy_from_slice(&bytes.to_be_bytes());
    writer.write_all(&frame).await.map_err(LinkError::Lost)?;
    writer.flush().await.map_err(LinkError::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Event, NymRecipient, Reason, SessionId};

    #[tokio::test]
    async fn frames_survive_the_pipe() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let sent = Command::Send {
            session: SessionId(7),
            message: vec![3; MAX_MESSAGE].into(),
            surbs: 9,
        };
        write_frame(&mut ours, &sent).await.expect("fits");
        let received: Option<Command> = read_frame(&mut theirs).await.expect("arrives");
        assert_eq!(received, Some(sent));
        let event = Event::Closed {
            session: SessionId(1),
            reason: Reason::Busy,
        };
        write_frame(&mut ours, &event).await.expect("fits");
        drop(ours);
        assert_eq!(read_frame(&mut theirs).await.expect("one"), Some(event));
        let end: Option<Event> = read_frame(&mut theirs).await.expect("the end");
        assert_eq!(end, None);
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_or_no_frame_is_an_error() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        let long = Command::Reply {
            session: SessionId(7),
            message: vec![3; MAX_FRAME].into(),
        };
        let error = write_frame(&mut ours, &long).await;
        assert!(matches!(error, Err(LinkError::TooLong(_))));
        let announced = u32::MAX.to_be_bytes();
        let error = read_frame::<Event, _>(&mut &announced[..]).await;
        assert!(matches!(error, Err(LinkError::TooLong(_))));
        let cut = [0, 0, 0, 9, 1];
        let error = read_frame::<Event, _>(&mut &cut[..]).await;
        assert!(matches!(error, Err(LinkError::Lost(_))));
        let junk = [0, 0, 0, 2, 0xff, 0xff];
        let error = read_frame::<Event, _>(&mut &junk[..]).await;
        assert!(matches!(error, Err(LinkError::Malformed)));
    }

    #[test]
    fn debug_output_says_nothing() {
        let command = Command::Dial {
            session: SessionId(3),
            recipient: NymRecipient([0xab; 96]),
        };
        assert!(!format!("{command:?}").contains("171"));
    }
}
