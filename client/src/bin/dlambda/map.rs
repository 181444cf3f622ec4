//! `dlambda map`: a call for each line of standard input.

mod journal;
mod lines;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use dlambda_broker::schedule;
use dlambda_client::{Call, CallError, CallOutcome, Output, PendingAck, Querier, Target};
use dlambda_privacy::os_rng;
use dlambda_proto::{ErrorKind, HasKind as _, Report, with_causes};
use futures::stream::{self, StreamExt as _};
use rand_core::Rng as _;
use serde_json::json;
use tokio::time::sleep;

use self::journal::{Entry, Journal};
use self::lines::{Line, Lines};
use crate::cli::{Common, Format, MapArgs};
use crate::exit::exit_code;
use crate::home;
use crate::invoke::{advise, function_name, querier_for, target};
use crate::output::{Spinner, print, say, write_output};

/// How providers served is written down after so many lines.
const KEEP_EACH: u64 = 32;

/// What became of a line.
struct Mapped {
    line: Line,
    end: Result<Answered, CallError>,
}

/// An answer that was just given, or was in the file.
struct Answered {
    entry: Entry,
    ack: Option<PendingAck>,
}

/// What all lines came to.
#[derive(Default)]
struct Summary {
    /// Lines by the provider that answered.
    answered: BTreeMap<String, usize>,
    resumed: usize,
    failed: usize,
    first_failure: Option<ErrorKind>,
}

pub(crate) async fn run(
    args: MapArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let network = home::network(common)?;
    let target = target(&args.provider, &args.machine, common, &network)?;
    let call = describe(&args, target.clone())?;
    let journal = match &args.resume {
        Some(path) => Some(Journal::open(path, &call)?),
        None => None,
    };
    let wallet = home::wallet(common)?;
    let spinner = Spinner::new(common.quiet);
    let querier = querier_for(&target, common, &network, &wallet, &spinner).await?;
    let journal = journal.map(Mutex::new);
    let mapper = Mapper {
        querier: &querier,
        call,
        journal: journal.as_ref(),
        max_time: common.max_time,
        spacing: args.spacing,
        pause: tokio::sync::Mutex::new(()),
    };
    let mut summary = Summary::default();
    let printed = mapper.map_all(&args, format, &spinner, &mut summary).await;
    drop(spinner);
    querier.flush_acks().await;
    home::keep_experience(&querier);
    printed?;
    say(&summary.to_string());
    Ok(summary.first_failure.map_or(ExitCode::SUCCESS, exit_code))
}

fn describe(args: &MapArgs, target: Target) -> Result<Call, Report> {
    let mut call = Call::new(target, function_name(&args.function)?).args(args.args.clone());
    if let Some(plan) = &args.plan {
        call = call.plan(plan.clone());
    }
    if args.hedge {
        call = call.hedge();
    }
    Ok(call)
}

struct Mapper<'a> {
    querier: &'a Querier,
    call: Call,
    journal: Option<&'a Mutex<Journal>>,
    max_time: Duration,
    spacing: Duration,
    /// One call begins at a time.
    pause: tokio::sync::Mutex<()>,
}

