//! `dlambda-provider`: run strangers' functions behind an onion service.

mod cli;
mod exit;
mod output;
mod record;
mod run;
mod status;

use std::process::ExitCode;
use std::time::Duration;

use cli::Command;
use dlambda_privacy::logging;
use dlambda_privacy::process::keep_memory_private;
use dlambda_proto::{ErrorKind, Report};

/// For what is written at the end, on a busy machine.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// Every setting, explained.
fn config() -> ExitCode {
    output::print(dlambda_provider::config::EXAMPLE.trim_end());
    ExitCode::SUCCESS
}

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
                match cli.command {
                    Command::Run(args) => Box::pin(run::run(args, cli.data, format)).await,
                    Command::Config => Ok(config()),
                    Command::Contracts => status::contracts(cli.data, format).await,
                    Command::Status => status::run(cli.data, format).await,
                }
            });
            // Tor's state is written when its client is dropped.
            runtime.shutdown_timeout(LAST_WRITES);
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(report) => output::print_error(format, report),
    }
}
