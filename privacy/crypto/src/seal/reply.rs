//! The reply's key, derived on both sides from the call's HPKE context.
//!
//! RFC 9458 section 4.4: a secret is exported from the context, and with it
//! and a nonce that the provider gives, HKDF makes an AEAD key and nonce.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use dlambda_proto::EncapsulatedKey;
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::SealError;

/// HPKE exporter context for the reply's secret.
pub(super) const EXPORT_LABEL: &[u8] = b"dlambda/reply/v1";

/// Bytes exported, and of the provider's nonce: max(Nk, Nn) of the AEAD.
const LEN: usize = 32;

/// What both sides derive the reply's key from. Erased when dropped.
#[derive(zeroize::ZeroizeOnDrop)]
pub(super) struct ReplySecret {
    exported: [u8; LEN],
    encapsulated_key: EncapsulatedKey,
}

impl ReplySecret {
    /// `export` fills its argument from the call's HPKE context.
    pub(super) fn derive(
        encapsulated_key: EncapsulatedKey,
        export: impl FnOnce(&mut [u8]) -> Result<(), hpke::HpkeError>,
    ) -> Result<Self, SealError> {
        let mut exported = [0; LEN];
        export(&mut exported).map_err(SealError::open)?;
        Ok(Self {
            exported,
            encapsulated_key,
        })
    }

    pub(super) fn dangerously_reveal(&self) -> [u8; LEN] {
        self.exported
    }

    /// Seals the one reply: `nonce (32) | ciphertext`.
    ///
    /// The nonce is a keyed hash of the plaintext, random to everybody else: a
    /// call that comes again gets the same bytes, and a reply that turned out
    /// differently gets another nonce and so another key.
    pub(super) fn seal(self, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; LEN];
        let digest = Sha256::digest(plaintext);
        Hkdf::<Sha256>::new(Some(&self.exported), &digest)
            .expand(b"dlambda/reply-nonce/v1", &mut sealed)
            .map_err(SealError::open)?;
        let (cipher, nonce) = self.cipher(&sealed)?;
        let ciphertext = cipher
            .encrypt(&nonce, plaintext)
            .map_err(SealError::too_large)?;
        sealed.extend(ciphertext);
        Ok(sealed)
    }

    /// Opens the one reply.
    pub(super) fn open(self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (response_nonce, ciphertext) = sealed.split_at_checked(LEN).ok_or(SealError::Open)?;
        let (cipher, nonce) = self.cipher(response_nonce)?;
        cipher.decrypt(&nonce, ciphertext).map_err(SealError::open)
    }

    fn cipher(&self, response_nonce: &[u8]) -> Result<(ChaCha20Poly1305, Nonce), SealError> {
        let salt = [&self.encapsulated_key[..], response_nonce].concat();
        let hkdf = Hkdf::<Sha256>::new(Some(&salt), &self.exported);
        let mut key = Zeroizing::new([0; 32]);
        let mut nonce = [0; 12];
        hkdf.expand(b"key", &mut *key)
            .and_then(|()| hkdf.expand(b"nonce", &mut nonce))
            .map_err(SealError::open)?;
        let mut aead_key = Key::from(*key);
        let cipher = ChaCha20Poly1305::new(&aead_key);
        aead_key.as_mut_slice().zeroize();
        Ok((cipher, Nonce::from(nonce)))
    }
}
