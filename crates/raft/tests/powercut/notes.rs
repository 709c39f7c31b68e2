//! What was said to the world, noted where no power cut reaches: each acknowledged write, each vote,
//! each leader that was followed, each state's hash. And what must be true of all of it together.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_types::RequestId;

/// The state remembers somewhat more answers than these.
const REMEMBERED: usize = 6_000;

/// A file that lines are added to, by all processes.
pub(crate) struct Notes {
    path: PathBuf,
    file: Mutex<File>,
}

impl Notes {
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Self { path: path.to_owned(), file: Mutex::new(file) }
    }

    /// The line is outside of the guest when this returns.
    pub(crate) fn write(&self, line: impl Display) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        file.sync_all().unwrap();
    }

    pub(crate) fn read(&self) -> Told {
        Told::parse(&std::fs::read_to_string(&self.path).unwrap())
    }
}

/// Everything that was noted, in order where order matters.
#[derive(Default)]
pub(crate) struct Told {
    acked: Vec<RequestId>,
    /// By node and term: for whom it voted, each time.
    votes: BTreeMap<(u64, u64), Vec<u64>>,
    /// By node: the newest term in which it voted or followed.
    newest: BTreeMap<u64, u64>,
    leaders: BTreeMap<u64, Vec<u64>>,
    hashes: BTreeMap<u64, Vec<String>>,
    lines: Vec<String>,
}

impl Told {
    fn parse(text: &str) -> Self {
        let mut told = Self::default();
        for line in text.lines() {
            let number = |word: &str| word.parse::<u64>().unwrap();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["acked", id] => told.acked.push(id.parse().unwrap()),
                ["vote", node, term, candidate] => {
                    let votes = told.votes.entry((number(node), number(term))).or_default();
                    votes.push(number(candidate));
                    told.saw(number(node), number(term));
                }
                // It may have voted for another, who did not win.
                ["follows", node, term, leader] => {
                    told.saw(number(node), number(term));
                    told.leaders.entry(number(term)).or_default().push(number(leader));
                }
                ["leads", node, term] => {
                    told.leaders.entry(number(term)).or_default().push(number(node));
                }
                ["hash", _, index, hash] => {
                    told.hashes.entry(number(index)).or_default().push((*hash).to_owned());
                }
                _ => told.lines.push(line.to_owned()),
            }
        }
        told
    }

    fn saw(&mut self, node: u64, term: u64) {
        let newest = self.newest.entry(node).or_default();
        *newest = term.max(*newest);
    }

    /// Whether exactly this was noted.
    pub(crate) fn says(&self, line: &str) -> bool {
        self.lines.iter().any(|said| said == line)
    }

    pub(crate) fn acked(&self) -> usize {
        self.acked.len()
    }

    /// The acknowledged writes that a state must remember.
    pub(crate) fn remembered(&self) -> &[RequestId] {
        &self.acked[self.acked.len().saturating_sub(REMEMBERED)..]
    }

    /// The newest term in which the node has voted or followed; 0 if it never did.
    pub(crate) fn newest_term(&self, node: u64) -> u64 {
        self.newest.get(&node).copied().unwrap_or(0)
    }

    /// I1, I2, I4: a node gives one vote a term and never takes it back, a term has one leader, and
    /// an index has one state, whoever applied it and however often.
    pub(crate) fn judge(&self) -> Result<String, String> {
        for ((node, term), votes) in &self.votes {
            if votes.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!("node {node} gave its vote of term {term} to {votes:?}"));
            }
        }
        for (term, leaders) in &self.leaders {
            if leaders.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!("term {term} had the leaders {leaders:?}"));
            }
        }
        let mut compared = 0;
        for (index, hashes) in &self.hashes {
            if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!("entry {index} made the states {hashes:?}"));
            }
            compared += hashes.len();
        }
        Ok(format!(
            "{} acknowledged writes, {} votes, {} terms with a leader, {compared} hashes of {} states",
            self.acked.len(),
            self.votes.len(),
            self.leaders.len(),
            self.hashes.len(),
        ))
    }
}

#[test]
fn what_contradicts_itself_is_seen() {
    let judge = |text: &str| Told::parse(text).judge().err().unwrap_or_default();
    assert_eq!(judge("vote 1 4 2\nvote 1 5 3\nvote 2 4 2\nfollows 1 4 2\nleads 2 4\n"), "");
    assert!(judge("vote 1 4 2\nvote 2 4 3\nvote 1 4 1\n").contains("node 1 gave its vote"));
    assert_eq!(judge("vote 1 4 2\nfollows 1 4 3\n"), "", "its candidate lost");
    assert!(judge("follows 1 4 3\nleads 2 4\n").contains("term 4 had"));
    assert_eq!(judge("hash 1 50 aa\nhash 1 100 bb\nhash 2 50 aa\n"), "");
    assert!(judge("hash 1 50 aa\nhash 2 50 ab\n").contains("entry 50"));
}

#[test]
fn what_was_noted_is_found_again() {
    let request = RequestId::generate();
    let told = Told::parse(&format!("formatted 1\nvote 3 7 2\nacked {request}\nfollows 3 6 2\n"));
    assert!(told.says("formatted 1") && !told.says("formatted 2"));
    assert_eq!((told.newest_term(3), told.newest_term(1)), (7, 0));
    assert_eq!((told.acked(), told.remembered()), (1, &[request][..]));
}
