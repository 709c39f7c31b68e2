//! `holdfastd recover`: a majority of the voters is lost for good, and this node goes on without it.
//!
//! Offline: the lock of the data directory proves that no daemon runs on it. It shows what this
//! node's log has and what may be lost, looks whether the others are really gone, asks, and leaves
//! the rest to [`holdfast_raft::recover()`], which may be cut short anywhere and run again.

use std::io::Write;
use std::time::{Duration, SystemTime};

use holdfast_core::{NodeRole, State};
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::{Dialers, is_answer, v1};
use holdfast_raft::{Recovery, Survey};
use holdfast_types::{ClusterId, Code, NodeId, TimestampMs};
use tokio::time::timeout;

use crate::channels::Channels;
use crate::clock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::DaemonError;
use crate::identity::Identity;
use crate::keyring::Keyring;

/// How long the others have to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// How a recovery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only show what is here.
    Show,
    /// Ask before anything is changed.
    Ask,
    /// It was asked elsewhere.
    Confirmed,
}

/// What a voter besides this one says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Nothing.
    Silent,
    /// It is there, as a node of this cluster.
    Alive,
}

/// Shows, asks, and recovers. `ask` is what the person types.
pub async fn recover(
    config: &Config,
    mode: Mode,
    out: &mut impl Write,
    ask: impl FnOnce() -> Option<String>,
) -> Result<(), DaemonError> {
    let data = DataDir::open(&config.data_dir)?;
    let Some(identity) = Identity::read(data.path())? else {
        return refused(Code::NotInitialized, "this machine is in no cluster");
    };
    let seen = holdfast_raft::survey(&data.raft()).await?;
    let keyring = Keyring::new(data.path());
    keyring.read(&identity)?;
    let words = words(&seen, identity.cluster, keyring.dialers()).await;
    say(out, &picture(&seen, &identity, &words, clock::wall()))?;
    if mode == Mode::Show {
        return Ok(());
    }
    if !seen.unfinished {
        check(&seen, &words)?;
        let id = identity.cluster.to_string();
        if mode == Mode::Ask {
            say(out, &format!("Type the cluster's id to go on: {id}\n> "))?;
            if ask().is_none_or(|typed| typed.trim() != id) {
                return refused(Code::InvalidArgument, "not confirmed; nothing was changed");
            }
        }
    }
    let by = std::env::var("SUDO_USER").unwrap_or_else(|_| "root".to_owned());
    let recovery = Recovery { by: format!("{by} on {}", identity.name), at: clock::wall() };
    let done = holdfast_raft::recover(&data.raft(), seen, recovery).await?;
    // A witness votes as one: it stays without a pool.
    let role = match identity.role {
        NodeRole::Witness => NodeRole::Witness,
        _ => NodeRole::Voter,
    };
    Identity { role, ..identity }.write(data.path())?;
    say(
        out,
        &format!(
            "Done: this node is the only voter, in generation {}. The log before is kept in {}.\n\
             Start holdfastd, look at `holdfast cluster status`, and let nodes join: with one voter \
             there is no other copy of the cluster's state.\n",
            done.generation,
            done.kept.display()
        ),
    )
}

fn refused<T>(code: Code, what: impl Into<String>) -> Result<T, DaemonError> {
    Err(DaemonError::Refused { code, what: what.into() })
}

fn say(out: &mut impl Write, text: &str) -> Result<(), DaemonError> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| DaemonError::Disk { path: "/dev/stdout".into(), source })
}

/// Whether the others are gone: a cluster that has its majority needs no recovery, and would be two.
fn check(seen: &Survey, words: &[(NodeId, Word)]) -> Result<(), DaemonError> {
    let alive = words.iter().filter(|(_, word)| *word == Word::Alive).map(|(id, _)| *id);
    let alive: Vec<String> = alive.map(|id| name(&seen.state, id)).collect();
    if (alive.len() + 1) * 2 > seen.voters.len() {
        let what = format!(
            "{} answer: with this node that is a majority, so start holdfastd here and nothing is \
             lost",
            alive.join(", ")
        );
        return refused(Code::WrongState, what);
    }
    if !alive.is_empty() {
        let what = format!(
            "{} answer: stop holdfastd there first, and recover on the node whose log ends latest",
            alive.join(", ")
        );
        return refused(Code::WrongState, what);
    }
    Ok(())
}

/// Asks every other voter whether it is there.
async fn words(seen: &Survey, cluster: ClusterId, dialers: Dialers) -> Vec<(NodeId, Word)> {
    let channels = Channels::new(dialers);
    let others = seen
        .members
        .iter()
        .filter(|peer| peer.node != seen.identity.node && seen.voters.contains(&peer.node));
    let asked = others.map(|peer| {
        let channel = channels.to(&peer.addr);
        async move {
            let Ok(channel) = channel else { return (peer.node, Word::Silent) };
            let mut client = ClusterServiceClient::new(channel);
            let word = match timeout(ANSWER, client.status(v1::StatusRequest {})).await {
                Ok(Ok(status)) if status.get_ref().cluster_id == cluster.to_string() => Word::Alive,
                // It is there and does not know yet, or knows and has no quorum.
                Ok(Err(status)) if is_there(&status) => Word::Alive,
                _ => Word::Silent,
            };
            (peer.node, word)
        }
    });
    futures::future::join_all(asked).await
}

