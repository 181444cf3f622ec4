//! Tokens for ratings: blind RSA-2048 (RFC 9474, RFC 9578 section 6).

use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use blind_rsa_signatures::{
    Deterministic, KeyPair as GenericKeyPair, PSS, SecretKey as GenericSecretKey, Sha384,
};
use dlambda_proto::{
    BatchSize, Epoch, ProviderId, RatingKey, RatingKeyId, RatingToken, TokenKeyId,
};
use futures::FutureExt as _;
use privacypass::auth::authenticate::TokenChallenge;
use privacypass::public_tokens::server::{
    IssuerKeyStore, IssuerServer, OriginKeyStore, OriginServer, serialize_public_key,
};
use privacypass::public_tokens::{PublicKey, PublicToken, TokenRequest, TokenResponse, TokenState};
use privacypass::{Deserialize as _, Serialize as _, TokenType, TruncatedTokenKeyId};
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng as _, SeedableRng as _, TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::call::NotHere;
use super::{RSA, challenge, derive};
use crate::TokenError;

type KeyPair = GenericKeyPair<Sha384, PSS, Deterministic>;
type SecretKey = GenericSecretKey<Sha384, PSS, Deterministic>;

/// A rating token, and the seed of the one-time key that it is bound to.
pub type BoundRating = (RatingToken, Zeroizing<[u8; 32]>);

/// Bytes of a `TokenRequest`: type, truncated key id, blinded message.
const REQUEST: usize = 2 + 1 + RSA;

/// Issues the rating tokens of one epoch.
pub struct RatingIssuer {
    keys: OneKey,
    public: Vec<u8>,
}

/// Rating tokens that wait for their issuer's answer.
pub struct BlindedRatings {
    epoch: Epoch,
    states: Vec<(TokenState, Zeroizing<[u8; 32]>)>,
    request: Vec<u8>,
}

/// Names a rating key, as in RFC 9578.
#[must_use]
pub fn rating_key_id(key: &[u8]) -> TokenKeyId {
    TokenKeyId(Sha256::digest(key).into())
}

/// Whether the provider that advertised `key` for `epoch` issued `token`.
#[must_use]
pub fn verify_rating(key: &[u8], provider: &ProviderId, token: &RatingToken) -> bool {
    let verify = || {
        let challenge = rating_challenge(provider, token.epoch);
        let token = PublicToken::new(
            TokenType::Public,
            *token.key.as_bytes(),
            challenge.digest().ok()?,
            rating_key_id(key).0,
            token.authenticator.as_slice().try_into().ok()?,
        );
        let keys = OnePublicKey(PublicKey::from_spki(key).ok()?);
        OriginServer::new()
            .redeem_token(&keys, &NotHere, token)
            .now_or_never()
    };
    matches!(verify(), Some(Ok(())))
}

impl RatingIssuer {
    /// A fresh key. Takes a good part of a second.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unusable`] if the library makes none.
    pub fn generate(rng: &mut impl CryptoRng) -> Result<Self, TokenError> {
        let store = Made(Mutex::new(None));
        IssuerServer::new()
            .create_keypair(rng, &store)
            .now_or_never()
            .ok_or(TokenError::Unusable)?
            .map_err(TokenError::unusable)?;
        let pair = store.0.into_inner().ok().flatten();
        let pair = pair.ok_or(TokenError::Unusable)?;
        let public = serialize_public_key(&pair.pk).map_err(TokenError::unusable)?;
        Ok(Self {
            keys: OneKey(pair),
            public,
        })
    }

    /// The secret key, to be read again by [`RatingIssuer::from_secret`].
    ///
    /// # Errors
    ///
    /// [`TokenError::Unusable`] if the library cannot write it.
    pub fn secret(&self) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        let secret = self.keys.0.sk.to_der().map_err(TokenError::unusable)?;
        Ok(Zeroizing::new(secret))
    }

    /// The issuer whose [`RatingIssuer::secret`] this is.
    ///
    /// # Errors
    ///
    /// [`TokenError::BadKey`] if it is none.
    pub fn from_secret(secret: &[u8]) -> Result<Self, TokenError> {
        let sk = SecretKey::from_der(secret).map_err(TokenError::bad_key)?;
        let pk = sk.public_key().map_err(TokenError::bad_key)?;
        let public = serialize_public_key(&pk).map_err(TokenError::bad_key)?;
        Ok(Self {
            keys: OneKey(KeyPair { pk, sk }),
            public,
        })
    }

    /// The key to advertise: a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.public
    }

    /// Signs a batch of blinded tokens: some 2 ms each.
    ///
    /// # Errors
    ///
    /// [`TokenError::Request`] unless it is a request for just so many tokens
    /// of this key.
    pub fn issue(&self, request: &[u8], batch: BatchSize) -> Result<Vec<u8>, TokenError> {
        if request.len() != usize::from(batch.ratings()) * REQUEST {
            return Err(TokenError::Request);
        }
        let ours = rating_key_id(&self.public).0[31];
        let mut signatures = Vec::with_capacity(usize::from(batch.ratings()) * RSA);
        for one in request.chunks_exact(REQUEST) {
            let parsed = TokenRequest::tls_deserialize(&mut &*one);
            let parsed = parsed.map_err(TokenError::request)?;
            if one[2] != ours {
                return Err(TokenError::Request);
            }
            let response = IssuerServer::new()
                .issue_token_response(&self.keys, parsed)
                .now_or_never()
                .ok_or(TokenError::Unusable)?
                .map_err(TokenError::request)?;
            let bytes = response.tls_serialize_detached();
            signatures.extend(bytes.map_err(TokenError::unusable)?);
        }
        Ok(signatures)
    }
}

