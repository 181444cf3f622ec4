//! Where a client keeps its keys, its gateway and its reply blocks.
//!
//! Keys and gateway are on disk for a provider and in memory for a caller.
//! Reply blocks and sender tags are a record of who called whom, and are in
//! memory for both; a message that waited at the gateway while the provider
//! was away brings its own. Being ours, they can be counted and forgotten.

use std::convert::Infallible;
use std::path::Path;

use async_trait::async_trait;
use nym_sdk::mixnet::{
    CombinedReplyStorage, Ephemeral, EphemeralCredentialStorage, GatewaysDetailsStore,
    InMemEphemeralKeys, KeyStore, MixnetClientStorage, OnDiskKeys, OnDiskPersistent,
    ReplyStorageBackend, StoragePaths,
};
use rand::rngs::OsRng;
use time::OffsetDateTime;

use crate::error::Trouble;

/// Reply blocks that a provider keeps back of those that one caller sent, to
/// ask for more. With the SDK's own reserve of 10 or 20, every first answer
/// waits for more; with 0, a long answer spends the last and never arrives.
pub(crate) const RESERVE: usize = 2;

/// Reply blocks of one caller beyond which a provider asks for no more.
const ENOUGH: usize = 200;

/// A client's storage.
#[derive(Clone)]
pub(crate) struct Storage<K, G> {
    keys: K,
    gateways: G,
    credentials: EphemeralCredentialStorage,
    replies: Replies,
}

/// Storage of a client that is used once.
pub(crate) type InMemory =
    Storage<InMemEphemeralKeys, <Ephemeral as MixnetClientStorage>::GatewaysDetailsStore>;

/// Storage of a client that keeps its address.
pub(crate) type OnDisk =
    Storage<OnDiskKeys, <OnDiskPersistent as MixnetClientStorage>::GatewaysDetailsStore>;

/// Reply blocks and tags, in memory. Clones share them.
#[derive(Clone)]
pub(crate) struct Replies(pub(crate) CombinedReplyStorage);

impl Replies {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(CombinedReplyStorage::new(RESERVE, ENOUGH))
    }
}

impl InMemory {
    /// A new identity.
    pub(crate) fn new() -> Self {
        Self {
            keys: InMemEphemeralKeys::new(&mut OsRng),
            gateways: Default::default(),
            credentials: Default::default(),
            replies: Replies::new(),
        }
    }
}

impl OnDisk {
    /// The identity in a directory, which may be empty.
    pub(crate) async fn open(directory: &Path, replies: Replies) -> Result<Self, Trouble> {
        let paths = StoragePaths::new_from_dir(directory)?;
        Ok(Self {
            keys: paths.on_disk_key_storage_spec(),
            gateways: paths.on_disk_gateway_details_storage().await?,
            credentials: Default::default(),
            replies,
        })
    }

    /// Whether a gateway was chosen.
    pub(crate) async fn has_gateway(&self) -> Result<bool, Trouble> {
        let known = self.gateways.all_gateways_identities().await;
        Ok(!known.map_err(|_| Trouble::Storage)?.is_empty())
    }

    /// Forgets the gateway, so that another is chosen.
    pub(crate) async fn forget_gateways(&self) -> Result<(), Trouble> {
        let known = self.gateways.all_gateways_identities().await;
        for gateway in known.map_err(|_| Trouble::Storage)? {
            let name = gateway.to_base58_string();
            let forgotten = self.gateways.remove_gateway_details(&name);
            forgotten.await.map_err(|_| Trouble::Storage)?;
        }
        Ok(())
    }
}

impl<K, G> Storage<K, G> {
    /// The reply blocks of the client that is built with this.
    pub(crate) fn replies(&self) -> Replies {
        self.replies.clone()
    }
}

impl<K: KeyStore, G: GatewaysDetailsStore> MixnetClientStorage for Storage<K, G> {
    type KeyStore = K;
    type ReplyStore = Replies;
    type CredentialStore = EphemeralCredentialStorage;
    type GatewaysDetailsStore = G;

    fn into_runtime_stores(self) -> (Replies, EphemeralCredentialStorage, G) {
        (self.replies, self.credentials, self.gateways)
    }

    fn key_store(&self) -> &K {
        &self.keys
    }

    fn reply_store(&self) -> &Replies {
        &self.replies
    }

    fn credential_store(&self) -> &EphemeralCredentialStorage {
        &self.credentials
    }

    fn gateway_details_store(&self) -> &G {
        &self.gateways
    }
}

#[async_trait]
impl ReplyStorageBackend for Replies {
    type StorageError = Infallible;

    async fn flush_surb_storage(&mut self, _: &CombinedReplyStorage) -> Result<(), Infallible> {
        Ok(())
    }

    async fn init_fresh(&mut self, _: &CombinedReplyStorage) -> Result<(), Infallible> {
        Ok(())
    }

    async fn load_surb_storage(
        &self,
        _: OffsetDateTime,
    ) -> Result<CombinedReplyStorage, Infallible> {
        Ok(self.0.clone())
    }
}
