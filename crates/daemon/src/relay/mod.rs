//! Calls passed on to another node, most often the leader, over one stream for all of them.
//!
//! Opening an HTTP/2 stream for each costs both nodes more processor time than what most calls do. So
//! what waits at one moment goes in one message, and so do the answers that are ready:
//!
//! ```text
//! caller ─┐                                     ┌─▶ handler
//! caller ─┼▶ Relay ══ one stream, batches ══▶ RelayApi ─▶ handler
//! caller ─┘     ◀═══ answers as they come ═══   └─▶ handler
//! ```
//!
//! Both ends speak HTTP of one process: clients and handlers are those of any call, and do not know. A
//! stream that breaks breaks every call that is on it, as a broken connection does; the next call opens
//! another. Only unary calls go this way, and none that waits on purpose: what its caller gives up goes on
//! here, where a call by itself would be ended.

mod answer;
mod ask;
#[cfg(test)]
mod tests;

use holdfast_proto::MAX_MESSAGE_BYTES;
use holdfast_proto::internal::RelayHeader;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;

pub(crate) use self::answer::RelayApi;
#[cfg(any(test, fuzzing))]
pub(crate) use self::answer::{Relayed, made};
pub(crate) use self::ask::Relay;
#[cfg(any(test, fuzzing))]
pub(crate) use self::ask::respond;

/// Calls or answers in one message,
const MOST: usize = 64;

/// of which all but the last have no more bytes than this together.
const ENOUGH_BYTES: usize = 256 << 10;

/// What a message may be: the last call in it may be as large as any.
const MAX_BATCH_BYTES: usize = MAX_MESSAGE_BYTES + 2 * ENOUGH_BYTES;

/// A call's or an answer's headers, at most: many more than any has.
const MAX_HEADERS: usize = 64;

/// What waits to be sent; who comes later waits before that.
const WAITING: usize = 1024;

/// The first, and what else waits now.
fn batch<T>(first: T, more: &mut mpsc::Receiver<T>, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut size = bytes(&first);
    let mut batch = vec![first];
    while batch.len() < MOST && size < ENOUGH_BYTES {
        let Ok(next) = more.try_recv() else { break };
        size += bytes(&next);
        batch.push(next);
    }
    batch
}

/// What gRPC itself says to each connection is not passed on.
fn passed_on(headers: &HeaderMap) -> Vec<RelayHeader> {
    const OURS_TO_SAY: [&str; 5] = ["content-type", "te", "user-agent", "date", "content-length"];
    let said = headers.iter().filter(|(name, _)| !OURS_TO_SAY.contains(&name.as_str()));
    let header = |(name, value): (&HeaderName, &HeaderValue)| RelayHeader {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec().into(),
    };
    said.map(header).collect()
}

/// The first of the headers that came, those that are none left out.
fn received(headers: Vec<RelayHeader>) -> HeaderMap {
    let header = |RelayHeader { name, value }| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::from_maybe_shared(value).ok()?))
    };
    headers.into_iter().filter_map(header).take(MAX_HEADERS).collect()
}
