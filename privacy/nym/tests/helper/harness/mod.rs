//! The two programs, as children of a test.

mod helper;
mod mixnet;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use dlambda_nym_link::{NymRecipient, Role, Settings, Traffic, VERSION};
use tempfile::TempDir;

pub(crate) use helper::Helper;
pub(crate) use mixnet::Mixnet;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that only we can read.
pub(crate) fn private_directory() -> TempDir {
    let mode = Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new().permissions(mode).tempdir();
    directory.expect("a directory")
}

/// Settings for a caller.
pub(crate) fn caller(mixnet: &Mixnet, traffic: Traffic, pool: u8) -> Settings {
    settings(mixnet, traffic, Role::Caller { pool, entry: None })
}

/// Settings for a provider.
pub(crate) fn provider(mixnet: &Mixnet, traffic: Traffic, directory: &TempDir) -> Settings {
    let directory = directory.path().to_str().expect("a plain path").to_owned();
    settings(mixnet, traffic, Role::Provider { directory })
}

/// A provider that is ready, and its address.
pub(crate) async fn ready_provider(
    mixnet: &Mixnet,
    traffic: Traffic,
    directory: &TempDir,
) -> (Helper, NymRecipient) {
    let mut helper = Helper::start(provider(mixnet, traffic, directory)).await;
    let address = helper.ready().await.expect("a provider has an address");
    (helper, address)
}

/// A caller that is ready.
pub(crate) async fn ready_caller(mixnet: &Mixnet, traffic: Traffic, pool: u8) -> Helper {
    let mut helper = Helper::start(caller(mixnet, traffic, pool)).await;
    assert_eq!(helper.ready().await, None, "a caller has no address");
    helper
}

fn settings(mixnet: &Mixnet, traffic: Traffic, role: Role) -> Settings {
    Settings {
        version: VERSION,
        api_url: Some(mixnet.api_url.clone()),
        traffic,
        role,
        mean_delay_ms: None,
    }
}