impl BlindedRatings {
    /// Makes and blinds a batch of rating tokens for an advertised key, each
    /// bound to a one-time key of its own. The same seed gives the same.
    ///
    /// # Errors
    ///
    /// [`TokenError::BadKey`] if the key is no RSA-2048 key of RFC 9578.
    pub fn blind(
        key: &[u8],
        provider: &ProviderId,
        epoch: Epoch,
        batch: BatchSize,
        seed: &[u8; 32],
    ) -> Result<Self, TokenError> {
        let public = PublicKey::from_spki(key).map_err(TokenError::bad_key)?;
        // The library takes larger keys, whose answers would not fit.
        let canonical = serialize_public_key(&public).map_err(TokenError::bad_key)?;
        if public.components().n().len() != RSA || canonical != key {
            return Err(TokenError::BadKey);
        }
        let challenge = rating_challenge(provider, epoch);
        let mut states = Vec::new();
        let mut request = Vec::new();
        for index in 0..batch.ratings() {
            let secret = derive(seed, "dlambda/rating-key/v1", index);
            let blinding = derive(seed, "dlambda/rating-tokens/v1", index);
            let mut rng = NonceFirst {
                nonce: Some(*RatingKey::from_seed(&secret).id().as_bytes()),
                rest: ChaCha20Rng::from_seed(*blinding),
            };
            let (one, state) = TokenRequest::new(&mut rng, public.clone(), &challenge)
                .map_err(TokenError::bad_key)?;
            let one = one.tls_serialize_detached();
            request.extend(one.map_err(TokenError::unusable)?);
            states.push((state, secret));
        }
        Ok(Self {
            epoch,
            states,
            request,
        })
    }

    /// What the issuer is to sign.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Unblinds and checks every signature. Each token comes with the seed of
    /// the one-time key that it is bound to.
    ///
    /// # Errors
    ///
    /// [`TokenError::Proof`] if one is not the advertised key's.
    pub fn unblind(self, response: &[u8]) -> Result<Vec<BoundRating>, TokenError> {
        if response.len() != self.states.len() * RSA {
            return Err(TokenError::Proof);
        }
        let signed = self.states.into_iter().zip(response.chunks_exact(RSA));
        signed
            .map(|((state, secret), mut bytes)| {
                let response = TokenResponse::tls_deserialize(&mut bytes);
                let token = response
                    .map_err(TokenError::proof)?
                    .issue_token(&state)
                    .map_err(TokenError::proof)?;
                let token = RatingToken {
                    epoch: self.epoch,
                    key: RatingKeyId::from_bytes(token.nonce()),
                    authenticator: token.authenticator().to_vec(),
                };
                Ok((token, secret))
            })
            .collect()
    }
}

fn rating_challenge(provider: &ProviderId, epoch: Epoch) -> TokenChallenge {
    challenge(TokenType::Public, provider, epoch, "rating")
}

/// Gives out the nonce that we want, and then random bytes: the token's nonce
/// is the public half of the key that will sign the rating.
struct NonceFirst {
    nonce: Option<[u8; 32]>,
    rest: ChaCha20Rng,
}

impl TryRng for NonceFirst {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.rest.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.rest.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        match self.nonce.take() {
            Some(nonce) if nonce.len() == out.len() => out.copy_from_slice(&nonce),
            _ => self.rest.fill_bytes(out),
        }
        Ok(())
    }
}

impl TryCryptoRng for NonceFirst {}

struct OneKey(KeyPair);

struct OnePublicKey(PublicKey);

/// Receives the key that the library makes.
struct Made(Mutex<Option<KeyPair>>);

#[async_trait]
impl IssuerKeyStore for OneKey {
    async fn insert(&self, _: TruncatedTokenKeyId, _: KeyPair) -> bool {
        false
    }

    async fn get(&self, _: &TruncatedTokenKeyId) -> Option<KeyPair> {
        Some(self.0.clone())
    }

    async fn remove(&self, _: &TruncatedTokenKeyId) -> bool {
        false
    }
}

#[async_trait]
impl IssuerKeyStore for Made {
    async fn insert(&self, _: TruncatedTokenKeyId, pair: KeyPair) -> bool {
        self.0.lock().map(|mut made| *made = Some(pair)).is_ok()
    }

    async fn get(&self, _: &TruncatedTokenKeyId) -> Option<KeyPair> {
        None
    }

    async fn remove(&self, _: &TruncatedTokenKeyId) -> bool {
        false
    }
}

#[async_trait]
impl OriginKeyStore for OnePublicKey {
    async fn insert(&self, _: TruncatedTokenKeyId, _: PublicKey) {}

    async fn get(&self, _: &TruncatedTokenKeyId) -> Vec<PublicKey> {
        vec![self.0.clone()]
    }

    async fn remove(&self, _: &TruncatedTokenKeyId) -> bool {
        false
    }
}

impl fmt::Debug for RatingIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RatingIssuer([scrubbed])")
    }
}

impl fmt::Debug for BlindedRatings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindedRatings([scrubbed])")
    }
}
