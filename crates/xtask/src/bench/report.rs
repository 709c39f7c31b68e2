//! A bench's figures beside their targets.

use anyhow::Result;
use serde::Serialize;

use super::machine::Machine;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What was asked for, as text; empty where nothing was.
    pub(crate) target: String,
    /// Absent where nothing was asked for.
    pub(crate) met: Option<bool>,
    /// How many measurements it comes from.
    pub(crate) n: usize,
}

impl Row {
    /// A figure that nothing was asked of.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str, n: usize) -> Self {
        Self { name: name.into(), value, unit, target: String::new(), met: None, n }
    }

    /// The same, with an upper limit.
    pub(crate) fn at_most(mut self, limit: f64) -> Self {
        self.target = format!("<= {limit}");
        self.met = Some(self.value <= limit);
        self
    }

    /// The same, with a lower limit.
    pub(crate) fn at_least(mut self, limit: f64) -> Self {
        self.target = format!(">= {limit}");
        self.met = Some(self.value >= limit);
        self
    }
}

/// One bench's result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    machine: Machine,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(bench: &'static str, rows: Vec<Row>) -> Self {
        Self { bench, machine: Machine::here(), rows }
    }

    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Machine { cores, cpu, memory_mib, kernel } = &self.machine;
        println!("bench {}: {cores} cores ({cpu}), {memory_mib} MiB, Linux {kernel}\n", self.bench);
        println!("{:<38} {:>12} {:<8} {:>4}  {:<12} MET", "FIGURE", "VALUE", "UNIT", "N", "TARGET");
        for Row { name, value, unit, target, met, n } in &self.rows {
            let met = match met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            println!("{name:<38} {value:>12.3} {unit:<8} {n:>4}  {target:<12} {met}");
        }
        Ok(())
    }
}