impl Mapper<'_> {
    /// Prints what each line came to, in their order: only so many are under way or wait for
    /// their turn.
    async fn map_all(
        &self,
        args: &MapArgs,
        format: Format,
        spinner: &Spinner,
        summary: &mut Summary,
    ) -> Result<(), Report> {
        let lines = stream::unfold(Lines::read(), |mut lines| async {
            lines.next().await.map(|line| (line, lines))
        });
        let mapped = lines.map(|line| self.map_line(line));
        let mut mapped = Box::pin(mapped.buffered(args.concurrency.into()));
        while let Some(mapped) = mapped.next().await {
            let mapped = mapped?;
            summary.take(&mapped);
            spinner.say(format!(
                "{} lines answered, {} failed",
                summary.count(),
                summary.failed
            ));
            spinner.pause(|| show(&mapped, format))?;
            // Now that the output is out it cannot be lost any more.
            if let Ok(Answered { ack: Some(ack), .. }) = mapped.end {
                self.querier.acknowledge(ack).await;
            }
            if mapped.line.number.is_multiple_of(KEEP_EACH) {
                home::keep_experience(self.querier);
            }
        }
        Ok(())
    }

    async fn map_line(&self, line: Result<Line, Report>) -> Result<Mapped, Report> {
        let line = line?;
        if let Some(journal) = self.journal
            && let Some(entry) = lock(journal).find(&line)?
        {
            let end = Ok(Answered { entry, ack: None });
            return Ok(Mapped { line, end });
        }
        self.wait_for_turn().await;
        let call = self.call.clone().input(line.bytes.clone());
        let called = self
            .querier
            .call_unacknowledged(&call, self.max_time, |_| {});
        let end = match Box::pin(called).await {
            Err(error) => Err(error),
            Ok((outcome, ack)) => self.keep(&line, outcome, ack).await?,
        };
        Ok(Mapped { line, end })
    }

    /// An answer is on disk before it is printed, and before the provider forgets it.
    async fn keep(
        &self,
        line: &Line,
        outcome: CallOutcome,
        ack: PendingAck,
    ) -> Result<Result<Answered, CallError>, Report> {
        match outcome.into_output() {
            Err(error) => {
                // The function failed: that is an answer, too, and was paid for.
                self.querier.acknowledge(ack).await;
                Ok(Err(error))
            }
            Ok(output) => {
                let entry = entry(line, output);
                if let Some(journal) = self.journal {
                    lock(journal).append(&entry)?;
                }
                let ack = Some(ack);
                Ok(Ok(Answered { entry, ack }))
            }
        }
    }

    /// Calls begin one after the other, after pauses that are drawn at random.
    async fn wait_for_turn(&self) {
        let _turn = self.pause.lock().await;
        if self.spacing > Duration::ZERO {
            sleep(schedule::until_next(self.spacing, os_rng().next_u64())).await;
        }
    }
}

fn lock(journal: &Mutex<Journal>) -> std::sync::MutexGuard<'_, Journal> {
    // Appending is whole in itself.
    journal
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn entry(line: &Line, output: Output) -> Entry {
    Entry {
        line: line.number,
        input: line.digest(),
        provider: output.provider.unredacted(),
        output: output.stdout,
    }
}

fn show(mapped: &Mapped, format: Format) -> Result<(), Report> {
    let number = mapped.line.number;
    match (&mapped.end, format) {
        (Ok(answered), Format::Text) => {
            let mut output = answered.entry.output.clone();
            if output.last() != Some(&b'\n') {
                output.push(b'\n');
            }
            write_output(&output, false)
        }
        (Ok(answered), Format::Json) => {
            let output = &answered.entry.output;
            let text = std::str::from_utf8(output).ok();
            print(
                &json!({
                    "schema": "dlambda.mapped/1",
                    "line": number,
                    "ok": true,
                    "output": text,
                    "output_hex": text.is_none().then(|| hex::encode(output)),
                    "provider": answered.entry.provider,
                    "resumed": answered.ack.is_none(),
                })
                .to_string(),
            );
            Ok(())
        }
        (Err(error), Format::Text) => {
            say(&format!("line {number}: {}", with_causes(error)));
            write_output(b"\n", false)
        }
        (Err(error), Format::Json) => {
            let error = json!({ "kind": error.kind(), "message": with_causes(error) });
            print(
                &json!({
                    "schema": "dlambda.mapped/1",
                    "line": number,
                    "ok": false,
                    "error": error,
                })
                .to_string(),
            );
            Ok(())
        }
    }
}

impl Summary {
    fn take(&mut self, mapped: &Mapped) {
        match &mapped.end {
            Ok(answered) => {
                self.resumed += usize::from(answered.ack.is_none());
                let provider = answered.entry.provider.clone();
                *self.answered.entry(provider).or_default() += 1;
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.kind());
                if self.failed == 1 {
                    hint(error);
                }
            }
        }
    }

    fn count(&self) -> usize {
        self.answered.values().sum()
    }
}

/// What to do about the first failure; the others are named only.
fn hint(error: &CallError) {
    if matches!(error, CallError::NoCandidate) {
        let report = advise(CallError::NoCandidate);
        say(&report.to_string());
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines answered, {} failed", self.count(), self.failed)?;
        if self.resumed > 0 {
            write!(f, "; {} were in the file already", self.resumed)?;
        }
        for (provider, lines) in &self.answered {
            write!(f, "\n  {lines} by {provider}")?;
        }
        Ok(())
    }
}
