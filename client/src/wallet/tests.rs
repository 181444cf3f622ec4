mod disk;
mod issuance;
mod kill;
mod ratings;
mod reserving;
mod sharing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dlambda_proto::{
    Admission, Advert, BatchSize, CallKey, CallToken, Contract, ContractId, ContractKey, Cpu,
    Endpoint, Epoch, IdentityKey, OnionAddress, Payment, PaymentMethod, Plan, PlanName, RatingKey,
    RatingToken, ReceiptKey, ServiceTerms, SignedContract, Specs, Technology, TokenKeyId,
    UnixSeconds, Validity,
};
use tempfile::TempDir;

use super::{ContractSummary, Draft, ReservedToken, Resuming, TokenQuery, Wallet};

const NOW: UnixSeconds = UnixSeconds(1_500);

/// A directory that is gone afterwards.
struct Place {
    _temp: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("wallets").join("network");
        Self { _temp: temp, path }
    }

    /// Waits as long as it takes: a slow disk fails no test.
    fn open(&self) -> Wallet {
        open(&self.path)
    }

    fn file(&self, id: &ContractId) -> PathBuf {
        self.path.join(hex::encode(id.0))
    }
}

fn open(path: &Path) -> Wallet {
    Wallet::open_with_patience(path, Duration::from_secs(600)).expect("opens")
}

/// What a contract is like; the number makes it different from all others.
#[derive(Clone, Copy)]
struct Like {
    number: u8,
    provider: u8,
    epoch: u64,
    plan: usize,
    calls: BatchSize,
    until: u64,
}

const USUAL: Like = Like {
    number: 1,
    provider: 1,
    epoch: 3,
    plan: 0,
    calls: BatchSize::Calls8,
    until: 2_000,
};

impl Like {
    fn validity(self) -> Validity {
        Validity {
            from: UnixSeconds(1_000),
            until: UnixSeconds(self.until),
        }
    }

    fn advert(self) -> Advert {
        let plans = Plan::standard_menu();
        let key = |plan: &Plan| CallKey {
            plan: plan.name.clone(),
            key: [6; 32],
        };
        Advert {
            provider: self.identity().id(),
            epoch: Epoch(self.epoch),
            validity: Validity {
                from: UnixSeconds(1_000),
                until: UnixSeconds(80_000),
            },
            period: Validity {
                from: UnixSeconds(1_000),
                until: UnixSeconds(1_000 + Advert::MIN_EPOCH_SECONDS),
            },
            endpoints: vec![endpoint(self.provider)],
            specs: Specs {
                cpu: Cpu {
                    cores: 2,
                    architecture: "x86_64".into(),
                },
                memory: 1024,
                gpu: vec![],
                tee: None,
                gpu_vram_mib: 0,
                region: None,
            },
            functions: vec![],
            max_function_bytes: 1 << 20,
            receipt_key: ReceiptKey::from_seed(&[2; 32]).id(),
            call_keys: plans.iter().map(key).collect(),
            plans,
            rating_key: vec![7; 300],
            tokens: self.validity(),
            admission: Admission::Open,
            service: ServiceTerms {
                start_within_ms: 1000,
            },
            history: vec![],
        }
    }

    fn identity(self) -> IdentityKey {
        IdentityKey::from_seed(&[self.provider; 32])
    }

    fn key(self) -> ContractKey {
        ContractKey::from_seed(&[self.number; 32])
    }

    fn draft(self) -> Draft {
        let identity = self.identity();
        Draft {
            endpoint: endpoint(self.provider),
            advert: self.advert().sign(&identity).expect("signs"),
            contract: Contract {
                provider: identity.id(),
                client: self.key().id(),
                epoch: Epoch(self.epoch),
                plan: Plan::standard_menu().remove(self.plan),
                calls: self.calls,
                payment: Payment {
                    total: 0,
                    method: PaymentMethod::Gratis,
                },
                service: ServiceTerms {
                    start_within_ms: 1000,
                },
                technology: Technology {
                    deterministic: true,
                    tee: None,
                },
                validity: self.validity(),
                call_key: TokenKeyId([1; 32]),
                rating_key: TokenKeyId([2; 32]),
            },
            seed: [self.number; 32],
            invitation: Some([9; 32]),
        }
    }

    fn id(self) -> ContractId {
        self.draft().contract.id()
    }

    fn signed(self) -> SignedContract {
        let contract = self.draft().contract;
        let provider_signature = contract.sign(&self.identity());
        let client_signature = contract.countersign(&provider_signature, &self.key());
        SignedContract {
            contract,
            provider_signature,
            client_signature,
        }
    }

    fn tokens(self) -> Vec<CallToken> {
        let token = |index: u16| {
            let [high, low] = index.to_be_bytes();
            let mut nonce = [self.number; 32];
            (nonce[30], nonce[31]) = (high, low);
            CallToken {
                epoch: Epoch(self.epoch),
                nonce,
                authenticator: [0xaa; 64],
            }
        };
        (0..self.calls.calls()).map(token).collect()
    }

    fn ratings(self) -> Vec<(RatingToken, [u8; 32])> {
        let rating = |index: u16| {
            let seed = [u8::try_from(index).expect("few"); 32];
            let token = RatingToken {
                epoch: Epoch(self.epoch),
                key: RatingKey::from_seed(&seed).id(),
                authenticator: vec![0xbb; 256],
            };
            (token, seed)
        };
        (0..self.calls.ratings()).map(rating).collect()
    }

    /// Puts the contract and its tokens into the wallet.
    fn buy(self, wallet: &Wallet) {
        wallet.begin(&self.draft()).expect("begins");
        wallet
            .complete(&self.id(), self.signed(), self.tokens(), self.ratings())
            .expect("completes");
        wallet.confirmed(&self.id()).expect("confirms");
        let shown = self.draft().advert.authenticate().expect("authentic");
        wallet.checked(&self.id(), &shown).expect("checks");
    }
}

fn endpoint(provider: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([provider; 32]))
}

fn plan(index: usize) -> PlanName {
    Plan::standard_menu().remove(index).name
}

/// The call of this number, to the usual provider on its default plan.
fn call(number: u8) -> TokenQuery {
    TokenQuery {
        endpoint: endpoint(1),
        plan: None,
        provider: None,
        call: [number; 32],
        now: NOW,
        valid_at: NOW,
        resuming: Resuming::Soon,
    }
}

fn take(wallet: &Wallet, number: u8) -> ReservedToken {
    let taken = wallet.reserve(&call(number)).expect("takes");
    taken.expect("there is a token")
}

/// Fresh, in use, interrupted and spent tokens of the only contract.
fn counts(wallet: &Wallet) -> [usize; 4] {
    let it = only(wallet);
    [it.fresh, it.in_use, it.interrupted, it.spent]
}

fn only(wallet: &Wallet) -> ContractSummary {
    let listing = wallet.contracts(NOW).expect("lists");
    assert!(listing.damaged.is_empty());
    let [contract] = <[_; 1]>::try_from(listing.contracts).expect("one contract");
    contract
}
