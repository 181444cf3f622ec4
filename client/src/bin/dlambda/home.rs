//! Where things are kept, and the network that was asked for.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::Market;
use dlambda_client::{Experience, Guest, Querier, Wallet};
use dlambda_executor::CodeCacheConfig;
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_privacy::network::{Network, TransportName};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::{
    self, MultiTransport, NymRole, StartOptions, TorDirectories, Transport,
};
use dlambda_proto::{ArbiterKey, Endpoint, Endpoints, ErrorKind, Report};
use fs_mistrust::Mistrust;
use rand_core::Rng as _;

use crate::cli::{Choice, Common};
use crate::output::{Spinner, say};

/// The start of a transport takes seconds; what takes longer than this is broken.
const BOOTSTRAP: Duration = Duration::from_secs(60);

/// Bytes of compiled functions that are kept on disk.
const CODE_CACHE_BYTES: u64 = 512 << 20;

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
    let (state, cache) = roots(common)?;
    let directories = TorDirectories::new(state.join(&network.name), cache.join(&network.name));
    for path in [&directories.state, &directories.cache] {
        make_private(path)?;
    }
    Ok(directories)
}

/// Where the way into the mixnet is kept.
fn nym_entry(common: &Common, network: &Network) -> Result<PathBuf, Report> {
    let (state, _) = roots(common)?;
    make_private(&state)?;
    // The dot keeps it apart from the directories of networks.
    let entries = state.join("nym.d");
    let entry = entries.join(&network.name);
    for path in [&entries, &entry] {
        make_private(path)?;
    }
    Ok(entry)
}

/// The wallet for this network.
pub(crate) fn wallet(common: &Common) -> Result<Wallet, Report> {
    let network = network(common)?;
    let (state, _) = roots(common)?;
    make_private(&state)?;
    // The dot keeps it apart from the directories of networks.
    let wallets = state.join("wallets.d");
    make_private(&wallets)?;
    Ok(Wallet::open(&wallets.join(&network.name))?)
}

/// The key that an arbiter signs with, made at first use.
pub(crate) fn arbiter_key(path: &Path) -> Result<ArbiterKey, Report> {
    Ok(ArbiterKey::from_seed(&secret_file(
        path,
        "give another file: verdicts of one arbiter are known by its key",
    )?))
}

/// Where the catalogue of providers for this network is kept.
pub(crate) fn market_file(common: &Common, network: &Network) -> Result<PathBuf, Report> {
    let (state, _) = roots(common)?;
    make_private(&state)?;
    // The dot keeps it apart from the directories of networks.
    let markets = state.join("markets.d");
    make_private(&markets)?;
    Ok(markets.join(&network.name))
}

/// What calls on this network have shown of providers.
pub(crate) fn experience(common: &Common, network: &Network) -> Result<Experience, Report> {
    let (state, _) = roots(common)?;
    make_private(&state)?;
    // The dot keeps it apart from the directories of networks.
    let directory = state.join("experience.d");
    make_private(&directory)?;
    Ok(Experience::load(directory.join(&network.name)))
}

/// Writes down what calls have shown. The calls are over: an error here costs nothing of them.
pub(crate) fn keep_experience(querier: &Querier) {
    if querier.experience().save().is_err() {
        say("how providers served could not be written down");
    }
}

/// Held by the one process that stays and syncs.
pub(crate) fn sync_lock(common: &Common) -> Result<File, Report> {
    lock_file(common, "sync")
}

/// Held by the one process that waits to refill the wallet.
pub(crate) fn refill_lock(common: &Common) -> Result<File, Report> {
    lock_file(common, "refill")
}

fn lock_file(common: &Common, purpose: &str) -> Result<File, Report> {
    let network = network(common)?;
    let (state, _) = roots(common)?;
    make_private(&state)?;
    let path = state.join(format!("{purpose}-{}.lock", network.name));
    let mut options = File::options();
    let opened = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    opened.map_err(|error| Report::new(ErrorKind::Local, format!("{}: {error}", path.display())))
}

