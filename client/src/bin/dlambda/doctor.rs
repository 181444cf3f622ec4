//! `dlambda doctor`: one check after the other, a sentence each.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dlambda_executor::{
    Absence, ConfinementLayer, Executor, ExecutorConfig, Isolation, ProgramError, executor_program,
};
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_privacy::exchange::receive_advert;
use dlambda_privacy::network::{Network, TransportName};
use dlambda_privacy::swap;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_proto::{Endpoint, ErrorKind, Report};
use serde_json::json;

use crate::cli::{Common, DoctorArgs, Format};
use crate::exit::{exit_code, with_hint};
use crate::output::{Spinner, print, say};
use crate::sync::Overlay;
use crate::{home, local};

/// For a provider's advert.
const ADVERT: Duration = Duration::from_secs(30);

/// 2026-01-01: a clock that shows less was never set.
const PLAUSIBLE: u64 = 1_767_225_600;

struct Examination {
    format: Format,
    worst: Option<Report>,
    checks: Vec<serde_json::Value>,
}

pub(crate) async fn run(
    args: DoctorArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let mut examination = Examination {
        format,
        worst: None,
        checks: Vec::new(),
    };
    examine(&args, common, &mut examination).await;
    Ok(examination.conclude())
}

/// Stops at the first check without which the next makes no sense.
async fn examine(args: &DoctorArgs, common: &Common, examination: &mut Examination) {
    examination.note("clock", check_clock());
    examination.note("confinement", check_confinement().await);
    examination.note("swap", check_swap());
    let network = home::network(common);
    let described = network
        .as_ref()
        .map(|network| network_words(network, common));
    examination.note("network file", described.map_err(Clone::clone));
    let Ok(network) = network else { return };
    let directories = home::directories(common, &network);
    let private = directories.map(|_| "the directories for Tor's files are yours alone".to_owned());
    examination.note("directories", private);
    if network.overlay.is_some() {
        examination.note("catalogue", check_catalogue(common));
    }
    let spinner = Spinner::new(common.quiet || examination.format == Format::Json);
    let started = Instant::now();
    let chosen = match &args.provider {
        Some(provider) => home::choose(common, &network, provider).map(Some),
        None => Ok(None),
    };
    if let Err(report) = chosen {
        examination.note("provider", Err(report));
        return;
    }
    let provider = chosen.ok().flatten();
    let transport = match provider {
        Some(provider) => home::connect(common, &network, &[provider], &spinner).await,
        None => match home::names(common, &network) {
            Ok(names) => home::start(common, &network, names[0], &spinner).await,
            Err(report) => Err(report),
        },
    };
    drop(spinner);
    let seconds = started.elapsed().as_secs_f64();
    let reached = transport.as_ref();
    let reached =
        reached.map(|_| format!("the anonymity network can be used ({seconds:.1} s to start)"));
    examination.note("network", reached.map_err(Clone::clone));
    let (Ok(transport), Some(provider)) = (transport, provider) else {
        return;
    };
    examination.note("provider", check_provider(&*transport, &provider).await);
}

/// What was fetched of the market, whatever its nodes do now.
fn check_catalogue(common: &Common) -> Result<String, Report> {
    let market = Overlay::open(common)?.market;
    let now = SystemClock::default().now();
    let Some(synced) = market.last_sync() else {
        return Ok("no providers are known yet; `dlambda sync` fetches the catalogue".to_owned());
    };
    let (chosen, _) = market.counts(now);
    let hours = now.0.saturating_sub(synced.0) / 3600;
    Ok(format!(
        "{chosen} providers are known, as of {hours} hours ago"
    ))
}

fn check_clock() -> Result<String, Report> {
    if SystemClock::default().now().0 >= PLAUSIBLE {
        return Ok("the clock shows a plausible time".to_owned());
    }
    Err(
        Report::new(ErrorKind::Local, "this machine's clock was never set")
            .with_hint("set the clock: Tor and adverts are only valid at the right time"),
    )
}

/// A warning and no problem: most machines are like this, and commands work all the same.
fn check_swap() -> Result<String, Report> {
    let areas = swap::unencrypted_areas().map_err(|error| {
        Report::new(ErrorKind::Local, format!("/proc/swaps: {error}"))
            .with_hint("see that /proc is mounted and readable")
    })?;
    Ok(swap_words(&areas))
}

fn swap_words(areas: &[String]) -> String {
    if areas.is_empty() {
        return "no memory is written to a disk unencrypted".to_owned();
    }
    format!(
        "WARNING: swap on {} is not encrypted; if the disk is stolen, it may show keys, tokens, \
         inputs and outputs. Use dm-crypt with a random key or zram, or turn it off with swapoff",
        areas.join(", ")
    )
}

