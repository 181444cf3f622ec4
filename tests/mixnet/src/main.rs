//! `dlambda-mixnet`: a private mixnet as a process, for tests and demos.
//!
//! Standard output is data: one line of JSON that says where the network is,
//! one for each command, and at the end one with all counters. Standard error
//! is for people.

#![forbid(unsafe_code)]

mod cli;

use std::{io, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use dlambda_mixnet::{CaptureFile, Mixnet, Options, Tap};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use cli::{Args, Command, commands, hello, print, table};

fn main() -> ExitCode {
    // Should the parent be killed outright; a closed standard input is the
    // usual end.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .init();
    match tokio::runtime::Runtime::new()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(run(args)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            cli::say(&format!("dlambda-mixnet: {err:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    // Before the first line: who has read it may send a signal.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mixnet = Mixnet::start(options(&args)?).await?;
    print(&hello(&mixnet))?;
    let mut commands = commands();
    let mut reports = args.print_every.map(|seconds| {
        let every = Duration::from_secs(seconds.get());
        tokio::time::interval_at(tokio::time::Instant::now() + every, every)
    });
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None | Some(Ok(Command::Quit)) => break,
                Some(Ok(command)) => print(&command.obey(&mixnet).await)?,
                Some(Err(refusal)) => print(&cli::failure(&refusal))?,
            },
            () = next(&mut reports) => cli::say(&table(&mixnet.counters())),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let counters = mixnet.counters();
    mixnet.shutdown().await;
    cli::say(&table(&counters));
    print(&serde_json::to_value(&counters)?)
}

fn options(args: &Args) -> Result<Options> {
    let capture = args
        .capture
        .as_deref()
        .map(|path| CaptureFile::create(path, args.capture_limit))
        .transpose()?;
    Ok(Options {
        layer_nodes: args.layer_nodes,
        gateways: args.gateways,
        loss: args.loss,
        api_port: args.api_port,
        tap: capture.map(|capture| Arc::new(capture) as Arc<dyn Tap>),
        ..Options::default()
    })
}

async fn next(reports: &mut Option<tokio::time::Interval>) {
    match reports {
        Some(reports) => {
            reports.tick().await;
        }
        None => std::future::pending().await,
    }
}
