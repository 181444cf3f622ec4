//! Evidence that stands by itself: receipts with their adverts, proofs of
//! fraud and of equivocation, verdicts.
//!
//! Files and gossip carry these. A reader need not trust the sender: every value
//! is checked from its own bytes.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    Advert, AdvertError, ArbiterId, ArbiterKey, Authentic, Receipt, ReceiptError, Request,
    SignedAdvert, SignedReceipt, encode,
};

const VERDICT_DOMAIN: &[u8] = b"dlambda/verdict/v1";

/// A receipt and the advert that its key is in. Reveals neither input nor output.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ReceiptEvidence {
    /// The epoch's advert, signed by the provider's identity.
    #[n(0)]
    pub advert: SignedAdvert,
    /// The receipt, signed with the key in it.
    #[n(1)]
    pub receipt: SignedReceipt,
}

/// All that is needed to run a call again and compare: the function's bytes
/// are in the request. Reveals everything.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct FraudProof {
    /// What the provider signed.
    #[n(0)]
    pub evidence: ReceiptEvidence,
    /// The call, without its token, the function attached.
    #[n(1)]
    pub request: Request,
}

/// Two adverts of one provider that cannot both be what everybody was shown:
/// the way to tag callers. They differ and are of one epoch, or what they say
/// of an earlier epoch differs.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct EquivocationProof {
    /// One.
    #[n(0)]
    pub one: SignedAdvert,
    /// And another.
    #[n(1)]
    pub other: SignedAdvert,
}

/// A file of evidence.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum Evidence {
    /// A receipt.
    #[n(0)]
    Receipt(#[n(0)] ReceiptEvidence),
    /// A claim of fraud.
    #[n(1)]
    Fraud(#[n(0)] Box<FraudProof>),
    /// A claim of equivocation.
    #[n(2)]
    Equivocation(#[n(0)] EquivocationProof),
}

/// What an arbiter found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Finding {
    /// What the provider signed is not true.
    #[n(0)]
    ProviderAtFault,
    /// What the provider signed is true, or it did not sign it.
    #[n(1)]
    Unproven,
    /// It cannot be told.
    #[n(2)]
    NotDecidable,
}

/// An arbiter's word for those who trust it.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedVerdict {
    /// Whose word.
    #[n(0)]
    pub arbiter: ArbiterId,
    /// On what: see [`Evidence::digest`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub evidence: [u8; 32],
    /// The word.
    #[n(2)]
    pub finding: Finding,
    #[cbor(n(3), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// Why evidence says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// An advert in it was not made by the provider it names.
    #[error(transparent)]
    Advert(#[from] AdvertError),
    /// The receipt in it was not made by the provider.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The two adverts are one, or not of one provider, or agree.
    #[error("the two adverts do not contradict each other")]
    NoEquivocation,
}

impl Evidence {
    /// Names the evidence.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/evidence/v1\0");
        hash.update(encode(self));
        hash.finalize().into()
    }
}

impl ReceiptEvidence {
    /// What the provider signed, whenever that was.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] if it did not sign it.
    pub fn verify(&self) -> Result<(Authentic<Advert>, Receipt), EvidenceError> {
        let advert = self.advert.clone().authenticate()?;
        let receipt = self.receipt.verify(&advert)?;
        Ok((advert, receipt))
    }
}

impl EquivocationProof {
    /// The provider's two adverts, if they are what the proof says.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] if they are not.
    pub fn verify(&self) -> Result<(Authentic<Advert>, Authentic<Advert>), EvidenceError> {
        let one = self.one.clone().authenticate()?;
        let other = self.other.clone().authenticate()?;
        if one.contradicts(&other) {
            Ok((one, other))
        } else {
            Err(EvidenceError::NoEquivocation)
        }
    }
}

impl SignedVerdict {
    /// Signs a finding.
    #[must_use]
    pub fn sign(evidence: [u8; 32], finding: Finding, key: &ArbiterKey) -> Self {
        let arbiter = key.id();
        let signature = key.sign(VERDICT_DOMAIN, &verdict(&evidence, finding));
        Self {
            arbiter,
            evidence,
            finding,
            signature,
        }
    }

    /// Whether the arbiter named in it signed it.
    #[must_use]
    pub fn verify(&self) -> bool {
        let message = verdict(&self.evidence, self.finding);
        self.arbiter
            .verify(VERDICT_DOMAIN, &message, &self.signature)
    }
}

fn verdict(evidence: &[u8; 32], finding: Finding) -> Vec<u8> {
    let mut message = evidence.to_vec();
    message.extend(encode(&finding));
    message
}

macro_rules! scrubbed {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "([scrubbed])"))
            }
        }
    )*};
}

scrubbed!(
    EquivocationProof,
    Evidence,
    FraudProof,
    ReceiptEvidence,
    SignedVerdict
);
