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
    let mut builder: TorClientConfigBuilder = network
        .tor
        .clone()
        .try_into()
        .map_err(|error| local(format!("the network file's [tor] section: {error}")))?;
    builder
        .storage()
        .state_dir(CfgPath::new_literal(&directories.state))
        .cache_dir(CfgPath::new_literal(&directories.cache));
    builder.build().map_err(|error| local(error.to_string()))
}
