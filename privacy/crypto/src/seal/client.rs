//! The caller's side: seal one request, open one reply.

use std::fmt;

use dlambda_proto::{
    CallEnvelope, CallHeader, Frame, FrameKind, PlanName, Reply, Request, SealingKey, decode,
    encode,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::reply::ReplySecret;
use super::{call_info, hybrid};
use crate::{SealError, padding};

/// A call, sealed with a key of its own; opens the one reply to it.
pub struct SealedCall {
    frame: Frame,
    reply: ReplySecret,
}

impl SealedCall {
    /// Pads and seals `request` to the key that came with a verified advert.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`] above 64 MiB, [`SealError::BadKey`] if the
    /// key is no key.
    pub fn seal(
        to: &SealingKey,
        plan: &PlanName,
        request: &Request,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        let header = CallHeader {
            epoch: to.epoch,
            plan: plan.clone(),
        };
        let plaintext = Zeroizing::new(encode(request));
        let padded = Zeroizing::new(padding::pad(&plaintext)?);
        let info = call_info(&to.provider);
        let sealed = hybrid::seal(&to.key, &info, &encode(&header), &padded, rng)?;
        let envelope = CallEnvelope {
            header,
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        };
        let frame = Frame::new(FrameKind::Call, encode(&envelope)).map_err(SealError::too_large)?;
        Ok(Self {
            frame,
            reply: sealed.reply,
        })
    }

    /// The frame to send.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Opens the body of the reply's frame. The call's secrets end here.
    ///
    /// # Errors
    ///
    /// [`SealError`] if it is not the reply to this very call.
    pub fn open(self, body: &[u8]) -> Result<Reply, SealError> {
        let padded = Zeroizing::new(self.reply.open(body)?);
        Ok(decode(padding::unpad(&padded)?)?)
    }
}

impl fmt::Debug for SealedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedCall([scrubbed])")
    }
}
