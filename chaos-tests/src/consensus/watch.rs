//! Looking at the nodes while all goes on: each one's own account, by its metrics. Where two have got to
//! the same entry their states are the same (I4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// By index: the hash, and the nodes that had it.
    hashes: BTreeMap<u64, (u64, BTreeSet<usize>)>,
    /// By term: who led.
    leaders: BTreeMap<u64, usize>,
    /// By node: the newest index that it has a hash of.
    newest: BTreeMap<usize, u64>,
    pub(super) violations: Vec<String>,
}

/// One node's account.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    term: u64,
    leads: bool,
    hash: Option<(u64, u64)>,
}

impl Watch {
    /// Looks at these nodes for ever.
    pub(super) async fn run(&self, nodes: &[SocketAddr]) {
        loop {
            for (node, address) in nodes.iter().enumerate() {
                if let Ok(Ok(page)) = timeout(ANSWER_LIMIT, get(*address)).await {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.note(node, &Account::read(&page));
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// How far nodes are is to be seen anew.
    pub(super) fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).newest.clear();
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Seen {
    fn note(&mut self, node: usize, account: &Account) {
        if account.leads {
            // Not proof of two leaders (I1): one that was deposed may know the new term already.
            self.leaders.entry(account.term).or_insert(node);
        }
        let Some((index, hash)) = account.hash else { return };
        self.newest.insert(node, index);
        let (first, nodes) = self.hashes.entry(index).or_insert((hash, BTreeSet::new()));
        if *first != hash {
            self.violations.push(format!(
                "at entry {index} node {node} has another state than {nodes:?}, counted from 0"
            ));
        }
        nodes.insert(node);
    }

    /// How often the state of another node was compared at the same entry.
    pub(super) fn compared(&self) -> u64 {
        self.hashes.values().map(|(_, nodes)| nodes.len() as u64 - 1).sum()
    }

    /// How often somebody else began to lead.
    pub(super) fn leader_changes(&self) -> u64 {
        (self.leaders.len() as u64).saturating_sub(1)
    }

    /// Whether all of so many nodes have got to the same entry.
    pub(super) fn level(&self, nodes: usize) -> bool {
        let newest: BTreeSet<_> = self.newest.values().collect();
        self.newest.len() == nodes && newest.len() == 1
    }
}

impl Account {
    fn read(page: &str) -> Self {
        let sample = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.trim().parse::<u64>().ok()
        };
        Self {
            term: sample("holdfast_raft_term").unwrap_or(0),
            leads: sample("holdfast_leader") == Some(1),
            hash: sample("holdfast_state_hash_index").zip(sample("holdfast_state_hash")),
        }
    }
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_a_page() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP holdfast_leader Whether.\nholdfast_leader 1\n\
                    holdfast_raft_term 7\nholdfast_state_hash_index 2048\nholdfast_state_hash 99\n";
        let account = Account { term: 7, leads: true, hash: Some((2048, 99)) };
        assert_eq!(Account::read(page), account);
        assert_eq!(Account::read("").hash, None);
    }

    /// I4.
    #[test]
    fn states_that_part_are_seen() {
        let account = |term, hash| Account { term, leads: true, hash: Some((1024, hash)) };
        let mut seen = Seen::default();
        seen.note(0, &account(3, 5));
        seen.note(1, &account(4, 5));
        assert_eq!((seen.violations.len(), seen.compared(), seen.leader_changes()), (0, 1, 1));
        assert!(seen.level(2) && !seen.level(3));
        seen.note(1, &account(3, 6));
        assert_eq!(seen.violations.len(), 1, "{:?}", seen.violations);
    }
}
