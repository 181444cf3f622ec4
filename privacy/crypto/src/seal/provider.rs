//! The provider's side: an epoch's secret key, a call opened, one reply sealed.

use std::fmt;

use dlambda_proto::{CallEnvelope, Epoch, ProviderId, Reply, Request, SealingKey, decode, encode};
use hpke::{Kem as _, Serializable as _};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::reply::ReplySecret;
use super::{Kem, Secret, call_info, hybrid};
use crate::{SealError, padding};

/// The secret HPKE key of one epoch, or of the part of it since the provider
/// was started. Erased from memory when dropped; it is never written anywhere,
/// so that no later theft opens an old call.
pub struct SealingSecret {
    epoch: Epoch,
    provider: ProviderId,
    secret: Secret,
    public: [u8; 32],
}

/// A call, opened.
pub struct OpenedCall {
    /// What the caller asks for.
    pub request: Request,
    /// Seals the reply.
    pub replier: ReplySealer,
}

/// Seals the one reply to one call.
pub struct ReplySealer(ReplySecret);

impl SealingSecret {
    /// A fresh key for this provider and epoch.
    #[must_use]
    pub fn generate(provider: ProviderId, epoch: Epoch, rng: &mut impl CryptoRng) -> Self {
        let (secret, public) = Kem::gen_keypair_with_rng(rng);
        Self {
            epoch,
            provider,
            secret,
            public: public.to_bytes().into(),
        }
    }

    /// The epoch that the key belongs to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The public half, to be signed and shown.
    #[must_use]
    pub fn sealing_key(&self) -> SealingKey {
        SealingKey {
            provider: self.provider,
            epoch: self.epoch,
            key: self.public,
        }
    }

    pub(super) fn provider(&self) -> &ProviderId {
        &self.provider
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Opens a call.
    ///
    /// # Errors
    ///
    /// [`SealError`] if it is not sealed to this key under its own header, or
    /// what was sealed is no request.
    pub fn open(&self, envelope: &CallEnvelope) -> Result<OpenedCall, SealError> {
        let (padded, secret) = hybrid::open(
            &self.secret,
            &call_info(&self.provider),
            &encode(&envelope.header),
            &envelope.encapsulated_key,
            &envelope.ciphertext,
        )?;
        let request = decode(padding::unpad(&padded)?)?;
        Ok(OpenedCall {
            request,
            replier: ReplySealer(secret),
        })
    }
}

impl ReplySealer {
    /// The secret that the reply's key is made of, for a provider that writes
    /// down all it knows. Nothing else has a use for it.
    #[must_use]
    pub fn dangerously_reveal(&self) -> [u8; 32] {
        self.0.dangerously_reveal()
    }

    /// Pads and seals the reply: the body of a `Reply` frame. The same reply to
    /// the same sealed call is the same bytes.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`] above 64 MiB.
    pub fn seal(self, reply: &Reply) -> Result<Vec<u8>, SealError> {
        let plaintext = Zeroizing::new(encode(reply));
        let padded = Zeroizing::new(padding::pad(&plaintext)?);
        self.0.seal(&padded)
    }
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingSecret({:?}, [scrubbed])", self.epoch)
    }
}

impl fmt::Debug for OpenedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenedCall([scrubbed])")
    }
}

impl fmt::Debug for ReplySealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySealer([scrubbed])")
    }
}
