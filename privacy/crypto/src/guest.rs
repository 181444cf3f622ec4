//! Seals the frames of guests in a network with a pre-shared key.
//!
//! Without the key, a stranger that reaches a node learns nothing of what guests ask, and gets no
//! answer. Everybody who has the key can read everything.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use dlambda_proto::NetworkId;
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::SealError;

const NONCE: usize = 24;
const TAG: usize = 16;

/// The key of one network's guests. `Debug` says nothing.
pub struct GuestKey(XChaCha20Poly1305);

/// Binds an answer to its ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AskNonce([u8; NONCE]);

impl GuestKey {
    /// Bytes that sealing adds.
    pub const OVERHEAD: usize = NONCE + TAG;

    /// The key that follows from the pre-shared key of a network.
    #[must_use]
    pub fn derive(pre_shared: &[u8; 32], network: NetworkId) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        let derived = Hkdf::<Sha256>::new(Some(network.as_bytes()), pre_shared)
            .expand(b"dlambda/guest-frames/v1", &mut *key);
        // 32 bytes are one block of the hash.
        if derived.is_err() {
            unreachable!("HKDF gives up to 8,160 bytes");
        }
        Self(XChaCha20Poly1305::new(&Key::from(*key)))
    }

    /// Seals an ask.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`] if it is longer than the cipher allows.
    pub fn seal_ask(
        &self,
        padded: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, AskNonce), SealError> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let sealed = self.seal(b"ask", &nonce, padded)?;
        Ok((sealed, AskNonce(nonce)))
    }

    /// Opens an ask.
    ///
    /// # Errors
    ///
    /// [`SealError::Open`] if it was not sealed with this key.
    pub fn open_ask(&self, sealed: &[u8]) -> Result<(Vec<u8>, AskNonce), SealError> {
        let nonce = *sealed.first_chunk().ok_or(SealError::Open)?;
        Ok((self.open(b"ask", sealed)?, AskNonce(nonce)))
    }

    /// Seals the answer to an ask.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLarge`] if it is longer than the cipher allows.
    pub fn seal_answer(
        &self,
        to: AskNonce,
        padded: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        self.seal(&answer_to(to), &nonce, padded)
    }

    /// Opens the answer to an ask.
    ///
    /// # Errors
    ///
    /// [`SealError::Open`] if it was not sealed with this key, or answers another ask.
    pub fn open_answer(&self, to: AskNonce, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        self.open(&answer_to(to), sealed)
    }

    fn seal(&self, aad: &[u8], nonce: &[u8; NONCE], msg: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed = (self.0).encrypt(&XNonce::from(*nonce), Payload { msg, aad });
        // The cipher has no other error.
        let sealed = sealed.map_err(SealError::too_large)?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, msg) = sealed.split_first_chunk().ok_or(SealError::Open)?;
        // The cipher does not say why.
        (self.0)
            .decrypt(&XNonce::from(*nonce), Payload { msg, aad })
            .map_err(SealError::open)
    }
}

fn answer_to(ask: AskNonce) -> Vec<u8> {
    [b"answer".as_slice(), &ask.0].concat()
}

impl std::fmt::Debug for GuestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestKey([scrubbed])")
    }
}

impl std::fmt::Debug for AskNonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AskNonce([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os_rng;

    const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);

    #[test]
    fn asks_and_answers_are_for_those_with_the_key() {
        let key = GuestKey::derive(&[1; 32], NETWORK);
        let (sealed, nonce) = key.seal_ask(b"ask", &mut os_rng()).unwrap();
        assert_eq!(sealed.len(), 3 + GuestKey::OVERHEAD);
        assert_eq!(key.open_ask(&sealed).unwrap(), (b"ask".to_vec(), nonce));
        let answer = key.seal_answer(nonce, b"answer", &mut os_rng()).unwrap();
        assert_eq!(key.open_answer(nonce, &answer).unwrap(), b"answer");
        for other in [
            GuestKey::derive(&[2; 32], NETWORK),
            GuestKey::derive(&[1; 32], NetworkId::from_bytes([2; 16])),
        ] {
            assert!(other.open_ask(&sealed).is_err());
            assert!(other.open_answer(nonce, &answer).is_err());
        }
    }

    #[test]
    fn an_answer_belongs_to_its_ask() {
        let key = GuestKey::derive(&[1; 32], NETWORK);
        let (one, first) = key.seal_ask(b"ask", &mut os_rng()).unwrap();
        let (_, second) = key.seal_ask(b"ask", &mut os_rng()).unwrap();
        let answer = key.seal_answer(first, b"answer", &mut os_rng()).unwrap();
        assert!(key.open_answer(second, &answer).is_err());
        // An ask that is sent back is no answer, and cut ones are nothing.
        assert!(key.open_answer(first, &one).is_err());
        for len in 0..one.len() {
            assert!(key.open_ask(&one[..len]).is_err(), "{len}");
        }
    }
}