/// The place at which a provider is to be called.
pub(crate) fn choose(
    common: &Common,
    network: &Network,
    provider: &Endpoints,
) -> Result<Endpoint, Report> {
    let wanted = names(common, network)?;
    let reached_by = |name: &TransportName| {
        let mut endpoints = provider.as_slice().iter();
        endpoints.find(|it| TransportName::of(it) == Some(*name))
    };
    if let Some(endpoint) = wanted.iter().find_map(reached_by) {
        return Ok(*endpoint);
    }
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let wanted = wanted.join(" or ");
    let message = format!("the provider's address is not one that {wanted} can reach");
    Err(Report::new(ErrorKind::Usage, message)
        .with_hint("ask the provider for its other address, or choose with --transport"))
}

/// The transports that may be used, the preferred one first.
pub(crate) fn names(common: &Common, network: &Network) -> Result<Vec<TransportName>, Report> {
    match common.transport {
        Choice::Auto => Ok(network.transports.clone()),
        Choice::Only(name) if network.transports.contains(&name) => Ok(vec![name]),
        Choice::Only(name) => {
            let message = format!("the network \"{}\" has no {name}", network.name);
            Err(Report::new(ErrorKind::Usage, message)
                .with_hint("choose a transport that the network file names"))
        }
    }
}

/// A querier that can call at these places, with its wallet.
pub(crate) async fn querier(common: &Common, endpoints: &[Endpoint]) -> Result<Querier, Report> {
    let network = network(common)?;
    let wallet = wallet(common)?;
    let spinner = Spinner::new(common.quiet);
    let transport = connect(common, &network, endpoints, &spinner).await?;
    querier_on(common, &network, transport, wallet)
}

/// A querier on this transport, with its wallet and with what was fetched of the market.
pub(crate) fn querier_on(
    common: &Common,
    network: &Network,
    transport: Arc<dyn Transport>,
    wallet: Wallet,
) -> Result<Querier, Report> {
    let querier = Querier::new(transport, Arc::new(SystemClock::default()))
        .with_wallet(wallet)
        .with_experience(experience(common, network)?);
    let Some(overlay) = &network.overlay else {
        return Ok(querier);
    };
    let (path, now) = (market_file(common, network)?, SystemClock::default().now());
    match Market::load(&path, Guest::rules(overlay), now) {
        Ok(market) => Ok(querier.with_market(market)),
        Err(error) => {
            let report = Report::from(error);
            say(&format!(
                "{}: adverts are not compared with the catalogue; `dlambda sync` fetches another",
                report.message
            ));
            Ok(querier)
        }
    }
}

/// Where compiled functions are kept, and the secret that authenticates them.
/// Native code that another user had put there would be run.
pub(crate) fn code_cache(common: &Common) -> Result<CodeCacheConfig, Report> {
    let (state, cache) = roots(common)?;
    // The dot keeps it apart from the directories of networks.
    let directory = cache.join("code.cache");
    for path in [&state, &directory] {
        make_private(path)?;
    }
    let key = code_cache_key(&state.join("code-cache.key"))?;
    Ok(CodeCacheConfig {
        directory,
        key,
        bytes: CODE_CACHE_BYTES,
    })
}

/// Made at first use. If two commands make it at the same time, one of them
/// has its code compiled again later.
fn code_cache_key(path: &Path) -> Result<[u8; 32], Report> {
    let hint = "remove the file: another is made, and functions are compiled again";
    secret_file(path, hint)
}

/// 32 secret bytes in a file, made at first use.
fn secret_file(path: &Path, hint: &str) -> Result<[u8; 32], Report> {
    let wrong = |error: String| {
        let message = format!("{}: {error}", path.display());
        Report::new(ErrorKind::Local, message).with_hint(hint)
    };
    // A file that others could read would be open to them after a careless copy.
    match mistrust()?.verifier().require_file().check(path) {
        Err(fs_mistrust::Error::NotFound(_)) => {}
        checked => {
            checked.map_err(|error| wrong(error.to_string()))?;
            let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            return bytes
                .try_into()
                .map_err(|_| wrong("not a key of 32 bytes".to_owned()));
        }
    }
    let mut key = [0; 32];
    os_rng().fill_bytes(&mut key);
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let made = write_private(&temporary, &key).and_then(|()| std::fs::rename(&temporary, path));
    made.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        Report::new(ErrorKind::Local, format!("{}: {error}", path.display()))
    })?;
    Ok(key)
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// State, of which there is no copy, and cache, which can be made again.
fn roots(common: &Common) -> Result<(PathBuf, PathBuf), Report> {
    match &common.home {
        Some(home) => Ok((home.join("state"), home.join("cache"))),
        None => standard_directories(),
    }
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

fn mistrust() -> Result<Mistrust, Report> {
    Mistrust::builder()
        .controlled_by_default_env_var()
        .build()
        .map_err(|error| Report::new(ErrorKind::Local, error.to_string()))
}

fn make_private(path: &Path) -> Result<(), Report> {
    mistrust()?.make_directory(path).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Report::new(ErrorKind::Local, message).with_hint(
            "the directory must be yours alone: chmod 700 it, or name another with --home",
        )
    })
}

