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
    /// The same of what it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rival: Option<f64>,
}

impl Row {
    /// A figure that nothing was asked of.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str, n: usize) -> Self {
        Self { name: name.into(), value, unit, target: String::new(), met: None, n, rival: None }
    }

    /// The same, beside another's figure.
    pub(crate) fn beside(self, rival: f64) -> Self {
        Self { rival: Some(rival), ..self }
    }

    /// How many times the other's figure it is.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.rival.map(|rival| self.value / rival)
    }

    /// With an upper limit in terms of the other's figure.
    pub(crate) fn at_most_times(mut self, limit: f64) -> Self {
        self.target = format!("<= {limit} x");
        self.met = self.ratio().map(|ratio| ratio <= limit);
        self
    }

    /// The same, with a lower limit.
    pub(crate) fn at_least_times(mut self, limit: f64) -> Self {
        self.target = format!(">= {limit} x");
        self.met = self.ratio().map(|ratio| ratio >= limit);
        self
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
    /// Whose figures those beside ours are.
    #[serde(skip_serializing_if = "Option::is_none")]
    rival: Option<String>,
}

impl Report {
    pub(crate) fn new(bench: &'static str, rows: Vec<Row>) -> Self {
        Self { bench, machine: Machine::here(), rows, rival: None }
    }

    /// The same, beside another's.
    pub(crate) fn beside(self, rival: impl Into<String>) -> Self {
        Self { rival: Some(rival.into()), ..self }
    }

    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Machine { cores, cpu, memory_mib, kernel } = &self.machine;
        println!("bench {}: {cores} cores ({cpu}), {memory_mib} MiB, Linux {kernel}\n", self.bench);
        let (value, unit, n, target) = ("VALUE", "UNIT", "N", "TARGET");
        let theirs = |rival: &str, ratio: &str| match &self.rival {
            Some(_) => format!(" {rival:>12} {ratio:>7}"),
            None => String::new(),
        };
        let rival = theirs(self.rival.as_deref().unwrap_or_default(), "RATIO");
        println!("{:<38} {value:>12}{rival} {unit:<8} {n:>4}  {target:<12} MET", "FIGURE");
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let Row { name, value, unit, target, n, .. } = row;
            let number = |value: Option<f64>, places| {
                value.map(|value| format!("{value:.places$}")).unwrap_or_default()
            };
            let rival = theirs(&number(row.rival, 3), &number(row.ratio(), 2));
            println!("{name:<38} {value:>12.3}{rival} {unit:<8} {n:>4}  {target:<12} {met}");
        }
        Ok(())
    }
}
