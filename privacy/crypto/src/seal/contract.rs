//! Messages of issuance: sealed like calls, all of one size.

use std::fmt;

use dlambda_proto::{
    ContractAnswer, ContractEnvelope, ContractRequest, Frame, FrameKind, ProofOfWork, SealingKey,
    decode, encode,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::reply::ReplySecret;
use super::{SealingSecret, contract_info, hybrid};
use crate::{SealError, padding};

/// Every message of issuance is padded to so many bytes: a larger batch
/// must not look larger.
const SIZE: usize = 16 << 10;

/// A request, sealed with a key of its own; opens the one answer to it.
pub struct SealedContractRequest {
    envelope: ContractEnvelope,
    reply: ReplySecret,
}

/// A request, opened.
pub struct OpenedContractRequest {
    /// What is asked for.
    pub request: ContractRequest,
    /// Seals the answer.
    pub answerer: AnswerSealer,
}

/// Seals the one answer to one request.
pub struct AnswerSealer(ReplySecret);

impl SealedContractRequest {
    /// Pads and seals `request` to the key that came with an advert.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`] above 16 KiB, [`SealError::BadKey`] if the
    /// key is no key.
    pub fn seal(
        to: &SealingKey,
        request: &ContractRequest,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        let padded = Zeroizing::new(padding::pad_to(&encode(request), SIZE)?);
        let info = contract_info(&to.provider);
        let associated = encode(&to.epoch);
        let sealed = hybrid::seal(&to.key, &info, &associated, &padded, rng)?;
        Ok(Self {
            envelope: ContractEnvelope {
                epoch: to.epoch,
                encapsulated_key: sealed.encapsulated_key,
                ciphertext: sealed.ciphertext,
                work: None,
            },
            reply: sealed.reply,
        })
    }

    /// What proof of work is done on.
    #[must_use]
    pub fn envelope(&self) -> &ContractEnvelope {
        &self.envelope
    }

    /// Attaches proof of work.
    #[must_use]
    pub fn with_work(mut self, work: ProofOfWork) -> Self {
        self.envelope.work = Some(work);
        self
    }

    /// The frame to send.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`], which sealing has excluded.
    pub fn frame(&self) -> Result<Frame, SealError> {
        Frame::new(FrameKind::Contract, encode(&self.envelope)).map_err(SealError::too_large)
    }

    /// Opens the body of the answer's frame.
    ///
    /// # Errors
    ///
    /// [`SealError`] if it is not the answer to this very request.
    pub fn open(self, body: &[u8]) -> Result<ContractAnswer, SealError> {
        let padded = Zeroizing::new(self.reply.open(body)?);
        Ok(decode(padding::unpad_from(&padded, SIZE)?)?)
    }
}

impl SealingSecret {
    /// Opens a request of issuance.
    ///
    /// # Errors
    ///
    /// [`SealError`] if it is not sealed to this key, or what was sealed is no
    /// such request.
    pub fn open_contract(
        &self,
        envelope: &ContractEnvelope,
    ) -> Result<OpenedContractRequest, SealError> {
        let info = contract_info(self.provider());
        let (padded, reply) = hybrid::open(
            self.secret(),
            &info,
            &encode(&envelope.epoch),
            &envelope.encapsulated_key,
            &envelope.ciphertext,
        )?;
        let request = decode(padding::unpad_from(&padded, SIZE)?)?;
        Ok(OpenedContractRequest {
            request,
            answerer: AnswerSealer(reply),
        })
    }
}

impl AnswerSealer {
    /// The secret that the answer's key is made of, for a provider that writes
    /// down all it knows. Nothing else has a use for it.
    #[must_use]
    pub fn dangerously_reveal(&self) -> [u8; 32] {
        self.0.dangerously_reveal()
    }

    /// Pads and seals the answer.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`] above 16 KiB.
    pub fn seal(self, answer: &ContractAnswer) -> Result<Frame, SealError> {
        let padded = Zeroizing::new(padding::pad_to(&encode(answer), SIZE)?);
        let body = self.0.seal(&padded)?;
        Frame::new(FrameKind::ContractAnswer, body).map_err(SealError::too_large)
    }
}

impl fmt::Debug for SealedContractRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedContractRequest([scrubbed])")
    }
}

impl fmt::Debug for OpenedContractRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenedContractRequest([scrubbed])")
    }
}

impl fmt::Debug for AnswerSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerSealer([scrubbed])")
    }
}
