//! What was checked of an advert, as types.

use std::fmt;
use std::ops::Deref;

use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::{Advert, AdvertError, Endpoint, IdentityKey, UnixSeconds, decode, encode};

pub(super) const DOMAIN: &[u8] = b"dlambda/advert/v1";

/// An advert's bytes with a signature that is not checked yet.
///
/// Equality is *the same advert*: the same signed bytes, whatever the
/// signature. One key makes any number of valid signatures of one message, and
/// another signature says nothing else. Detectors and judges use this one
/// definition, so that nothing is held against a provider that no judge confirms.
#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedAdvert {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) advert: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) signature: [u8; 64],
}

/// Names an advert: SHA-256(`"dlambda/advert-digest/v1" 00 advert`), over the
/// signed bytes without the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct AdvertDigest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// A value that its author signs.
pub trait Signable {
    /// The signed bytes.
    type Signed;
}

/// A value that the author named in it signed, and that keeps its bounds;
/// whenever and wherever it was seen. `Debug` says nothing.
pub struct Authentic<T: Signable> {
    value: T,
    signed: T::Signed,
}

/// An authentic value that is valid at the time of its reader.
pub struct Current<T: Signable>(Authentic<T>);

/// A current value of the provider that answers at the endpoint that was dialled.
pub struct Verified<T: Signable>(Current<T>);

impl Signable for Advert {
    type Signed = SignedAdvert;
}

impl Advert {
    /// Signs the advert with the identity it names.
    ///
    /// # Errors
    ///
    /// [`AdvertError::Signature`] if `key` is not the identity named in it, and
    /// [`AdvertError::Bound`] if no reader would accept it.
    pub fn sign(&self, key: &IdentityKey) -> Result<SignedAdvert, AdvertError> {
        if key.id() != self.provider {
            return Err(AdvertError::Signature);
        }
        self.check_bounds()?;
        let advert = encode(self);
        let signature = key.sign(DOMAIN, &advert);
        Ok(SignedAdvert { advert, signature })
    }
}

impl SignedAdvert {
    /// Names the advert, whatever its signature.
    #[must_use]
    pub fn digest(&self) -> AdvertDigest {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/advert-digest/v1\0");
        hash.update(&self.advert);
        AdvertDigest(hash.finalize().into())
    }

    /// Believes that the identity in the advert signed it and that it keeps its
    /// bounds, whenever and wherever: good enough for evidence, not for a call.
    ///
    /// # Errors
    ///
    /// [`AdvertError`] says which of these does not hold.
    pub fn authenticate(self) -> Result<Authentic<Advert>, AdvertError> {
        let value: Advert = decode(&self.advert)?;
        let signed = &self.signature;
        if !value.provider.verify(DOMAIN, &self.advert, signed) {
            return Err(AdvertError::Signature);
        }
        value.check_bounds()?;
        Ok(Authentic {
            value,
            signed: self,
        })
    }

    /// All checks that a call needs, one after the other.
    ///
    /// # Errors
    ///
    /// Those of [`SignedAdvert::authenticate`], [`Authentic::at`] and [`Current::served_by`].
    pub fn verify(
        self,
        now: UnixSeconds,
        served_by: &Endpoint,
    ) -> Result<Verified<Advert>, AdvertError> {
        self.authenticate()?.at(now)?.served_by(served_by)
    }
}

impl<T: Signable> Authentic<T> {
    /// The value as it was signed.
    #[must_use]
    pub fn signed(&self) -> &T::Signed {
        &self.signed
    }

    /// The value and its signed form.
    #[must_use]
    pub fn into_parts(self) -> (T, T::Signed) {
        (self.value, self.signed)
    }
}

impl Authentic<Advert> {
    /// Believes that the advert is valid at `now`.
    ///
    /// A reader that does not want to show its clock passes a
    /// [blurred](UnixSeconds::blurred) time.
    ///
    /// # Errors
    ///
    /// [`AdvertError::NotValidNow`].
    pub fn at(self, now: UnixSeconds) -> Result<Current<Advert>, AdvertError> {
        if !self.validity.contains(now) {
            return Err(AdvertError::NotValidNow {
                from: self.validity.from,
                until: self.validity.until,
            });
        }
        Ok(Current(self))
    }
}

/// The value that was read from `signed`, whose signature its author made.
pub(crate) fn signed_by_its_author<T: Signable>(value: T, signed: T::Signed) -> Authentic<T> {
    Authentic { value, signed }
}

impl<T: Signable> Current<T> {
    /// Its time was looked at.
    pub(crate) fn new(authentic: Authentic<T>) -> Self {
        Self(authentic)
    }

    /// Without its time.
    #[must_use]
    pub fn authentic(&self) -> &Authentic<T> {
        &self.0
    }
}

impl Current<Advert> {
    /// Believes that the advert is of the provider that answers at `endpoint`.
    ///
    /// # Errors
    ///
    /// [`AdvertError::OtherEndpoint`] if it does not name the endpoint.
    pub fn served_by(self, endpoint: &Endpoint) -> Result<Verified<Advert>, AdvertError> {
        if !self.endpoints.contains(endpoint) {
            return Err(AdvertError::OtherEndpoint);
        }
        Ok(Verified(self))
    }
}

impl<T: Signable> Verified<T> {
    /// Without time and place.
    #[must_use]
    pub fn authentic(&self) -> &Authentic<T> {
        self.0.authentic()
    }
}

impl<T: Signable> Deref for Authentic<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Signable> Deref for Current<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Signable> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Signable + Clone> Clone for Authentic<T>
where
    T::Signed: Clone,
{
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            signed: self.signed.clone(),
        }
    }
}

impl<T: Signable + Clone> Clone for Current<T>
where
    T::Signed: Clone,
{
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Signable + Clone> Clone for Verified<T>
where
    T::Signed: Clone,
{
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Signable> PartialEq for Authentic<T>
where
    T::Signed: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        self.signed == other.signed
    }
}

impl<T: Signable> PartialEq for Current<T>
where
    T::Signed: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Signable> PartialEq for Verified<T>
where
    T::Signed: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl PartialEq for SignedAdvert {
    fn eq(&self, other: &Self) -> bool {
        self.advert == other.advert
    }
}

impl Eq for SignedAdvert {}

impl fmt::Debug for SignedAdvert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedAdvert({} bytes)", self.advert.len())
    }
}

impl<T: Signable> fmt::Debug for Authentic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authentic([scrubbed])")
    }
}

impl<T: Signable> fmt::Debug for Current<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current([scrubbed])")
    }
}

impl<T: Signable> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verified([scrubbed])")
    }
}
