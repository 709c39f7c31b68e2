//! What goes to standard output: tables for people, JSON for programs.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::error::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    // For people.
    #[default]
    Table,
    // For programs; field names are stable.
    Json,
}

impl Format {
    /// What was asked for on a command line that could not be parsed.
    pub(crate) fn guess() -> Self {
        let args: Vec<_> = std::env::args().take_while(|arg| arg != "--").collect();
        let one = |arg: &String| ["-ojson", "-o=json", "--output=json"].contains(&arg.as_str());
        let two = |pair: &[String]| ["-o", "--output"].contains(&&*pair[0]) && pair[1] == "json";
        if args.iter().any(one) || args.windows(2).any(two) { Self::Json } else { Self::Table }
    }
}

/// Prints `json` or `table`, as asked. A table is only made when it is needed.
pub(crate) fn show<T: Serialize>(
    format: Format,
    json: &T,
    table: impl FnOnce() -> String,
) -> Result<(), CliError> {
    match format {
        Format::Table => line(&table()),
        Format::Json => line(&to_json(json, true)?),
    }
}

/// Prints one JSON object on one line.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    line(&to_json(value, false)?)
}

/// Prints a line of text, or several.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output as they are, at once.
pub(crate) fn bytes(data: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(data).and_then(|()| out.flush()).map_err(broken_or)
}

/// Writes bytes to standard error as they are.
pub(crate) fn error_bytes(data: &[u8]) -> Result<(), CliError> {
    io::stderr().lock().write_all(data).map_err(broken_or)
}

fn broken_or(error: io::Error) -> CliError {
    if error.kind() == ErrorKind::BrokenPipe {
        CliError::BrokenPipe
    } else {
        CliError::Write(error)
    }
}

fn to_json<T: Serialize>(value: &T, pretty: bool) -> Result<String, CliError> {
    let text =
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(|e| CliError::Write(e.into()))
}

/// A table without borders: columns two spaces apart, nothing after the last.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows.iter().map(|row| row.iter().map(|cell| or_dash(cell)).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values, one pair a line.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    let lines = pairs
        .iter()
        .map(|(name, value)| format!("{:<width$}  {}", format!("{name}:"), or_dash(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { one_line(text) }
}

/// The text without control characters: what others wrote must not drive our terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A span of time as a person says it: `0.8s`, `42s`, `12m`, `5h`, `3d`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, millis % 1_000 / 100),
        10..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago an instant was, by this machine's clock.
pub(crate) fn age(at_ms: u64) -> String {
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    if at_ms == 0 { String::new() } else { span(now.saturating_sub(at_ms)) }
}

/// An instant in RFC 3339, UTC, to the millisecond; empty for 0, which means never.
pub(crate) fn rfc3339(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().filter(|ms| *ms > 0);
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|t| format!("{t:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_bare() {
        let rows = vec![
            ["web".to_owned(), "running".to_owned()],
            ["a-longer-name".to_owned(), String::new()],
        ];
        let text = table(["NAME", "STATE"], rows);
        assert_eq!(text, "NAME           STATE\nweb            running\na-longer-name  -");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(table(["NAME", "STATE"], vec![]), "NAME  STATE");
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        let text = table(["REASON"], vec![["a\x1b[31m\nb".to_owned()]]);
        assert_eq!(text, "REASON\na [31m b");
    }

    #[test]
    fn times_are_for_people() {
        for (millis, text) in [(840, "0.8s"), (42_000, "42s"), (720_000, "12m"), (18_000_000, "5h")]
        {
            assert_eq!(span(millis), text);
        }
        assert_eq!(span(3 * 86_400_000), "3d");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(0), "");
        assert_eq!(rfc3339(u64::MAX), "");
    }

    #[test]
    fn pairs_line_up() {
        assert_eq!(
            pairs(&[("name", "web".into()), ("address", String::new())]),
            "name:     web\naddress:  -"
        );
    }
}