/// A machine that is in no cluster is not the node that it was. One that is not believed, or does not
/// believe this one, is there all the same.
fn is_there(status: &tonic::Status) -> bool {
    let is_answer = is_answer(status);
    match holdfast_proto::RemoteError::from(status.clone()).code {
        Code::Untrusted => true,
        Code::NotInitialized => false,
        _ => is_answer,
    }
}

/// What is here, and what may be lost.
fn picture(seen: &Survey, me: &Identity, words: &[(NodeId, Word)], now: TimestampMs) -> String {
    let said = |(id, word): &(NodeId, Word)| match word {
        Word::Silent => format!("{} does not answer", name(&seen.state, *id)),
        Word::Alive => format!("{} ANSWERS", name(&seen.state, *id)),
    };
    let others: Vec<String> = words.iter().map(said).collect();
    let proposed = seen.last_entry.map_or("never".into(), |at| ago(now.since(at)));
    let unsure = seen.log_end.saturating_sub(seen.committed);
    let state = &seen.state;
    format!(
        "This node      {} (id {}) of cluster {}, generation {}\n\
         Other voters   {}\n\
         Its log        ends at entry {} of term {}, proposed {proposed}; last written here {}\n\
         Committed      for sure up to entry {}; {unsure} after it may never have been, and stay\n\
         In it          {} nodes, {} containers, {} images\n\
         May be lost    everything that others committed after entry {}, or in place of those {unsure}:\n\
         \x20              containers made or deleted, moves, takeovers, snapshots' names\n\
         What happens   this node becomes the only voter; every epoch leaps, so that whatever the\n\
         \x20              others still run or know is stale; the other voters never vote again. Their\n\
         \x20              machines must be off, or their daemons stopped, until this node is up: two\n\
         \x20              that see only each other would go on without it.\n{}",
        me.name,
        me.node,
        me.cluster,
        seen.generation,
        if others.is_empty() { "none".to_owned() } else { others.join(", ") },
        seen.log_end,
        seen.log_term,
        seen.last_write.map_or("never".into(), |at| ago(since(at, now))),
        seen.committed,
        state.nodes.len(),
        state.containers.len(),
        state.images.len(),
        seen.log_end,
        match seen.unfinished {
            true => "A recovery was begun here and not finished: it is finished now.\n",
            false => "",
        },
    )
}

fn name(state: &State, id: NodeId) -> String {
    state.nodes.get(&id).map_or_else(|| format!("node {id}"), |node| node.name.to_string())
}

fn since(at: SystemTime, now: TimestampMs) -> u64 {
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.since(TimestampMs(u64::try_from(at.as_millis()).unwrap_or(u64::MAX)))
}

fn ago(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..120 => format!("{s} s ago"),
        s @ 120..7_200 => format!("{} min ago", s / 60),
        s @ 7_200..172_800 => format!("{} h ago", s / 3_600),
        s => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_raft::Peer;

    fn seen(voters: u64) -> Survey {
        let node = NodeId(1);
        Survey {
            identity: holdfast_raft::Identity { cluster: ClusterId::generate(), node },
            generation: 0,
            log_end: 90,
            log_term: 3,
            committed: 88,
            term: 3,
            members: (1..=voters)
                .map(|n| Peer { node: NodeId(n), addr: format!("127.0.0.1:{n}") })
                .collect(),
            voters: (1..=voters).map(NodeId).collect(),
            last_entry: Some(TimestampMs(1_000)),
            last_write: None,
            state: State::default(),
            unfinished: false,
        }
    }

    /// I8: where a majority, or anybody with a vote, is still there, nothing is given up.
    #[test]
    fn nobody_who_answers_is_given_up() {
        let words = |alive: u64, all: u64| -> Vec<_> {
            let word = |n| if n <= alive + 1 { Word::Alive } else { Word::Silent };
            (2..=all).map(|n| (NodeId(n), word(n))).collect()
        };
        for (alive, voters, wanted) in
            [(0, 3, None), (1, 3, Some("a majority")), (1, 5, Some("stop holdfastd there first"))]
        {
            let checked = check(&seen(voters), &words(alive, voters));
            match (checked, wanted) {
                (Ok(()), None) => {}
                (Err(error), Some(wanted)) => {
                    assert_eq!(error.code(), Code::WrongState);
                    assert!(error.to_string().contains(wanted), "{error}");
                }
                (checked, _) => panic!("{alive} of {voters}: {checked:?}"),
            }
        }
    }

    #[test]
    fn a_person_sees_where_the_log_ends_and_what_is_unsure() {
        let seen = seen(3);
        let me = Identity {
            cluster: seen.identity.cluster,
            node: NodeId(1),
            name: "n1".parse().unwrap(),
            role: NodeRole::Voter,
            address: "127.0.0.1:1".into(),
            peers: Vec::new(),
        };
        let words = [(NodeId(2), Word::Silent), (NodeId(3), Word::Alive)];
        let text = picture(&seen, &me, &words, TimestampMs(61_000));
        for part in ["entry 90 of term 3", "60 s ago", "up to entry 88; 2 after", "node 3 ANSWERS"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
