//! The latest listing of each overlay: the chain must not fork after a crash.

use dlambda_proto::{Day, NetworkId, SignedListing, decode, encode};
use minicbor::{CborLen, Decode, Encode};
use redb::{ReadTransaction, TableError};

use super::Store;
use super::error::{Fault, StoreError};
use super::schema::LISTINGS;
use super::transaction::TxOutcome;

/// The latest listing, and how many began on its day.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) struct StoredListing {
    /// The listing.
    #[n(0)]
    pub(crate) listing: SignedListing,
    /// The day on which it begins.
    #[n(1)]
    pub(crate) day: Day,
    /// Listings that begin on that day, this one included.
    #[n(2)]
    pub(crate) of_day: u32,
}

impl Store {
    /// The latest listing in this overlay.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn listing(&self, network: NetworkId) -> Result<Option<StoredListing>, StoreError> {
        self.file().read(|transaction| read(transaction, network))
    }

    /// Makes a listing the latest: durable when this returns, and only then may it be shown.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk: the listing must not be shown then, and [`Store::listing`] says whether
    /// it is there.
    pub(crate) fn put_listing(
        &self,
        network: NetworkId,
        listing: &StoredListing,
    ) -> Result<(), StoreError> {
        let stored = encode(listing);
        self.writer().change(move |transaction| {
            let mut listings = transaction.open_table(LISTINGS)?;
            listings.insert(network.as_bytes(), stored.as_slice())?;
            Ok(TxOutcome::Changed(()))
        })
    }
}

fn read(transaction: &ReadTransaction, network: NetworkId) -> Result<Option<StoredListing>, Fault> {
    let listings = match transaction.open_table(LISTINGS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let Some(stored) = listings.get(network.as_bytes())? else {
        return Ok(None);
    };
    let read = decode(stored.value()).map_err(|_| Fault::Damaged("a listing cannot be read"))?;
    Ok(Some(read))
}
