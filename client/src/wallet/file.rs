//! What a contract's file holds.
//!
//! ```text
//! file   = [format: 1, record: bytes, SHA-256(record): bytes]    canonical CBOR
//! record = canonical CBOR of a Record
//! ```
//!
//! The checksum is against bad disks: one flipped bit could make a spent token
//! fresh, and spending it twice would link two calls.

use dlambda_proto::{
    CallToken, Contract, ContractId, Endpoint, RatingToken, SignedAdvert, SignedContract,
    UnixSeconds, decode, encode,
};
use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::lock::LeaseId;

/// Longest file, in bytes. The longest that an honest provider and we can
/// make, with all functions in two adverts and 128 tokens, is under 170 KiB.
pub(super) const MAX_FILE: usize = 256 << 10;

const FORMAT: u8 = 1;
const CALL_DOMAIN: &[u8] = b"dlambda/wallet-call/v1\0";

/// A contract, proposed or concluded.
#[derive(Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) struct Record {
    /// Where it was proposed.
    #[n(0)]
    pub(super) endpoint: Endpoint,
    /// The advert it was made under.
    #[n(1)]
    pub(super) advert: SignedAdvert,
    #[n(2)]
    pub(super) contract: Contract,
    #[n(3)]
    pub(super) stage: Stage,
}

#[derive(Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) enum Stage {
    /// Proposed; the answer is not known.
    #[n(0)]
    Draft {
        #[cbor(n(0), with = "minicbor::bytes")]
        seed: [u8; 32],
        #[cbor(n(1), with = "minicbor::bytes")]
        invitation: Option<[u8; 32]>,
    },
    /// Granted, and signed by us.
    #[n(1)]
    Signed(#[n(0)] Box<Holdings>),
}

/// What a concluded contract gave us.
#[derive(Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) struct Holdings {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) provider_signature: [u8; 64],
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) client_signature: [u8; 64],
    /// Whether the provider is known to have our signature.
    #[n(2)]
    pub(super) confirmed: bool,
    /// One for each call.
    #[n(3)]
    pub(super) slots: Vec<Slot>,
    /// The rating tokens that are left.
    #[n(4)]
    pub(super) ratings: Vec<Rating>,
    /// What the provider showed on another circuit since, when that vouched for
    /// the advert of the contract. Without it no token is given out.
    #[n(5)]
    pub(super) seen: Option<SignedAdvert>,
}

/// A call token's place.
#[derive(Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) enum Slot {
    #[n(0)]
    Fresh(#[n(0)] CallToken),
    /// In use, or interrupted if its owner is gone.
    #[n(1)]
    Taken {
        #[n(0)]
        token: CallToken,
        /// The request's seed.
        #[cbor(n(1), with = "minicbor::bytes")]
        seed: [u8; 32],
        /// What it was taken for: [`call_tag`].
        #[cbor(n(2), with = "minicbor::bytes")]
        call: [u8; 32],
        /// Who has it; none if it was given back after it may have been sent.
        #[n(3)]
        owner: Option<LeaseId>,
        /// When it was first taken; unknown in files of older programs.
        #[n(4)]
        since: Option<UnixSeconds>,
    },
    /// The token is erased: a wallet that is seized must not tell which of a
    /// provider's calls were its owner's.
    #[n(2)]
    Spent,
}

/// A rating token and the seed of the one-time key it is bound to.
#[derive(Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) struct Rating {
    #[n(0)]
    pub(super) token: RatingToken,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) seed: [u8; 32],
}

/// Says for which call a token was taken to a process that knows the call. Salted by
/// the seed, so that two wallets' files cannot be compared.
pub(super) fn call_tag(seed: &[u8; 32], call: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(CALL_DOMAIN);
    hash.update(seed);
    hash.update(call);
    hash.finalize().into()
}

impl Record {
    /// Whether its call tokens are good no more.
    pub(super) fn is_over(&self, now: UnixSeconds) -> bool {
        self.contract.validity.until <= now
    }

    pub(super) fn holdings(&self) -> Option<&Holdings> {
        match &self.stage {
            Stage::Draft { .. } => None,
            Stage::Signed(holdings) => Some(holdings),
        }
    }

    pub(super) fn holdings_mut(&mut self) -> Option<&mut Holdings> {
        match &mut self.stage {
            Stage::Draft { .. } => None,
            Stage::Signed(holdings) => Some(holdings),
        }
    }

    pub(super) fn signed(&self) -> Option<SignedContract> {
        self.holdings().map(|holdings| SignedContract {
            contract: self.contract.clone(),
            provider_signature: holdings.provider_signature,
            client_signature: holdings.client_signature,
        })
    }

    /// The file's bytes.
    pub(super) fn to_file(&self) -> Zeroizing<Vec<u8>> {
        let record = Zeroizing::new(encode(self));
        let checksum = Sha256::digest(&*record).into();
        let record = ByteString(record);
        Zeroizing::new(encode(&Framed(FORMAT, record, checksum)))
    }

    /// Reads a file that is named by `id`. The error says what is wrong with it.
    pub(super) fn from_file(bytes: &[u8], id: &ContractId) -> Result<Self, &'static str> {
        let Framed(format, ByteString(record), checksum) =
            decode(bytes).map_err(|_| "it is no contract's file, or damaged")?;
        if format != FORMAT {
            return Err("it was written by another version of this program");
        }
        if <[u8; 32]>::from(Sha256::digest(&*record)) != checksum {
            return Err("it is damaged");
        }
        let record: Self = decode(&record).map_err(|_| "it holds no contract")?;
        if record.contract.id() != *id {
            return Err("its name is another contract's");
        }
        let calls = usize::from(record.contract.calls.calls());
        let ratings = usize::from(record.contract.calls.ratings());
        let in_bounds = |holdings: &Holdings| {
            holdings.slots.len() == calls && holdings.ratings.len() <= ratings
        };
        if !record.holdings().is_none_or(in_bounds) {
            return Err("it has another number of tokens than the contract");
        }
        Ok(record)
    }
}

/// Format, record, checksum. The same in all formats.
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Framed(
    #[n(0)] u8,
    #[n(1)] ByteString,
    #[cbor(n(2), with = "minicbor::bytes")] [u8; 32],
);

/// Bytes that are erased from memory.
struct ByteString(Zeroizing<Vec<u8>>);

impl<C> Encode<C> for ByteString {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<C> CborLen<C> for ByteString {
    fn cbor_len(&self, ctx: &mut C) -> usize {
        minicbor::bytes::cbor_len(&*self.0, ctx)
    }
}

impl<'b, C> Decode<'b, C> for ByteString {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.bytes().map(|bytes| Self(Zeroizing::new(bytes.to_vec())))
    }
}
