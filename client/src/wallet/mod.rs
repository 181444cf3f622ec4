//! The wallet: contracts and call tokens on disk, shared by several processes.
//!
//! ```text
//! begin -> (proposal is sent) -> complete -> (confirmation is sent) -> confirmed
//!                             \> abandon   \> (another circuit is looked at) -> checked
//! reserve -> (call is sent) -> commit | release | dropped: interrupted
//! reserve_rating -> (rating is made) -> release | dropped: gone
//! ```
//!
//! # The privacy rule
//!
//! A token that may have been sent is never used for another request: the
//! provider would link the two calls. Nor is it lost: when the same call is
//! made again while the provider keeps the answer, the token comes back with the
//! seed of the first request, which makes the second the same bit for bit, and
//! the provider answers it without billing it twice. Later it would only show
//! that the same caller is there again: so it comes back on request only.
//!
//! A token is not given out before the provider's keys were seen on a second
//! circuit: keys that were made for one buyer would say whose token it is.
//!
//! # On disk
//!
//! A directory for its owner alone: a file for each contract (`file.rs`), a
//! lock for the directory and a sign of life of each open wallet (`lock.rs`).
//! A file is replaced whole, and is on disk before the network hears of what is
//! in it. A process may be killed at any point.
//!
//! **A copy of the directory must never be put back**: tokens spent since the
//! copy would be fresh again. The same goes for two machines with one wallet.
//!
//! Every method waits for files and locks: it belongs on a thread that may
//! block. It gives up ([`WalletError::Busy`]) when another process has had the
//! directory for 10 seconds.
//!
//! # Not here
//!
//! No network and no cryptography of tokens; nothing reads the time.

mod contracts;
mod error;
mod file;
mod holdings;
mod listing;
mod lock;
mod ratings;
mod reserve;
mod store;
#[cfg(test)]
mod tests;
mod token;

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlambda_proto::ContractId;

pub use contracts::{Draft, Unchecked, Unconfirmed};
pub use error::WalletError;
pub use holdings::Held;
pub use listing::{ContractStage, ContractSummary, Listing};
pub use ratings::ReservedRating;
pub use reserve::{Resuming, TokenQuery};
pub use token::ReservedToken;

use lock::{DirGuard, DirLock, Lease, LeaseId};
use store::Store;

/// A caller's contracts and call tokens. Clones are the same wallet; the
/// directory may be open any number of times, in any number of processes.
#[derive(Clone)]
pub struct Wallet {
    shared: Arc<Shared>,
}

impl Wallet {
    /// Opens the directory, creating it if need be, with mode 0700. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if others could read or change the directory, or
    /// it cannot be used; [`WalletError::Busy`].
    pub fn open(dir: &Path) -> Result<Self, WalletError> {
        Self::open_with_patience(dir, lock::PATIENCE)
    }

    fn open_with_patience(dir: &Path, patience: Duration) -> Result<Self, WalletError> {
        let store = Store::open(dir)?;
        let dir_lock = DirLock::new(store.lock_path(), patience);
        let owners = store.owners();
        let entered = dir_lock.enter()?;
        lock::sweep(&owners).map_err(WalletError::io(&owners))?;
        let owner = Lease::register(&owners)?;
        drop(entered);
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                dir_lock,
                owner,
                held: Mutex::new(HashSet::new()),
            }),
        })
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wallet([scrubbed])")
    }
}

/// A token's place: the contract, and the slot in it.
type Place = (ContractId, usize);

/// What clones and held tokens have in common. It lives as long as any of them,
/// and its sign of life with it.
struct Shared {
    store: Store,
    dir_lock: DirLock,
    owner: Lease,
    /// The places of the tokens that are in use through this wallet.
    held: Mutex<HashSet<Place>>,
}

impl Shared {
    /// Waits for the directory. Nothing is read or written but in an operation.
    fn enter(&self) -> Result<Operation<'_>, WalletError> {
        let entered = self.dir_lock.enter()?;
        self.store.check()?;
        Ok(Operation {
            shared: self,
            _guard: entered,
        })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory is ours.
struct Operation<'a> {
    shared: &'a Shared,
    _guard: DirGuard<'a>,
}

impl Operation<'_> {
    /// Whether the taken token at `place` has an owner that waits for an answer.
    fn is_in_use(&self, place: Place, owner: Option<LeaseId>) -> bool {
        match owner {
            None => false,
            Some(owner) if owner == self.shared.owner.id() => self.shared.held().contains(&place),
            Some(owner) => owner.is_alive(&self.owners()),
        }
    }
}

impl Deref for Operation<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.shared.store
    }
}

/// Nothing of these may reach a log.
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
    ContractSummary,
    Draft,
    Held,
    ReservedToken,
    ReservedRating,
    Listing,
    TokenQuery,
    Unchecked,
    Unconfirmed
);
