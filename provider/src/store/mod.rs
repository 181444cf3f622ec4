//! The store: what a provider must not lose in a crash.
//!
//! It holds epochs and their secrets, contracts and grants, spent tokens, and
//! the provider's latest listing.
//! Everything is on disk before it is acknowledged. It holds no request, no
//! reply and no caller. Nothing in it links a token to a contract, so it does
//! not tell which contract's calls were made, nor when a token was spent.
//!
//! ```text
//! ledger.redb          the database
//! ledger.redb.seed-7   the secrets of epoch 7
//! ```
//!
//! No networking and no cryptography: signatures, proofs and tokens are
//! checked by the caller.

mod contracts;
mod epochs;
mod error;
mod file;
mod listings;
mod schema;
mod seeds;
mod spent;
mod transaction;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use dlambda_proto::{Epoch, RequestDigest};

#[cfg(test)]
pub(crate) use self::contracts::{ContractCounts, StoredGrant};
pub(crate) use self::epochs::{EpochRecord, EpochSecrets};
pub(crate) use self::error::StoreError;
use self::file::{Opener, StoreFile};
pub(crate) use self::listings::StoredListing;
pub(crate) use self::spent::SpendOutcome;
use self::writer::Writer;

/// The store, open. Clones share it.
///
/// The last clone to be dropped writes what was taken on, and closes the file:
/// that blocks for a commit or two.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: its thread uses the file.
    writer: Writer,
    file: Arc<StoreFile>,
}

impl Store {
    /// Opens the store at `path`, making it (mode 0600) if there is none. The
    /// directory is its owner's, and locked by it. After a crash it is
    /// repaired: all that was ever reported as durable is there.
    ///
    /// Blocks on the disk: for a blocking thread. It reads and verifies the
    /// whole file, and gives the space of past epochs back if that is most of
    /// it.
    ///
    /// # Errors
    ///
    /// [`StoreError`], naming the file, if it is damaged, no store, open to
    /// others or used by another process. Such a file is never replaced.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, file::file_opener())
    }

    /// Spends a token on a request. Of several copies, exactly one is told
    /// [`SpendOutcome::First`], and only when the token is spent on disk. That the
    /// token is good, and of an epoch still valid, is for the caller to check,
    /// before.
    ///
    /// Tokens are told apart by the first half of their nonce. Its owner chose
    /// it: an owner of two that begin alike has one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if too many wait, [`StoreError::UnknownEpoch`]
    /// if the epoch is not begun or over: the token is not spent. After an
    /// error of the disk it may be spent or not, but if it is, then on this
    /// request, which may come again.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the token may be spent or not, as after an error of the
    /// disk.
    pub(crate) async fn spend(
        &self,
        epoch: Epoch,
        nonce: &[u8; 32],
        request: &RequestDigest,
    ) -> Result<SpendOutcome, StoreError> {
        self.writer().spend(epoch, nonce, request).await
    }

    /// Closes the call that a token has paid for: from now on the token is
    /// [`SpendOutcome::Closed`], for the same request too. What the token was
    /// spent on is forgotten.
    ///
    /// Does not block, and is written with the next commit, or after about a
    /// second. In a crash, or when too much waits already, it is lost, which
    /// does no harm: the request could come again.
    pub(crate) fn close(&self, epoch: Epoch, nonce: &[u8; 32]) {
        if self.writer().close(epoch, nonce).is_err() {
            tracing::debug!("a call was left unclosed");
        }
    }

    /// How many tokens of an epoch are spent, closed ones included.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownEpoch`] if the epoch is not begun or over, or
    /// those of the disk.
    pub(crate) fn spent_count(&self, epoch: Epoch) -> Result<u64, StoreError> {
        let count = self.file().read(|transaction| {
            if !schema::epochs(transaction)?.contains(&epoch) {
                return Ok(None);
            }
            spent::count(transaction, epoch).map(Some)
        });
        count?.ok_or(StoreError::UnknownEpoch)
    }

    /// Returns when the thread that writes has ended, which it does not while
    /// a clone of the store is left: it panicked, and nothing can be written
    /// any more. Holds no clone.
    pub(crate) fn writer_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.writer().ended().cancelled_owned()
    }

    fn open_with(path: &Path, opener: Opener) -> Result<Self, StoreError> {
        let file = Arc::new(StoreFile::open(path, opener)?);
        let writer = Writer::start(Arc::clone(&file))?;
        Ok(Self {
            inner: Arc::new(Inner { writer, file }),
        })
    }

    fn file(&self) -> &StoreFile {
        &self.inner.file
    }

    fn writer(&self) -> &Writer {
        &self.inner.writer
    }
}
