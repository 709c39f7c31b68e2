//! What a voter is sent, and what it is answered.
//!
//! The first byte of an input says what the rest is.

use openraft::raft::{AppendEntriesResponse, SnapshotResponse, VoteResponse};

use super::{all_kept, kept};
use crate::codec::decode;
use crate::net::{Call, well_formed};
use crate::types::TypeConfig;

const READERS: [fn(&[u8]); 5] = [
    |body| passes(Call::Append, body),
    |body| passes(Call::Vote, body),
    |body| passes(Call::Transfer, body),
    |body| passes(Call::Install, body),
    |body| {
        drop(decode::<AppendEntriesResponse<TypeConfig>>(body));
        drop(decode::<VoteResponse<TypeConfig>>(body));
        drop(decode::<SnapshotResponse<TypeConfig>>(body));
    },
];

/// Reads one message.
pub fn read(input: &[u8]) {
    let [which, body @ ..] = input else { return };
    READERS[usize::from(*which) % READERS.len()](body);
}

/// Each that is kept.
pub fn seeds() -> Vec<Vec<u8>> {
    let which = |name: &str| match name {
        n if !n.starts_with("rpc-") => None,
        n if n.contains("-answer") => Some(4),
        n if n.starts_with("rpc-append") => Some(0),
        n if n.starts_with("rpc-vote") => Some(1),
        n if n.starts_with("rpc-transfer") => Some(2),
        _ => Some(3),
    };
    let names = all_kept().into_iter().filter_map(|name| Some((which(&name)?, name)));
    names.map(|(which, name)| [&[which], &kept(&name)[..]].concat()).collect()
}

fn passes(call: Call, body: &[u8]) {
    let _passes = well_formed(call, body);
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_messages_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 60_000, super::read);
    }
}
