//! What a scenario measured, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One number with its unit.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

/// The figures of one run, and what they were taken under.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub scenario: &'static str,
    /// Durable or not, in process or over HTTPS, code run or simulated; the machine.
    pub conditions: BTreeMap<&'static str, String>,
    pub figures: Vec<Figure>,
}

impl Report {
    #[must_use]
    pub fn new(scenario: &'static str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let conditions = BTreeMap::from([
            ("cores", cores.to_string()),
            ("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
        ]);
        Self { scenario, conditions, figures: Vec::new() }
    }

    pub fn condition(&mut self, name: &'static str, value: impl Into<String>) {
        self.conditions.insert(name, value.into());
    }

    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// Median and 99th percentile of `samples`, in milliseconds.
    pub fn percentiles(&mut self, name: &str, samples: &mut [Duration]) {
        samples.sort_unstable();
        for (label, share) in [("p50", 50), ("p99", 99)] {
            if let Some(sample) =
                samples.get((samples.len() * share / 100).min(samples.len().saturating_sub(1)))
            {
                self.figure(format!("{name} {label}"), sample.as_secs_f64() * 1e3, "ms");
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<String> =
            self.conditions.iter().map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(f, "{} ({})", self.scenario, conditions.join(", "))?;
        for figure in &self.figures {
            writeln!(f, "  {:<44} {:>14.2} {}", figure.name, figure.value, figure.unit)?;
        }
        Ok(())
    }
}
