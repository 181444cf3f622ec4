//! Tokens for calls: batched VOPRF on ristretto255, one proof for the batch.

use std::fmt;

use async_trait::async_trait;
use dlambda_proto::{BatchSize, CallKey, CallToken, Epoch, PlanName, ProviderId, TokenKeyId};
use futures::FutureExt as _;
use privacypass::amortized_tokens::server::Server;
use privacypass::amortized_tokens::{
    AmortizedBatchTokenRequest, AmortizedBatchTokenResponse, AmortizedToken, TokenState,
};
use privacypass::auth::authenticate::TokenChallenge;
use privacypass::common::private::{
    PublicKey, Scalar, deserialize_public_key, serialize_public_key,
};
use privacypass::common::store::PrivateKeyStore;
use privacypass::{
    Deserialize as _, Nonce, NonceStore, Serialize as _, TokenType, TruncatedTokenKeyId,
    VoprfServer,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use voprf::Ristretto255;
use zeroize::Zeroizing;

use super::{challenge, derive};
use crate::TokenError;

type Suite = Ristretto255;

/// Issues a plan's tokens of one epoch and recognises them. Erased from memory
/// when dropped.
pub struct CallIssuer {
    epoch: Epoch,
    plan: PlanName,
    keys: OneKey,
    public: [u8; 32],
    challenge_digest: [u8; 32],
}

/// Tokens that wait for their issuer's answer.
pub struct BlindedCalls {
    epoch: Epoch,
    state: TokenState<Suite>,
    count: usize,
    request: Vec<u8>,
}

/// Names a call key, as in RFC 9578.
#[must_use]
pub fn call_key_id(key: &[u8; 32]) -> TokenKeyId {
    TokenKeyId(Sha256::digest(key).into())
}

impl CallIssuer {
    /// The issuer that an epoch's secret seed stands for, for this plan
    /// (`DeriveKeyPair` of RFC 9497 section 3.2.1).
    ///
    /// # Errors
    ///
    /// [`TokenError::Unusable`] if no key can be derived, which does not happen.
    pub fn derive(
        seed: &[u8; 32],
        provider: &ProviderId,
        epoch: Epoch,
        plan: &PlanName,
    ) -> Result<Self, TokenError> {
        let info = format!("dlambda/call-tokens/v1 {plan}");
        let server = VoprfServer::new_from_seed(seed, info.as_bytes());
        let server = server.map_err(TokenError::unusable)?;
        let challenge = call_challenge(provider, epoch, plan);
        Self::with_server(server, &challenge, epoch, plan)
    }

    fn with_server(
        server: VoprfServer<Suite>,
        challenge: &TokenChallenge,
        epoch: Epoch,
        plan: &PlanName,
    ) -> Result<Self, TokenError> {
        let public = serialize_public_key::<Suite>(server.get_public_key());
        Ok(Self {
            epoch,
            plan: plan.clone(),
            keys: OneKey(server),
            public: public.try_into().map_err(TokenError::unusable)?,
            challenge_digest: challenge.digest().map_err(TokenError::unusable)?,
        })
    }

    /// The key to advertise.
    #[must_use]
    pub fn key(&self) -> CallKey {
        CallKey {
            plan: self.plan.clone(),
            key: self.public,
        }
    }

    /// Names the key.
    #[must_use]
    pub fn key_id(&self) -> TokenKeyId {
        call_key_id(&self.public)
    }

    /// Evaluates a batch of blinded tokens: some 55 µs each, and the proof.
    ///
    /// # Errors
    ///
    /// [`TokenError::Request`] unless it is a request for just so many tokens
    /// of this key.
    pub fn issue(&self, request: &[u8], batch: BatchSize) -> Result<Vec<u8>, TokenError> {
        let calls = usize::from(batch.calls());
        let mut rest = request;
        let parsed = AmortizedBatchTokenRequest::<Suite>::tls_deserialize(&mut rest)
            .map_err(TokenError::request)?;
        let ours = self.key_id().0[31];
        if !rest.is_empty() || parsed.nr() != calls || parsed.truncated_token_key_id() != ours {
            return Err(TokenError::Request);
        }
        let server = Server::<Suite>::with_max_batch_size(calls);
        let response = server
            .issue_token_response(&self.keys, parsed)
            .now_or_never()
            .ok_or(TokenError::Unusable)?
            .map_err(TokenError::request)?;
        response
            .tls_serialize_detached()
            .map_err(TokenError::unusable)
    }

    /// Whether this issuer made `token`: some 45 µs, in constant time.
    #[must_use]
    pub fn recognises(&self, token: &CallToken) -> bool {
        if token.epoch != self.epoch {
            return false;
        }
        let Ok(authenticator) = token.authenticator.as_slice().try_into() else {
            return false;
        };
        let token = AmortizedToken::<Suite>::new(
            TokenType::PrivateRistretto255,
            token.nonce,
            self.challenge_digest,
            self.key_id().0,
            authenticator,
        );
        let redeemed = Server::<Suite>::new()
            .redeem_token(&self.keys, &NotHere, token)
            .now_or_never();
        matches!(redeemed, Some(Ok(())))
    }
}

impl BlindedCalls {
    /// Makes and blinds a batch of tokens for an advertised key. The same seed
    /// gives the same tokens and the same request.
    ///
    /// # Errors
    ///
    /// [`TokenError::BadKey`] if the key is none.
    pub fn blind(
        key: &CallKey,
        provider: &ProviderId,
        epoch: Epoch,
        batch: BatchSize,
        seed: &[u8; 32],
    ) -> Result<Self, TokenError> {
        let public = deserialize_public_key::<Suite>(&key.key).map_err(TokenError::bad_key)?;
        let challenge = call_challenge(provider, epoch, &key.plan);
        let mut rng = ChaCha20Rng::from_seed(*derive(seed, "dlambda/call-tokens/v1", 0));
        let mut nonces = Vec::new();
        let mut blinds = Vec::new();
        for _ in 0..batch.calls() {
            let mut nonce = Nonce::default();
            rng.fill_bytes(&mut nonce);
            let mut wide = Zeroizing::new([0; 64]);
            rng.fill_bytes(&mut *wide);
            nonces.push(nonce);
            blinds.push(Scalar::<Suite>::from_bytes_mod_order_wide(&wide));
        }
        Self::blind_with(public, &challenge, nonces, blinds, epoch)
    }

    pub(super) fn blind_with(
        public: PublicKey<Suite>,
        challenge: &TokenChallenge,
        nonces: Vec<Nonce>,
        blinds: Vec<Scalar<Suite>>,
        epoch: Epoch,
    ) -> Result<Self, TokenError> {
        let count = nonces.len();
        let (request, state) = AmortizedBatchTokenRequest::issue_token_request_with_params(
            public, challenge, nonces, blinds,
        )
        .map_err(TokenError::bad_key)?;
        let request = request
            .tls_serialize_detached()
            .map_err(TokenError::unusable)?;
        Ok(Self {
            epoch,
            state,
            count,
            request,
        })
    }

    /// What the issuer is to evaluate.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Checks the issuer's proof and unblinds.
    ///
    /// # Errors
    ///
    /// [`TokenError::Proof`] if the answer is not that of the advertised key
    /// for every single token.
    pub fn unblind(self, response: &[u8]) -> Result<Vec<CallToken>, TokenError> {
        let tokens = self.finish(response)?;
        tokens
            .into_iter()
            .map(|token| {
                Ok(CallToken {
                    epoch: self.epoch,
                    nonce: token.nonce(),
                    authenticator: token
                        .authenticator()
                        .try_into()
                        .map_err(TokenError::unusable)?,
                })
            })
            .collect()
    }

    pub(super) fn finish(&self, response: &[u8]) -> Result<Vec<AmortizedToken<Suite>>, TokenError> {
        let mut rest = response;
        let response = AmortizedBatchTokenResponse::<Suite>::tls_deserialize(&mut rest)
            .map_err(TokenError::proof)?;
        if !rest.is_empty() {
            return Err(TokenError::Proof);
        }
        let tokens = response
            .issue_tokens(&self.state)
            .map_err(TokenError::proof)?;
        if tokens.len() == self.count {
            Ok(tokens)
        } else {
            Err(TokenError::Proof)
        }
    }
}

fn call_challenge(provider: &ProviderId, epoch: Epoch, plan: &PlanName) -> TokenChallenge {
    let kind = TokenType::PrivateRistretto255;
    challenge(kind, provider, epoch, &format!("call {plan}"))
}

/// A store of one key, whatever is asked for: the caller has chosen already.
struct OneKey(VoprfServer<Suite>);

#[async_trait]
impl PrivateKeyStore for OneKey {
    type CS = Suite;

    async fn insert(&self, _: TruncatedTokenKeyId, _: VoprfServer<Suite>) -> bool {
        false
    }

    async fn get(&self, _: &TruncatedTokenKeyId) -> Option<VoprfServer<Suite>> {
        Some(self.0.clone())
    }

    async fn remove(&self, _: &TruncatedTokenKeyId) -> bool {
        false
    }
}

/// Spent tokens are remembered elsewhere, durably.
pub(super) struct NotHere;

#[async_trait]
impl NonceStore for NotHere {
    async fn reserve(&self, _: &Nonce) -> bool {
        true
    }

    async fn commit(&self, _: &Nonce) {}

    async fn release(&self, _: &Nonce) {}
}

#[cfg(test)]
impl CallIssuer {
    /// With the very key and challenge of a test vector.
    pub(super) fn of_vector(secret: &[u8], challenge: &TokenChallenge) -> Self {
        let server = VoprfServer::new_with_key(secret).expect("a key");
        let plan = "small".parse().expect("a name");
        Self::with_server(server, challenge, Epoch(0), &plan).expect("usable")
    }
}

impl fmt::Debug for CallIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallIssuer({:?}, {}, [scrubbed])", self.epoch, self.plan)
    }
}

impl fmt::Debug for BlindedCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlindedCalls([scrubbed])")
    }
}
