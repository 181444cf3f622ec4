//! Arti's configuration from a network file and our directories.

use arti_client::TorClientConfig;
use arti_client::config::{CfgPath, TorClientConfigBuilder};

use super::TorDirectories;
use crate::TransportError;
use crate::network::Network;

pub(super) fn build(
    network: &Network,
    directories: &TorDirectories,
) -> Result<TorClientConfig, TransportError> {
    let local = |error: String| TransportError::Local(error.into());
    let mut settings = network.tor.clone();
    // Only full vanguards are kept on disk: with lite ones, every command would choose its second
    // hops anew.
    let full = toml::Table::from_iter([("mode".to_owned(), "full".into())]);
    settings.insert("vanguards".to_owned(), full.into());
    let mut builder: TorClientConfigBuilder = settings
        .try_into()
        .map_err(|error| local(format!("the network file's [tor] section: {error}")))?;
    builder
        .storage()
        .state_dir(CfgPath::new_literal(&directories.state))
        .cache_dir(CfgPath::new_literal(&directories.cache));
    builder.build().map_err(|error| local(error.to_string()))
}
