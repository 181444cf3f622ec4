//! Figures, and the ratios that are claims.

use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::chart::{Chart, svg};

/// A claim: its name, the row of the figure, and the row of its baseline.
pub(super) type Ratio = (&'static str, &'static str, &'static str);

/// All figures of a run, in the order in which they came.
pub struct Report {
    schema: &'static str,
    ratios: &'static [Ratio],
    rows: Vec<Row>,
    charts: Vec<Chart>,
}

struct Row {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

impl Report {
    pub(super) fn new(schema: &'static str, ratios: &'static [Ratio]) -> Self {
        Self {
            schema,
            ratios,
            rows: Vec::new(),
            charts: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                name: name.to_owned(),
                unit,
                values: vec![value],
            }),
        }
    }

    /// Adds a chart of the medians of rows that are there already: `row` names them, by series and
    /// group. All have one unit.
    pub(super) fn chart(
        &mut self,
        title: &str,
        series: &[&str],
        groups: &[String],
        row: impl Fn(&str, &str) -> String,
    ) -> Result<()> {
        let mut unit = "";
        let mut value = |series: &str, group: &str| {
            let name = row(series, group);
            let row = self.rows.iter().find(|row| row.name == name);
            let row = row.with_context(|| format!("there is no row {name}"))?;
            unit = row.unit;
            anyhow::Ok(row.at(50))
        };
        let values = series.iter().map(|series| {
            let values = groups.iter().map(|group| value(series, group));
            Ok(((*series).to_owned(), values.collect::<Result<_>>()?))
        });
        let series = values.collect::<Result<_>>()?;
        self.charts.push(Chart {
            title: title.to_owned(),
            unit,
            groups: groups.to_vec(),
            series,
        });
        Ok(())
    }

    /// The charts as an SVG file, for a light or a dark page. Without charts it is empty.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg(&self.charts)
    }

    /// Everything, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name.trim(), "unit": row.unit,
                "median": row.at(50), "p95": row.at(95), "values": row.values,
            })
        });
        let ratios = self
            .ratios()
            .map(|(name, ratio)| json!({ "name": name, "ratio": ratio }));
        json!({
            "schema": self.schema,
            "figures": rows.collect::<Vec<_>>(),
            "ratios": ratios.collect::<Vec<_>>(),
        })
    }

    fn ratios(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let median = |name: &str| Some(self.rows.iter().find(|row| row.name == name)?.at(50));
        self.ratios
            .iter()
            .filter_map(move |(name, figure, baseline)| {
                Some((*name, median(figure)? / median(baseline)?))
            })
    }
}

impl Row {
    /// The value that so many per cent do not exceed.
    fn at(&self, percent: usize) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let value = sorted.get((last * percent).div_ceil(100));
        value.copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = ("", "");
        writeln!(f, "{name:<66} {:>10} {unit:<10} {:>10}", "median", "p95")?;
        for row in &self.rows {
            let (name, unit) = (&row.name, row.unit);
            let (median, p95) = (row.at(50), row.at(95));
            write!(f, "{name:<66} {median:>10.1} {unit:<10}")?;
            match row.values.len() {
                1 => writeln!(f)?,
                count => writeln!(f, " {p95:>10.1}  (of {count})")?,
            }
        }
        writeln!(f)?;
        for (name, ratio) in self.ratios() {
            writeln!(f, "{name:<66} {ratio:>10.2}")?;
        }
        Ok(())
    }
}
