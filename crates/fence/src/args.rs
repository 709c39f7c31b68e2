//! The guardian's command line. By hand: the program is resident and locked in memory, and a
//! parser library would be most of it.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::enter::EnterOptions;
use crate::guardian::{DEFAULT_FENCE_BUDGET_MS, DEFAULT_RTC, LastResort, ServeOptions};

/// How to call the program.
pub const USAGE: &str = "\
usage: holdfast-guardian serve --socket PATH --cgroup ANCESTOR --link-group N
           [--fence-budget-ms F] [--last-resort none|kill-pid=PID|reboot] [--rtc PATH]
       holdfast-guardian enter --caller PID --init-pid PID --ancestor ANCESTOR --child NAME
           -- PROGRAM ARGS...
       holdfast-guardian status --socket PATH
       holdfast-guardian relinquish --socket PATH";

/// What the program is asked to do.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// Be the guardian.
    Serve(ServeOptions),
    /// Run a program under the fence.
    Enter(EnterOptions),
    /// Print the guardian's status as JSON.
    Status(PathBuf),
    /// Have the guardian fence now, and print the record as JSON.
    Relinquish(PathBuf),
    /// Print how to call the program.
    Help,
}

/// A command line that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: see holdfast-guardian --help")]
pub struct ArgsError(String);

/// Reads the command line, the program's own name left out.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ArgsError> {
    let mut args = args.into_iter();
    let verb = args.next().unwrap_or_default();
    match verb.to_str() {
        Some("serve") => serve(&mut Flags::read(args)?),
        Some("enter") => enter(&mut Flags::read(args)?),
        Some("status") => Flags::read(args)?.only_socket().map(Invocation::Status),
        Some("relinquish") => Flags::read(args)?.only_socket().map(Invocation::Relinquish),
        Some("help" | "--help" | "-h") => Ok(Invocation::Help),
        _ => Err(ArgsError(format!("unknown command {verb:?}"))),
    }
}

fn serve(flags: &mut Flags) -> Result<Invocation, ArgsError> {
    let options = ServeOptions {
        socket: flags.need("--socket")?.into(),
        ancestor: flags.need("--cgroup")?.into(),
        link_group: flags.number("--link-group")?,
        fence_budget_ms: match flags.take("--fence-budget-ms") {
            None => DEFAULT_FENCE_BUDGET_MS,
            Some(text) => number("--fence-budget-ms", &text)?,
        },
        last_resort: match flags.take("--last-resort") {
            None => LastResort::None,
            Some(text) => text
                .to_str()
                .and_then(LastResort::parse)
                .ok_or_else(|| ArgsError(format!("--last-resort cannot be {text:?}")))?,
        },
        rtc: flags.take("--rtc").unwrap_or_else(|| DEFAULT_RTC.into()).into(),
    };
    flags.finish(false)?;
    Ok(Invocation::Serve(options))
}

fn enter(flags: &mut Flags) -> Result<Invocation, ArgsError> {
    let child = flags.need("--child")?.to_string_lossy().into_owned();
    let options = EnterOptions {
        init_pid: flags.number("--init-pid")?,
        caller_pid: flags.number("--caller")?,
        ancestor: flags.need("--ancestor")?.into(),
        child: child.parse().map_err(|error| ArgsError(format!("--child: {error}")))?,
        command: std::mem::take(&mut flags.rest),
    };
    flags.finish(true)?;
    Ok(Invocation::Enter(options))
}

/// The flags, each with its value, and what follows `--`.
struct Flags {
    named: Vec<(OsString, OsString)>,
    rest: Vec<OsString>,
}

impl Flags {
    fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut args = args.into_iter();
        let mut named = Vec::new();
        while let Some(flag) = args.next() {
            if flag == "--" {
                break;
            }
            let value = args.next().ok_or_else(|| ArgsError(format!("{flag:?} has no value")))?;
            named.push((flag, value));
        }
        Ok(Self { named, rest: args.collect() })
    }

    fn take(&mut self, name: &str) -> Option<OsString> {
        let at = self.named.iter().position(|(flag, _)| flag == name)?;
        Some(self.named.remove(at).1)
    }

    fn need(&mut self, name: &str) -> Result<OsString, ArgsError> {
        self.take(name).ok_or_else(|| ArgsError(format!("{name} is needed")))
    }

    fn number<N: std::str::FromStr>(&mut self, name: &str) -> Result<N, ArgsError> {
        let text = self.need(name)?;
        number(name, &text)
    }

    fn only_socket(mut self) -> Result<PathBuf, ArgsError> {
        let socket = self.need("--socket")?.into();
        self.finish(false)?;
        Ok(socket)
    }

    /// Nothing may be left over.
    fn finish(&self, program: bool) -> Result<(), ArgsError> {
        match (self.named.first(), self.rest.first()) {
            (Some((flag, _)), _) => Err(ArgsError(format!("unknown or repeated {flag:?}"))),
            (None, Some(extra)) if !program => Err(ArgsError(format!("unexpected {extra:?}"))),
            _ => Ok(()),
        }
    }
}

fn number<N: std::str::FromStr>(name: &str, text: &OsString) -> Result<N, ArgsError> {
    let parsed = text.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| ArgsError(format!("{name} cannot be {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_guardian_starts_with_safe_defaults() {
        let Ok(Invocation::Serve(options)) =
            parsed("serve --socket /run/g --cgroup /sys/fs/cgroup/h --link-group 7")
        else {
            panic!("refused")
        };
        assert_eq!(options.fence_budget_ms, 500);
        assert_eq!(options.last_resort, LastResort::None);
        assert_eq!(options.link_group.get(), 7);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let serve = "serve --socket /s --cgroup /c --link-group 7";
        for bad in [
            "".to_owned(),
            "serve".to_owned(),
            "serve --socket /s --cgroup /c --link-group 0".to_owned(),
            format!("{serve} --link-group 8"),
            format!("{serve} --last-resort sysrq"),
            format!("{serve} --fence-budget-ms"),
            format!("{serve} -- x"),
            "enter --caller 4 --init-pid 5 --ancestor /a --child ../x -- true".to_owned(),
            "enter --caller 4 --init-pid x --ancestor /a --child web -- true".to_owned(),
            "enter --init-pid 5 --ancestor /a --child web -- true".to_owned(),
            "status --socket /s extra".to_owned(),
        ] {
            let error = parsed(&bad).map(drop).unwrap_err().to_string();
            assert_eq!(error.lines().count(), 1, "{bad}: {error}");
        }
    }
}
