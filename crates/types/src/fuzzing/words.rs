//! Every text that becomes a word: what is taken is printed, and that is taken again as the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::{
    ByteSize, CidrV4, ClusterId, Code, ContainerName, ContainerSpec, ContainerUid, DataVolume,
    Epoch, ImageName, ImageUid, Incarnation, KeepRules, LabelKey, LabelValue, Limits, MacAddr,
    MountPath, NodeId, NodeName, OperationId, PoolName, RequestId, Revision, Seq, SnapshotName,
    SnapshotUuid, TimestampMs, VolumeName, VolumeUid,
};

/// The first byte of an input says which; the rest is the text.
const WORDS: [fn(&str); 27] = [
    word::<NodeName>,
    word::<ContainerName>,
    word::<ImageName>,
    word::<SnapshotName>,
    word::<VolumeName>,
    word::<PoolName>,
    word::<LabelKey>,
    word::<LabelValue>,
    word::<MacAddr>,
    word::<CidrV4>,
    word::<MountPath>,
    word::<KeepRules>,
    code,
    word::<NodeId>,
    word::<Incarnation>,
    word::<Epoch>,
    word::<Seq>,
    word::<Revision>,
    word::<ClusterId>,
    word::<ContainerUid>,
    word::<ImageUid>,
    word::<VolumeUid>,
    word::<SnapshotUuid>,
    word::<RequestId>,
    word::<OperationId>,
    size,
    spec,
];

/// Reads one text.
pub fn read(input: &[u8]) {
    let [which, text @ ..] = input else { return };
    if let Ok(text) = std::str::from_utf8(text) {
        WORDS[usize::from(*which) % WORDS.len()](text);
    }
}

/// One or more of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = "0192f0c1-2b3c-7d4e-8f50-a1b2c3d4e5f6";
    let of = |which: usize| match which {
        0..7 => vec!["web-1"],
        7 => vec!["rack 1, ß"],
        8 => vec!["02:48:0a:4d:00:05"],
        9 => vec!["10.77.0.0/16", "0.0.0.0/0"],
        10 => vec!["/srv/a_b.c"],
        11 => vec!["hourly=24,daily=7,monthly=1"],
        12 => vec![Code::PoolFull.as_str()],
        13..18 => vec!["7", "18446744073709551615"],
        18..25 => vec![id],
        25 => vec!["10GiB", "4096", "16777215TiB"],
        _ => vec!["1GiB\n2\n5000\n60000\ndata=50GiB:/srv\nlogs=1GiB:/var/log"],
    };
    let seed = |which: usize, text: &str| [&[which as u8], text.as_bytes()].concat();
    let all = (0..WORDS.len()).flat_map(|which| of(which).into_iter().map(move |t| (which, t)));
    all.map(|(which, text)| seed(which, text)).collect()
}

fn word<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(word) => {
            assert_eq!(word.to_string().parse::<T>().ok().as_ref(), Some(&word), "{text:?}")
        }
        Err(refusal) => drop(refusal.to_string()),
    }
}

/// What an error is called; a text that is no code has nothing to say.
fn code(text: &str) {
    let is_known = Code::ALL.iter().any(|code| code.as_str() == text);
    assert_eq!(text.parse::<Code>().is_ok(), is_known, "{text:?}");
}

/// A size is printed for people, and may be rounded then.
fn size(text: &str) {
    let Ok(size) = text.parse::<ByteSize>() else { return };
    drop(size.to_string());
    drop(TimestampMs(size.bytes()).in_a_name());
}

/// One setting a line, then data volumes.
fn spec(text: &str) {
    let mut lines = text.split('\n');
    let mut number = || lines.next().and_then(|line| line.parse::<ByteSize>().ok());
    let mut spec = ContainerSpec { image: "image".parse().ok(), ..ContainerSpec::default() };
    let numbers = [number(), number(), number(), number()].map(|n| n.map_or(0, ByteSize::bytes));
    spec.disk = ByteSize(numbers[0]);
    spec.limits = Limits { memory: Some(ByteSize(numbers[0])), ..Limits::default() };
    (spec.copies, spec.replicate_every_ms) = (numbers[1] as u8, numbers[2]);
    spec.max_data_loss_ms = numbers[3];
    spec.volumes = lines.filter_map(|line| line.parse::<DataVolume>().ok()).collect();
    drop((spec.check().map_err(|refusal| refusal.to_string()), spec.promised()));
    for volume in &spec.volumes {
        assert!(volume.path.parts().all(|part| part != ".." && !part.is_empty()));
        drop(volume.to_string());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_texts_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 400_000, super::read);
    }
}
