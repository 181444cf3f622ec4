//! D-Lambda's Nym transport as a helper process.
//!
//! Reads commands from its standard input and writes events to its standard
//! output, in the frames of `dlambda_nym_link`. Listens nowhere. Ends when its
//! input ends.

mod caller;
mod chance;
mod client;
mod error;
mod helper;
mod link;
mod network;
mod process;
mod provider;
mod storage;

use std::process::ExitCode;

use anyhow::Context as _;

fn main() -> ExitCode {
    process::log_safely();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    process::keep_memory_private().context("memory cannot be kept private")?;
    process::die_with_parent().context("the parent's death cannot be watched for")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let helping = async {
        process::leave_signals_to_parent();
        tokio::spawn(process::end_with_parent());
        let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
        helper::run(input, output, process::start_deadline()).await
    };
    let result = runtime.block_on(helping);
    // A thread may be reading the input for ever.
    runtime.shutdown_background();
    result.context("the helper ends")
}
