//! `dlambda-provider run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::network::{Network, TransportName};
use dlambda_privacy::transport::{
    self, BootstrapProgress, MultiTransport, NymRole, StartOptions, Transport,
};
use dlambda_proto::{Endpoint, ErrorKind, Report};
use dlambda_provider::{DataDir, Observer, OverlayVolunteer, Provider, ProviderConfig, Stop};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Format, RunArgs};
use crate::output::{data_directory, print, say, spinner};
use crate::record::FileRecorder;

pub(crate) async fn run(
    args: RunArgs,
    data: Option<PathBuf>,
    format: Format,
) -> Result<ExitCode, Report> {
    let started = Instant::now();
    take_all_descriptors();
    let network = read_network(&args)?;
    if args.overlay_only {
        return run_node(&args, &network, data, format).await;
    }
    let mut config = read_config(&args)?;
    config.overlay.clone_from(&network.overlay);
    let data = DataDir::open(&data_directory(data)?)?;
    let observer = recorder(&args)?;
    let spinner = spinner(args.quiet);
    let stop_early = Signals::new()?;
    let starting = Box::pin(start(&args, &network, config, data, &spinner));
    let mut signals = stop_early;
    let provider = tokio::select! {
        provider = starting => provider?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let stop = provider.stop_handle();
    let announcement = announcement(&provider, format);
    let left = args.ready_within.saturating_sub(started.elapsed());
    spinner.set_message("calling myself through the network");
    let ready = || {
        spinner.finish_and_clear();
        print(&announcement);
        say("ready; stop with Ctrl-C or SIGTERM");
    };
    let serving = provider.serve(left.max(Duration::from_secs(1)), observer, ready);
    tokio::select! {
        outcome = Box::pin(serving) => outcome?,
        () = stop_on_signal(signals, stop, &spinner) => return Ok(ExitCode::from(130)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A node of the overlay without a provider.
async fn run_node(
    args: &RunArgs,
    network: &Network,
    data: Option<PathBuf>,
    format: Format,
) -> Result<ExitCode, Report> {
    let Some(overlay) = &network.overlay else {
        let message = format!("the network \"{}\" has no overlay", network.name);
        return Err(Report::new(ErrorKind::Usage, message)
            .with_hint("name a network file with an [overlay] by --network"));
    };
    let data = DataDir::open(&data_directory(data)?)?;
    let spinner = spinner(args.quiet);
    let mut signals = Signals::new()?;
    let starting = Box::pin(async {
        let transport = start_transports(args, network, &data, &spinner).await?;
        let clock = Arc::new(SystemClock::default());
        Ok::<_, Report>(OverlayVolunteer::start(overlay, data, transport, clock).await?)
    });
    let node = tokio::select! {
        node = starting => node?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    spinner.finish_and_clear();
    let address = unredacted(node.endpoints());
    print(&match format {
        Format::Text => address,
        Format::Json => {
            json!({ "schema": "dlambda.node/1", "ready": true, "node": address }).to_string()
        }
    });
    say("ready; stop with Ctrl-C or SIGTERM");
    let stop = node.stop_handle();
    tokio::select! {
        served = node.serve() => served?,
        () = signals.next() => stop.stop(),
    }
    Ok(ExitCode::SUCCESS)
}

/// Callers, circuits and compiled functions each take one; the usual limit of
/// 1,024 is for programs that call `select`.
fn take_all_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without them it serves fewer callers at a time.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn start(
    args: &RunArgs,
    network: &Network,
    config: ProviderConfig,
    data: DataDir,
    spinner: &ProgressBar,
) -> Result<Provider, Report> {
    let transport = start_transports(args, network, &data, spinner).await?;
    spinner.set_message("compiling functions");
    let clock = Arc::new(SystemClock::default());
    // Clap sees to it that there is one.
    let functions = args.functions.as_deref().unwrap_or_else(|| Path::new("."));
    Ok(Provider::start(config, functions, data, transport, clock).await?)
}

async fn start_transports(
    args: &RunArgs,
    network: &Network,
    data: &DataDir,
    spinner: &ProgressBar,
) -> Result<Arc<dyn Transport>, Report> {
    let mut transports = Vec::new();
    for name in names(args, network)? {
        spinner.set_message(format!("starting {name}"));
        let progress = |status: BootstrapProgress| {
            let stuck = status.blocked.map(|why| format!(" ({why})"));
            let stuck = stuck.unwrap_or_default();
            spinner.set_message(format!("starting Tor: {} %{stuck}", status.percent));
        };
        let options = StartOptions::new(
            data.tor(&network.name),
            NymRole::Provider(data.nym(&network.name)?),
            args.ready_within,
        );
        let started = Box::pin(transport::start(network, name, options, progress));
        transports.push(started.await?);
    }
    Ok(Arc::new(MultiTransport::new(transports)))
}

/// The transports that were asked for.
fn names(args: &RunArgs, network: &Network) -> Result<Vec<TransportName>, Report> {
    if args.transport.is_empty() {
        return Ok(network.transports.iter().take(1).copied().collect());
    }
    for name in &args.transport {
        if !network.transports.contains(name) {
            let message = format!("the network \"{}\" has no {name}", network.name);
            return Err(Report::new(ErrorKind::Usage, message)
                .with_hint("name transports that the network file names"));
        }
    }
    let mut names = args.transport.clone();
    names.dedup();
    Ok(names)
}

fn read_config(args: &RunArgs) -> Result<ProviderConfig, Report> {
    let mut config = match &args.config {
        None => ProviderConfig::default(),
        Some(path) => ProviderConfig::read(path).map_err(|error| {
            let report = Report::from(error);
            Report::new(
                report.kind,
                format!("{}: {}", path.display(), report.message),
            )
            .with_hint("`dlambda-provider config` prints one with every setting explained")
        })?,
    };
    config.epoch = args.epoch;
    if args.no_process_isolation {
        config.execution.process_isolation = false;
    }
    if !config.execution.process_isolation {
        say("DANGER: functions run in the process that holds this provider's keys");
    }
    Ok(config)
}

fn read_network(args: &RunArgs) -> Result<Network, Report> {
    let Some(path) = &args.network else {
        return Ok(Network::public());
    };
    let network = Network::read(path).map_err(|error| {
        let report = Report::from(error);
        Report::new(
            report.kind,
            format!("{}: {}", path.display(), report.message),
        )
    })?;
    if network
        .transports
        .contains(&TransportName::DangerouslyDirect)
    {
        say("DANGER: this network gives neither you nor your callers any anonymity");
    }
    Ok(network)
}

fn recorder(args: &RunArgs) -> Result<Option<Arc<dyn Observer>>, Report> {
    let Some(path) = &args.dangerously_record_calls else {
        return Ok(None);
    };
    say("DANGER: everything that callers send and receive is written to a file");
    Ok(Some(Arc::new(FileRecorder::create(path)?)))
}

fn announcement(provider: &Provider, format: Format) -> String {
    let address = unredacted(&provider.endpoints());
    let node = provider.node();
    match format {
        Format::Text => address,
        Format::Json => json!({
            "schema": "dlambda.provider/1",
            "ready": true,
            "address": address,
            "provider": provider.id().unredacted(),
            "node": (!node.is_empty()).then(|| unredacted(&node)),
            "functions": provider.functions().iter().map(|function| json!({
                "alias": function.alias,
                "cid": function.id.unredacted(),
                "bytes": function.size,
            })).collect::<Vec<_>>(),
        })
        .to_string(),
    }
}

/// As network files and commands take them.
fn unredacted(endpoints: &[Endpoint]) -> String {
    let each: Vec<String> = endpoints.iter().map(Endpoint::unredacted).collect();
    each.join(",")
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Report> {
        let listen =
            |kind| signal(kind).map_err(|error| Report::new(ErrorKind::Local, error.to_string()));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The first signal stops gently; the second ends the wait.
async fn stop_on_signal(mut signals: Signals, stop: Stop, spinner: &ProgressBar) {
    signals.next().await;
    spinner.finish_and_clear();
    say("finishing running calls; once more to stop at once");
    stop.stop();
    signals.next().await;
}