/// Starts what it takes to call at these places.
pub(crate) async fn connect(
    common: &Common,
    network: &Network,
    endpoints: &[Endpoint],
    spinner: &Spinner,
) -> Result<Arc<dyn Transport>, Report> {
    let mut names: Vec<TransportName> = Vec::new();
    for name in endpoints.iter().filter_map(TransportName::of) {
        if !network.transports.contains(&name) {
            let message = format!("the network \"{}\" has no {name}", network.name);
            return Err(Report::new(ErrorKind::Usage, message));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut transports = Vec::new();
    for name in names {
        transports.push(start(common, network, name, spinner).await?);
    }
    Ok(Arc::new(MultiTransport::new(transports)))
}

/// Starts what it takes to call whom the wallet holds tokens of: the preferred transport that
/// reaches any of them. Says which endpoints it reaches.
pub(crate) async fn connect_to_held(
    common: &Common,
    network: &Network,
    wallet: &Wallet,
    spinner: &Spinner,
) -> Result<(Arc<dyn Transport>, Reaches), Report> {
    let contracts = wallet.contracts(SystemClock::default().now())?.contracts;
    let held: Vec<Endpoint> = contracts.into_iter().map(|it| it.endpoint).collect();
    let names = names(common, network)?;
    let name = names
        .iter()
        .copied()
        .find(|name| held.iter().any(reaches(*name)));
    let name = name.ok_or_else(|| nothing_held("the wallet holds no tokens"))?;
    Ok((start(common, network, name, spinner).await?, reaches(name)))
}

/// What a call to any provider ends with when the wallet has nothing for it.
pub(crate) fn nothing_held(message: &str) -> Report {
    Report::new(ErrorKind::Refused, message).with_hint(
        "make contracts some time before calls: `dlambda wallet fill`; or add --auto-contract to \
         `dlambda invoke`, which waits for a minute or so and hides less",
    )
}

/// Says which endpoints a transport dials.
pub(crate) type Reaches = fn(&Endpoint) -> bool;

/// Which endpoints this transport dials.
pub(crate) fn reaches(name: TransportName) -> Reaches {
    match name {
        TransportName::DangerouslyDirect => {
            |it| TransportName::of(it) == Some(TransportName::DangerouslyDirect)
        }
        TransportName::Nym => |it| TransportName::of(it) == Some(TransportName::Nym),
        TransportName::Tor => |it| TransportName::of(it) == Some(TransportName::Tor),
        _ => |_| false,
    }
}

/// Starts one transport, with progress.
pub(crate) async fn start(
    common: &Common,
    network: &Network,
    name: TransportName,
    spinner: &Spinner,
) -> Result<Arc<dyn Transport>, Report> {
    let directories = directories(common, network)?;
    let deadline = BOOTSTRAP.min(common.max_time);
    spinner.say(format!("starting {name}"));
    let progress = |status: transport::BootstrapProgress| {
        let stuck = status.blocked.map(|why| format!(" ({why})"));
        spinner.say(format!(
            "starting Tor: {} %{}",
            status.percent,
            stuck.unwrap_or_default()
        ));
    };
    // The first client is connected at the start; for one call there is no need of more.
    let nym = NymRole::Caller {
        pool: 0,
        entry: Some(nym_entry(common, network)?),
    };
    let options = StartOptions::new(directories, nym, deadline);
    Ok(Box::pin(transport::start(network, name, options, progress)).await?)
}
