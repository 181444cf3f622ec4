//! `dlambda`: invoke functions anonymously.

#![forbid(unsafe_code)]

mod audit;
mod cli;
mod contract;
mod delay;
mod doctor;
mod evidence;
mod exit;
mod fill;
mod find;
mod home;
mod http;
mod input;
mod inspect;
mod invoke;
mod local;
mod map;
mod output;
mod plans;
mod replicas;
mod request_line;
mod run;
mod sync;
mod terms;
mod wallet;

use std::process::ExitCode;
use std::time::Duration;

use cli::{Cli, Command, FunctionCommand};
use dlambda_privacy::logging;
use dlambda_privacy::process::keep_memory_private;
use dlambda_proto::{ErrorKind, Report};

/// For what is written at the end, on a busy machine.
const LAST_WRITES: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match output::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    logging::init();
    let format = cli.format;
    let outcome = keep_memory_private()
        .and_then(|()| tokio::runtime::Runtime::new())
        .map_err(|error| Report::new(ErrorKind::Local, error.to_string()))
        .and_then(|runtime| {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = Box::pin(run(cli)) => outcome,
                    _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
                }
            });
            // Tor's state is written when its client is dropped; circuits being built are not
            // waited for.
            runtime.shutdown_timeout(LAST_WRITES);
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(report) => output::print_error(format, report),
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Report> {
    match cli.command {
        Command::Arbiter(command) => evidence::arbiter(command, &cli.common, cli.format).await,
        Command::Audit(args) => audit::run(args, &cli.common, cli.format).await,
        Command::Contract(args) => contract::run(args, &cli.common, cli.format).await,
        Command::Doctor(args) => doctor::run(args, &cli.common, cli.format).await,
        Command::Find(args) => find::run(args, &cli.common, cli.format).await,
        Command::Function(FunctionCommand::Inspect(args)) => {
            inspect::run(args, &cli.common, cli.format).await
        }
        Command::Invoke(args) => Box::pin(invoke::run(args, &cli.common, cli.format)).await,
        Command::Map(args) => map::run(args, &cli.common, cli.format).await,
        Command::Receipt(command) => evidence::receipt(command, cli.format),
        Command::Run(args) => run::run(args, &cli.common).await,
        Command::Sync(args) => sync::run(args, &cli.common, cli.format).await,
        Command::Wallet(args) => wallet::run(args, &cli.common, cli.format).await,
    }
}
