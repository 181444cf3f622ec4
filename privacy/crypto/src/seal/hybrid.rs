//! One message sealed with HPKE base mode, and the secret for its answer.

use dlambda_proto::EncapsulatedKey;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::reply::{EXPORT_LABEL, ReplySecret};
use super::{Aead, Kdf, Kem, Secret};
use crate::SealError;

/// A sealed message.
pub(super) struct Sealed {
    pub(super) encapsulated_key: EncapsulatedKey,
    pub(super) ciphertext: Vec<u8>,
    pub(super) reply: ReplySecret,
}

/// Seals `padded` to `recipient`.
pub(super) fn seal(
    recipient: &[u8; 32],
    info: &[u8],
    associated: &[u8],
    padded: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealError> {
    let recipient =
        <Kem as hpke::Kem>::PublicKey::from_bytes(recipient).map_err(SealError::bad_key)?;
    let (encapsulated, mut context) =
        hpke::setup_sender_with_rng::<Aead, Kdf, Kem>(&OpModeS::Base, &recipient, info, rng)
            .map_err(SealError::bad_key)?;
    let ciphertext = context
        .seal(padded, associated)
        .map_err(SealError::too_large)?;
    let encapsulated_key = encapsulated.to_bytes().into();
    let reply = ReplySecret::derive(encapsulated_key, |out| context.export(EXPORT_LABEL, out))?;
    Ok(Sealed {
        encapsulated_key,
        ciphertext,
        reply,
    })
}

/// Opens a message, still padded.
pub(super) fn open(
    secret: &Secret,
    info: &[u8],
    associated: &[u8],
    encapsulated_key: &EncapsulatedKey,
    ciphertext: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, ReplySecret), SealError> {
    let encapsulated =
        <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated_key).map_err(SealError::open)?;
    let mut context =
        hpke::setup_receiver::<Aead, Kdf, Kem>(&OpModeR::Base, secret, &encapsulated, info)
            .map_err(SealError::open)?;
    let padded = context
        .open(ciphertext, associated)
        .map(Zeroizing::new)
        .map_err(SealError::open)?;
    let reply = ReplySecret::derive(*encapsulated_key, |out| context.export(EXPORT_LABEL, out))?;
    Ok((padded, reply))
}
