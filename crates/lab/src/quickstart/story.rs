//! A takeover as the cluster's events tell it, in the order and time of the cut. Pure.

use std::fmt;

use holdfast_proto::v1;
use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// What.
    pub what: String,
    /// Seconds after the cut; negative is before.
    pub at_s: f64,
}

/// What happened when, around one cut.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Story(pub Vec<Moment>);

impl Story {
    /// Adds something that happened `at_ms` on the wall clock, the cut being at `cut_ms`.
    pub fn add(&mut self, what: impl Into<String>, at_ms: u64, cut_ms: u64) {
        let at_s = (at_ms as f64 - cut_ms as f64) / 1000.0;
        self.0.push(Moment { what: what.into(), at_s });
        self.0.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, moment) in self.0.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}  {:+9.3} s  {}", moment.at_s, moment.what)?;
        }
        Ok(())
    }
}

/// What the cluster says of one takeover.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// When the loss was committed, in wall milliseconds.
    pub lost_at_ms: Option<u64>,
    /// How long the leader had not answered by then, and how long it had to wait.
    pub silence: Option<Silence>,
    /// When the new epoch was committed.
    pub taken_at_ms: Option<u64>,
    /// Where the container went.
    pub target: Option<String>,
    /// The moment to which the new copy goes.
    pub data_as_of_ms: Option<u64>,
    /// When the new node said that it runs.
    pub running_at_ms: Option<u64>,
}

/// The evidence of a loss by silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Since the leader's last answer.
    pub silent_ms: u64,
    /// The least that the constants allow.
    pub required_ms: u64,
}

impl Account {
    /// Reads it off the events since the cut.
    pub(super) fn read(events: &[v1::Event], victim: &str, container_uid: &str) -> Self {
        let mut account = Self::default();
        let field = |e: &v1::Event, key: &str| e.fields.get(key).cloned();
        for event in events {
            let ours = event.container_uid == container_uid;
            match event.kind.as_str() {
                "node-lost" if event.node == victim && account.lost_at_ms.is_none() => {
                    account.lost_at_ms = Some(event.at_ms);
                    account.silence = silence(event);
                }
                "takeover" if ours && account.taken_at_ms.is_none() => {
                    account.taken_at_ms = Some(event.at_ms);
                    account.target = field(event, "to");
                    let as_of = field(event, "data_as_of_ms");
                    account.data_as_of_ms = as_of.and_then(|ms| ms.parse().ok());
                }
                "container-running" if ours && account.taken_at_ms.is_some() => {
                    account.running_at_ms.get_or_insert(event.at_ms);
                }
                _ => {}
            }
        }
        account
    }

    /// Milliseconds between the leader's last answer to the node and the new epoch.
    pub fn took_over_after_ms(&self) -> Option<u64> {
        let (lost, taken) = (self.lost_at_ms?, self.taken_at_ms?);
        Some(self.silence?.silent_ms + taken.saturating_sub(lost))
    }
}

fn silence(event: &v1::Event) -> Option<Silence> {
    let number = |key: &str| event.fields.get(key).and_then(|text| text.parse().ok());
    Some(Silence { silent_ms: number("silent_ms")?, required_ms: number("required_ms")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, at_ms: u64, node: &str, fields: &[(&str, &str)]) -> v1::Event {
        v1::Event {
            kind: kind.into(),
            at_ms,
            node: node.into(),
            container_uid: if kind == "node-lost" { String::new() } else { "u1".into() },
            fields: fields.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_events_of_a_takeover_are_read() {
        let evidence = [("silent_ms", "4300"), ("required_ms", "4281")];
        let moved = [("to", "n3"), ("data_as_of_ms", "900")];
        let events = [
            event("container-running", 500, "n2", &[]),
            event("node-lost", 5300, "n2", &evidence),
            event("takeover", 5310, "n3", &moved),
            event("container-running", 5700, "n3", &[]),
        ];
        let account = Account::read(&events, "n2", "u1");
        assert_eq!(account.target.as_deref(), Some("n3"));
        assert_eq!(account.data_as_of_ms, Some(900));
        assert_eq!(account.running_at_ms, Some(5700), "the run before the takeover is not it");
        assert_eq!(account.took_over_after_ms(), Some(4310));
    }

    #[test]
    fn another_containers_takeover_is_not_ours() {
        let events = [event("takeover", 5310, "n3", &[("to", "n3")])];
        assert_eq!(Account::read(&events, "n2", "u2"), Account::default());
    }

    #[test]
    fn a_story_is_told_in_order() {
        let mut story = Story::default();
        story.add("first good answer", 5000, 1000);
        story.add("last good answer", 990, 1000);
        assert_eq!(
            story.to_string(),
            "     -0.010 s  last good answer\n     +4.000 s  first good answer"
        );
    }
}
