//! What the commands around evidence take.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(crate) const VERIFY_EXAMPLES: &str = "\
Examples:
  dlambda arbiter verify fraud.proof
  dlambda arbiter verify fraud.proof --format json

  # For those who trust you: a signed verdict
  dlambda arbiter verify fraud.proof --sign arbiter.key --verdict verdict.cbor";

pub(crate) const SHOW_EXAMPLES: &str = "\
Examples:
  dlambda invoke 2gzy...wid.onion upper --receipt upper.receipt < in.txt
  dlambda receipt show upper.receipt";

/// What an arbiter does.
#[derive(Debug, Subcommand)]
pub(crate) enum ArbiterCommand {
    /// Judge a proof by running the call again, on this machine, offline
    ///
    /// Says `provider at fault`, `claim unproven` or `not decidable`, and why.
    /// Exits with 0 whichever it is; the finding is on standard output.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
}

/// What to judge.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A file of evidence, as `dlambda audit` writes it
    pub(crate) file: PathBuf,

    /// Sign the verdict with the arbiter's key in this file; it is made at
    /// first use
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) sign: Option<PathBuf>,

    /// Where to write the signed verdict
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub(crate) verdict: Option<PathBuf>,

    /// Run the function in this very process: only the WebAssembly engine is
    /// then between it and all that you may do
    #[arg(long)]
    pub(crate) no_process_isolation: bool,
}

/// What to do with receipts.
#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Explain a receipt
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
}

/// What to explain.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A file, as `dlambda invoke --receipt` writes it
    pub(crate) file: PathBuf,
}