/// What would stand between a function and this machine: `run`, `audit` and the arbiter execute
/// what others wrote.
async fn check_confinement() -> Result<String, Report> {
    let program = match executor_program() {
        Ok(program) => program,
        Err(ProgramError::Missing) => {
            return Ok(
                "dlambda-executor is not beside this program; only commands that run \
                       functions on this machine need it"
                    .to_owned(),
            );
        }
        Err(error) => {
            return Err(Report::new(ErrorKind::Local, error.to_string())
                .with_hint("install dlambda-executor anew, for this user or for root"));
        }
    };
    let config = ExecutorConfig {
        max_concurrent: 1,
        ..ExecutorConfig::new(Isolation::Processes {
            program,
            workers: 1,
        })
    };
    let executor = Executor::new(config).map_err(local::report)?;
    executor.ready().await.map_err(|error| {
        Report::new(ErrorKind::Local, error.to_string()).with_hint(
            "nothing runs without the confinement that this system offers: mend what the error names",
        )
    })?;
    Ok(in_words(
        &executor.confinement_layers(),
        &executor.absent_layers(),
    ))
}

fn in_words(active: &[ConfinementLayer], absent: &[(ConfinementLayer, Absence)]) -> String {
    let active: Vec<_> = active.iter().map(|layer| layer.name()).collect();
    let mut words = format!("functions run behind {}", active.join(", "));
    for (layer, why) in absent {
        words += &format!("; no {}: {}", layer.name(), why.reason());
    }
    words
}

fn network_words(network: &Network, common: &Common) -> String {
    let name = &network.name;
    if network
        .transports
        .contains(&TransportName::DangerouslyDirect)
    {
        return format!("DANGER: network \"{name}\" gives no anonymity at all");
    }
    let transports: Vec<String> = network.transports.iter().map(ToString::to_string).collect();
    let transports = transports.join(", ");
    match &common.network {
        None => format!("the public networks will be used: {transports}"),
        Some(_) => format!("the private network \"{name}\" will be used: {transports}"),
    }
}

async fn check_provider(transport: &dyn Transport, provider: &Endpoint) -> Result<String, Report> {
    let started = Instant::now();
    let mut stream = transport.dial(provider, Service::Calls).await?.stream;
    let now = SystemClock::default().now();
    let advert = receive_advert(&mut *stream, provider, now, ADVERT).await?;
    Ok(format!(
        "the provider answers ({:.1} s), publishes {} functions and offers {} plans; {} of its \
         latest epochs ended before their time",
        started.elapsed().as_secs_f64(),
        advert.functions.len(),
        advert.plans.len(),
        advert.early_ends(),
    ))
}

impl Examination {
    fn note(&mut self, check: &str, result: Result<String, Report>) {
        let result = result.map_err(|report| match report.kind {
            // The usual hint is to run this command.
            ErrorKind::NetworkDown => {
                report.or_hint("check the connection of this machine, and the network file")
            }
            _ => with_hint(report),
        });
        match &result {
            Ok(finding) => {
                self.checks
                    .push(json!({ "check": check, "ok": true, "finding": finding }));
                self.tell(&format!("ok       {check}: {finding}"));
            }
            Err(report) => {
                self.checks
                    .push(json!({ "check": check, "ok": false, "error": report }));
                let message = &report.message;
                self.tell(&format!("PROBLEM  {check}: {message}"));
                if let Some(hint) = &report.hint {
                    self.tell(&format!("         do this: {hint}"));
                }
            }
        }
        if let (None, Err(report)) = (&self.worst, result) {
            self.worst = Some(report);
        }
    }

    /// The findings are this command's data.
    fn tell(&self, line: &str) {
        if self.format == Format::Text {
            print(line);
        }
    }

    fn conclude(self) -> ExitCode {
        let ok = self.worst.is_none();
        match self.format {
            Format::Json => {
                let findings =
                    json!({ "schema": "dlambda.doctor/1", "ok": ok, "checks": self.checks });
                print(&findings.to_string());
            }
            Format::Text if ok => say("nothing is wrong"),
            Format::Text => {}
        }
        match self.worst {
            None => ExitCode::SUCCESS,
            Some(report) => exit_code(report.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unencrypted_swap_is_a_warning_that_names_it() {
        assert!(!swap_words(&[]).contains("WARNING"));
        let words = swap_words(&["/dev/sda2".to_owned(), "/swap".to_owned()]);
        assert!(words.starts_with("WARNING") && words.contains("/dev/sda2, /swap"));
    }

    #[test]
    fn layers_are_named_and_absent_ones_with_the_reason() {
        let words = in_words(
            &[ConfinementLayer::SystemCalls, ConfinementLayer::Files],
            &[(ConfinementLayer::Root, Absence::NotRoot)],
        );
        assert_eq!(
            words,
            "functions run behind seccomp, landlock; no chroot: only when started as root"
        );
    }
}
