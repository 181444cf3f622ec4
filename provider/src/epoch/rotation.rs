//! How epochs begin, go on after a restart, and follow each other: keys are made on blocking
//! threads, and are on disk before they are shown.

use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::os_rng;
use dlambda_proto::{Epoch, UnixSeconds};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::ProviderError;
use crate::epoch::Epochs;
use crate::epoch::advert::{self, AdvertTemplate};
use crate::epoch::keyring::Keyring;
use crate::epoch::keys::EpochKeys;
use crate::state::directory::DataDir;
use crate::store::{EpochRecord, Store};

/// How often the age of the epoch is looked at.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// The keyring after a start: the epoch that the restart interrupted, or a first one, and the
/// tokens of those before.
///
/// # Errors
///
/// [`ProviderError`] if keys cannot be made, read or stored.
pub(crate) async fn start_keyring(
    template: AdvertTemplate,
    data: &DataDir,
    store: &Store,
    now: UnixSeconds,
) -> Result<Keyring, ProviderError> {
    let template = Arc::new(template);
    let restored = {
        let store = store.clone();
        let restoring = spawn_blocking(move || {
            store.end_epochs(now)?;
            store.epochs()
        });
        restoring.await??
    };
    let first = match resume(&template, restored.last(), now).await? {
        Some(resumed) => resumed,
        None => begin(&template, data, store, now).await?,
    };
    let mut keyring = Keyring::new(template, first);
    for (epoch, record) in restored {
        keyring.restore(epoch, &record)?;
    }
    Ok(keyring)
}

/// Starts a new epoch whenever one is due. Returns on errors only.
///
/// # Errors
///
/// [`ProviderError`] if a key cannot be made, or an epoch number cannot be stored: the provider
/// stops rather than use a number twice.
pub(crate) async fn rotate(
    epochs: Arc<Epochs>,
    data: Arc<DataDir>,
    store: Store,
) -> Result<(), ProviderError> {
    loop {
        sleep(ROTATION_CHECK).await;
        rotate_if_due(&epochs, &data, &store).await?;
    }
}

/// Erases keys that are over, and starts a new epoch if one is due. A new advert is shown once it
/// is on disk, and the epochs that are over are forgotten last: stopped between any two steps, the
/// next start goes on with the advert that was shown, or begins an epoch with a number of its own.
///
/// # Errors
///
/// As [`rotate`].
pub(crate) async fn rotate_if_due(
    epochs: &Epochs,
    data: &DataDir,
    store: &Store,
) -> Result<(), ProviderError> {
    let now = epochs.now();
    let due = {
        let mut keyring = epochs.lock();
        keyring.expire(now);
        keyring.renew_sealing(&mut os_rng())?;
        keyring.rotation_due(now)
    };
    if due {
        let fresh = begin(&epochs.template(), data, store, now).await?;
        epochs.lock().rotate(fresh, now);
        let store = store.clone();
        let ending = spawn_blocking(move || store.end_epochs(now)).await;
        ending??;
        tracing::info!(epoch = epochs.number().0, "new epoch");
    }
    Ok(())
}

/// The last epoch's keys, if it goes on.
async fn resume(
    template: &Arc<AdvertTemplate>,
    last: Option<&(Epoch, EpochRecord)>,
    now: UnixSeconds,
) -> Result<Option<EpochKeys>, ProviderError> {
    let Some((epoch, record)) = last.cloned() else {
        return Ok(None);
    };
    let template = Arc::clone(template);
    let resuming =
        spawn_blocking(move || EpochKeys::resume(&template, epoch, &record, now, &mut os_rng()));
    let resumed = resuming.await??;
    if resumed.is_none() {
        tracing::warn!(
            epoch = epoch.0,
            "the last epoch is over, or its advert no longer fits; a new one begins"
        );
    }
    Ok(resumed)
}

/// The keys of a new epoch: its number first on disk, then what its tokens
/// are recognised by, and only then is it shown.
async fn begin(
    template: &Arc<AdvertTemplate>,
    data: &DataDir,
    store: &Store,
    now: UnixSeconds,
) -> Result<EpochKeys, ProviderError> {
    let epoch = data.next_epoch()?;
    let (template, store) = (Arc::clone(template), store.clone());
    let making = spawn_blocking(move || {
        let history = advert::history(&store.epochs()?, now);
        let keys = EpochKeys::make(&template, epoch, history, now, &mut os_rng())?;
        store.begin_epoch(epoch, &keys.record())?;
        if keys.early_ends() > 1 {
            tracing::warn!("the latest epochs ended early: callers will not buy or spend tokens");
        }
        Ok(keys)
    });
    making.await?
}
