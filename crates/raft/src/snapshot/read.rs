//! Reading a snapshot: one thread reads, hashes and cuts out the containers' rows, others decode
//! them, one puts the rows in their place. A million containers take a few seconds so, and no more
//! memory than they need.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use holdfast_core::{Container, Containers, State};
use holdfast_types::{ContainerUid, ImageName};
use serde::Deserialize;

use super::format::{Fault, HASH_BYTES, Header, read_header};
use super::scan::Source;

/// Rows that are decoded together, in bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that may wait, for each decoder.
const WAITING: usize = 4;
const MAX_DECODERS: usize = 16;
/// The field whose rows are cut out.
const CONTAINERS: &str = "containers";

/// Reads a snapshot of `size_bytes` in all, and believes it only if its hash is right.
pub(crate) fn decode(mut input: impl Read, size_bytes: u64) -> Result<(Header, State), Fault> {
    let (header, hash, content) = read_header(&mut input)?;
    let short = || Fault::Damaged("it is too short".into());
    let body = size_bytes.checked_sub(content + HASH_BYTES).ok_or_else(short)?;
    let mut source = Source::new((&mut input).take(body), hash);
    let state = read_state(&mut source);
    let (rest, hash) = source.finish()?;
    let mut expected = [0; HASH_BYTES as usize];
    input.read_exact(&mut expected).map_err(|_| short())?;
    // Whatever the content seemed to be: first of all it must be what was written.
    if hash != expected {
        return Err(Fault::Damaged("its checksum does not match".into()));
    }
    let state = state?;
    if rest > 0 {
        return Err(Fault::Unknown("is followed by something else".into()));
    }
    Ok((header, state))
}

struct Batch {
    number: u64,
    rows: u64,
    bytes: Vec<u8>,
}

type Rows = Vec<(ContainerUid, Arc<Container>)>;
type Decoded = (u64, Result<Rows, Fault>);

fn read_state(source: &mut Source<impl Read>) -> Result<State, Fault> {
    let decoders = thread::available_parallelism().map_or(1, usize::from).min(MAX_DECODERS);
    let (batches, waiting) = sync_channel(WAITING * decoders);
    let (done, decoded) = sync_channel(WAITING * decoders);
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..decoders {
            let (waiting, done) = (&waiting, done.clone());
            scope.spawn(move || decode_batches(waiting, &done));
        }
        drop(done);
        let rows = scope.spawn(move || collect(&decoded));
        let rest = cut(source, batches);
        let containers = rows.join().unwrap_or_else(|_| Err(Fault::Unknown("broke us".into())));
        let mut state: State = rmp_serde::from_slice(&rest?).map_err(unknown)?;
        state.containers = containers?;
        state.share_texts();
        Ok(state)
    })
}

/// Sends the containers' rows to the decoders. Returns the state without them.
fn cut(source: &mut Source<impl Read>, out: SyncSender<Batch>) -> Result<Vec<u8>, Fault> {
    let fields = source.map()?;
    // A map of up to 2^32 fields; how many is known at the end.
    let mut rest = vec![0xdf, 0, 0, 0, 0];
    let mut kept = 0u32;
    for _ in 0..fields {
        let mut name = Vec::new();
        source.value(&mut name)?;
        if rmp_serde::from_slice::<&str>(&name).is_ok_and(|name| name == CONTAINERS) {
            cut_rows(source, &out)?;
        } else {
            kept += 1;
            rest.extend(name);
            source.value(&mut rest)?;
        }
    }
    rest[1..5].copy_from_slice(&kept.to_be_bytes());
    Ok(rest)
}

fn cut_rows(source: &mut Source<impl Read>, out: &SyncSender<Batch>) -> Result<(), Fault> {
    let empty = |number| Batch { number, rows: 0, bytes: Vec::with_capacity(BATCH_BYTES * 5 / 4) };
    let mut batch = empty(0);
    for _ in 0..source.map()? {
        source.value(&mut batch.bytes)?;
        source.value(&mut batch.bytes)?;
        batch.rows += 1;
        if batch.bytes.len() >= BATCH_BYTES {
            let next = empty(batch.number + 1);
            // Nobody takes it if one before it was of no known version: that is told already.
            drop(out.send(std::mem::replace(&mut batch, next)));
        }
    }
    drop(out.send(batch));
    Ok(())
}

fn decode_batches(waiting: &Mutex<Receiver<Batch>>, done: &SyncSender<Decoded>) {
    let mut images = BTreeSet::new();
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        let number = batch.number;
        if done.send((number, decode_batch(&batch, &mut images))).is_err() {
            return;
        }
    }
}

fn decode_batch(batch: &Batch, images: &mut BTreeSet<ImageName>) -> Result<Rows, Fault> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(&batch.bytes);
    let mut rows = Vec::new();
    for _ in 0..batch.rows {
        let uid = ContainerUid::deserialize(&mut decoder).map_err(unknown)?;
        let mut container = Container::deserialize(&mut decoder).map_err(unknown)?;
        if let Some(image) = &mut container.spec.image {
            // A million containers of one image need its name once.
            match images.get(&*image) {
                Some(shared) => *image = shared.clone(),
                None => {
                    images.insert(image.clone());
                }
            }
        }
        rows.push((uid, Arc::new(container)));
    }
    Ok(rows)
}

/// In their order, which is the fastest to put them in, and the densest.
fn collect(decoded: &Receiver<Decoded>) -> Result<Containers, Fault> {
    let mut containers = Containers::default();
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut first_fault = None;
    // To the end whatever comes, or those who send would wait for ever.
    for (number, rows) in decoded {
        match rows {
            Ok(rows) => drop(early.insert(number, rows)),
            Err(fault) => first_fault = first_fault.or(Some(fault)),
        }
        while let Some(rows) = early.remove(&next) {
            for (uid, container) in rows {
                containers.insert(uid, container);
            }
            next += 1;
        }
    }
    first_fault.map_or(Ok(containers), Err)
}

fn unknown(error: rmp_serde::decode::Error) -> Fault {
    Fault::Unknown(format!("cannot be decoded: {error}"))
}
