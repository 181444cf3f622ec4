//! Where things are kept, and the network that was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::network::Network;
use dlambda_privacy::transport::{self, TorDirectories, Transport};
use dlambda_proto::{ErrorKind, Report};
use fs_mistrust::Mistrust;

use crate::cli::Common;
use crate::output::Spinner;

/// The start of Tor takes seconds; what takes longer than this is broken.
const BOOTSTRAP: Duration = Duration::from_secs(60);

/// The network file, or the public network.
pub(crate) fn network(common: &Common) -> Result<Network, Report> {
    match &common.network {
        None => Ok(Network::public()),
        Some(path) => Network::read(path).map_err(|error| {
            let report = Report::from(error);
            let message = format!("{}: {}", path.display(), report.message);
            Report::new(report.kind, message)
                .with_hint("give the network file that the network's maker handed out")
        }),
    }
}

/// Tor's directories for this network, checked to be ours alone.
pub(crate) fn directories(common: &Common, network: &Network) -> Result<TorDirectories, Report> {
    let (state, cache) = match &common.home {
        Some(home) => (home.join("state"), home.join("cache")),
        None => standard_directories()?,
    };
    let directories = TorDirectories::new(state.join(&network.name), cache.join(&network.name));
    for path in [&directories.state, &directories.cache] {
        make_private(path)?;
    }
    Ok(directories)
}

fn standard_directories() -> Result<(PathBuf, PathBuf), Report> {
    let project = directories::ProjectDirs::from("", "", "dlambda").ok_or_else(|| {
        Report::new(ErrorKind::Local, "this user has no home directory")
            .with_hint("name a directory with --home")
    })?;
    let state = project
        .state_dir()
        .unwrap_or_else(|| project.data_local_dir());
    Ok((state.to_owned(), project.cache_dir().to_owned()))
}

fn make_private(path: &Path) -> Result<(), Report> {
    let mistrust = Mistrust::builder()
        .controlled_by_default_env_var()
        .build()
        .map_err(|error| Report::new(ErrorKind::Local, error.to_string()))?;
    mistrust.make_directory(path).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Report::new(ErrorKind::Local, message).with_hint(
            "the directory must be yours alone: chmod 700 it, or name another with --home",
        )
    })
}

/// Starts the transport, with progress.
pub(crate) async fn connect(
    common: &Common,
    network: &Network,
    spinner: &Spinner,
) -> Result<Arc<dyn Transport>, Report> {
    let directories = directories(common, network)?;
    let deadline = BOOTSTRAP.min(common.max_time);
    let progress = |status: transport::BootstrapProgress| {
        let stuck = status.blocked.map(|why| format!(" ({why})"));
        spinner.say(format!(
            "starting Tor: {} %{}",
            status.percent,
            stuck.unwrap_or_default()
        ));
    };
    Ok(Box::pin(transport::start(network, &directories, deadline, progress)).await?)
}
