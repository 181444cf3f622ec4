//! `dlambda-provider`: run strangers' functions behind an onion service.

mod cli;
mod output;
mod record;
mod run;
mod status;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};
use dlambda_privacy::logging;
use dlambda_proto::{ErrorKind, Report};

/// Every setting, explained.
fn config() -> ExitCode {
    output::print(dlambda_provider::config::EXAMPLE.trim_end());
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init();
    let format = cli.format;
    let outcome = tokio::runtime::Runtime::new()
        .map_err(|error| Report::new(ErrorKind::Local, error.to_string()))
        .and_then(|runtime| {
            let outcome = runtime.block_on(async {
                match cli.command {
                    Command::Run(args) => Box::pin(run::run(args, cli.data, format)).await,
                    Command::Config => Ok(config()),
                    Command::Contracts => status::contracts(cli.data, format).await,
                    Command::Status => status::run(cli.data, format).await,
                }
            });
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(report) => {
            output::print_error(format, &report);
            ExitCode::from(report.kind.exit_code())
        }
    }
}
