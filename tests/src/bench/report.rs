//! Figures, and the ratios that are claims.

use std::fmt;

use serde_json::{Value, json};

/// All figures of a run, in the order in which they came.
#[derive(Default)]
pub struct Report(Vec<Row>);

struct Row {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

/// Claims: a figure over its baseline.
const RATIOS: [(&str, &str, &str); 9] = [
    (
        "in process over wasmtime serve, 1 connection",
        "executor in process, 1 connections",
        "wasmtime serve, 1 connections",
    ),
    (
        "in process over wasmtime serve, 16 connections",
        "executor in process, 16 connections",
        "wasmtime serve, 16 connections",
    ),
    (
        "in workers over wasmtime serve, 1 connection",
        "executor in workers, 1 connections",
        "wasmtime serve, 1 connections",
    ),
    (
        "in workers over wasmtime serve, 16 connections",
        "executor in workers, 16 connections",
        "wasmtime serve, 16 connections",
    ),
    (
        "in workers over in process, 16 connections",
        "executor in workers, 16 connections",
        "executor in process, 16 connections",
    ),
    (
        "time with fuel over without",
        "computing (wasmtime run), fuel",
        "computing (wasmtime run), no limit",
    ),
    (
        "time with epochs over without",
        "computing (wasmtime run), epochs",
        "computing (wasmtime run), no limit",
    ),
    (
        "time with canonical NaNs over without",
        "computing (wasmtime run), canonical NaNs",
        "computing (wasmtime run), no limit",
    ),
    (
        "time with all three over none",
        "computing (wasmtime run), all three",
        "computing (wasmtime run), no limit",
    ),
];

impl Report {
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        match self.0.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row {
                name: name.to_owned(),
                unit,
                values: vec![value],
            }),
        }
    }

    /// Everything, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.0.iter().map(|row| {
            json!({ "name": row.name.trim(), "unit": row.unit, "median": row.median(), "values": row.values })
        });
        let ratios = self
            .ratios()
            .map(|(name, ratio)| json!({ "name": name, "ratio": ratio }));
        json!({
            "schema": "dlambda.bench-executor/1",
            "figures": rows.collect::<Vec<_>>(),
            "ratios": ratios.collect::<Vec<_>>(),
        })
    }

    fn ratios(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let median = |name: &str| Some(self.0.iter().find(|row| row.name == name)?.median());
        RATIOS.iter().filter_map(move |(name, figure, baseline)| {
            Some((*name, median(figure)? / median(baseline)?))
        })
    }
}

impl Row {
    fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            let (low, high) = row
                .values
                .iter()
                .fold((f64::MAX, f64::MIN), |(low, high), value| {
                    (low.min(*value), high.max(*value))
                });
            let (name, unit) = (&row.name, row.unit);
            writeln!(
                f,
                "{name:<58} {:>10.1} {unit:<10} ({low:.1} to {high:.1})",
                row.median()
            )?;
        }
        writeln!(f)?;
        for (name, ratio) in self.ratios() {
            writeln!(f, "{name:<58} {ratio:>10.2}")?;
        }
        Ok(())
    }
}
