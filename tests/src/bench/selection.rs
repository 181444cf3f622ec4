//! Refusals, times and the load of providers, by the way in which callers choose.
//!
//! Under virtual time: see the [model](crate::load). Baselines are always the best first, and
//! round-robin.

use anyhow::Result;

use super::millis;
use super::report::{Ratio, Report};
use crate::load::{Choice, PROVIDERS, simulate};

const CHOICES: [(&str, Choice); 3] = [
    ("drawn by score", Choice::Draw),
    ("the best first", Choice::Best),
    ("round-robin", Choice::RoundRobin),
];

const RATIOS: &[Ratio] = &[
    (
        "refusals, drawn by score over the best first",
        "refusals, drawn by score",
        "refusals, the best first",
    ),
    (
        "refusals, drawn by score over round-robin",
        "refusals, drawn by score",
        "refusals, round-robin",
    ),
    (
        "p95, drawn by score over the best first",
        "p95 of completion, drawn by score",
        "p95 of completion, the best first",
    ),
    (
        "p95, drawn by score over round-robin",
        "p95 of completion, drawn by score",
        "p95 of completion, round-robin",
    ),
];

/// Simulates so many rounds of so many calls for each way to choose.
///
/// # Errors
///
/// None but those of a fault in this program.
pub fn run(rounds: u16, calls: usize) -> Result<Report> {
    let mut report = Report::new("dlambda.bench.selection/1", RATIOS);
    for (name, choice) in CHOICES {
        for round in 1..=rounds {
            let outcome = simulate(&PROVIDERS, choice, calls, round.into());
            let mut add = |what: &str, unit, value| {
                report.add(&format!("{what}, {name}"), unit, value);
            };
            add("refusals", "/100 calls", 100.0 * outcome.refusals);
            add("p95 of completion", "ms", millis(outcome.p95));
            add("calls that were lost", "/100 calls", 100.0 * outcome.lost);
            for (label, share) in labels().zip(&outcome.shares) {
                add(&format!("share of {label}"), "%", 100.0 * share);
            }
        }
    }
    charts(&mut report)?;
    Ok(report)
}

fn charts(report: &mut Report) -> Result<()> {
    let series = CHOICES.map(|(name, _)| name);
    let of_calls = |series: &str, group: &str| format!("{group}, {series}");
    for (title, row) in [
        ("Refusals", "refusals"),
        ("Time until completion", "p95 of completion"),
    ] {
        report.chart(title, &series, &[row.to_owned()], of_calls)?;
    }
    let labels: Vec<_> = labels().collect();
    report.chart(
        "Share of answered calls",
        &series,
        &labels,
        |series, group| format!("share of {group}, {series}"),
    )
}

/// Providers, with what they can take of all that all of them can.
fn labels() -> impl Iterator<Item = String> {
    let all: f64 = PROVIDERS.iter().map(|it| it.capacity()).sum();
    PROVIDERS.iter().zip('A'..).map(move |(provider, name)| {
        let percent = 100.0 * provider.capacity() / all;
        let hot = match provider.from_elsewhere > 0.0 {
            true => ", hot",
            false => "",
        };
        format!("{name} ({percent:.0} % of capacity{hot})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_figure_and_claim() {
        let report = run(3, 2_000).unwrap();
        let json = report.to_json();
        let figures = json["figures"].as_array().unwrap();
        assert_eq!(figures.len(), CHOICES.len() * (3 + PROVIDERS.len()));
        for figure in figures {
            assert_eq!(figure["values"].as_array().unwrap().len(), 3);
        }
        assert_eq!(json["ratios"].as_array().unwrap().len(), RATIOS.len());
        let svg = report.to_svg();
        // The page; and of three charts the legend, and two groups and four of three bars.
        assert_eq!(svg.matches("<rect").count(), 1 + 3 * 3 + 3 * (2 + 4));
        assert!(svg.contains("A (36 % of capacity, hot)"));
    }
}
