//! Log entries as the store keeps them.

use std::collections::BTreeMap;

use holdfast_core::{
    AddImage, AddToken, AdmitNode, Command, CreateContainer, CreateSnapshot, DecideTakeover, Entry,
    Evidence, Guarded, Hidden, HoldCause, HoldTakeover, InitCluster, LetIn, MarkNodeLost, NewNode,
    NodeRole, Origin, RaiseLevel, RecordFloor, RecordReport, RecoverCluster, RegisterNode,
    RemoveImage, RemoveNode, RemoveSnapshot, Resize, RestoreCluster, RestoreSnapshot, RestoredFrom,
    SetAuthorities, SetDesired, SetLabels, SetReplicas, SetRole, SetRoles, SetSchedule, TakeOver,
    TrustedAuthority,
};
use holdfast_types::{
    ByteSize, ClusterId, Code, ContainerSpec, ContainerUid, DesiredState, Epoch, FeatureLevel,
    HeldSnapshot, ImageUid, Incarnation, KeptBy, LeaseSettings, Limits, NodeId, OperationId,
    Protection, Report, RequestId, Revision, RunState, Seq, SnapshotId, SnapshotUuid, TimestampMs,
    VolumeUid,
};
use openraft::testing::blank_ent;
use openraft::{BasicNode, EntryPayload, Membership};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, Error, IgnoredAny, IntoDeserializer};
use uuid::Uuid;

use super::{NEWEST, Sample};
use crate::codec::{decode, encode, seal, unseal};
use crate::types::{EntryBytes, LogEntry, LogId, TypeConfig, Vote};

pub(super) fn id<T: for<'a> TryFrom<&'a [u8]>>(n: u8) -> T {
    T::try_from(&[n; 16][..]).ok().expect("16 bytes")
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    openraft::testing::log_id::<TypeConfig>(term, 2, index)
}

pub(super) fn samples() -> Vec<Sample> {
    let entries = log().into_iter().map(|(name, entry)| entry_sample(&name, entry));
    let marks = [
        Sample::sealed("vote", Vote::new(7, 2)),
        Sample::sealed("vote-committed", Vote::new_committed(u64::MAX / 4, 3)),
        Sample::sealed("purged", log_id(6, 40)),
        Sample::sealed("committed", Some(log_id(7, 1 << 40))),
        Sample::sealed("committed-none", None::<LogId>),
    ];
    entries.chain(later_entries()).chain(marks).collect()
}

/// What came after the data directory was kept.
fn later_entries() -> impl Iterator<Item = Sample> {
    later().into_iter().enumerate().map(|(n, command)| {
        let (request, at) = (id(0x80 + n as u8), TimestampMs(1_700_000_001_000 + n as u64));
        let name = format!("{}-later-{n}", name_of(&command));
        let bytes = EntryBytes::encode(&Entry { request, at, command }).unwrap();
        let mut entry = blank_ent::<TypeConfig>(9, 2, 100 + n as u64);
        entry.payload = EntryPayload::Normal(bytes);
        entry_sample(&name, entry)
    })
}

/// Compared by what the command says, for a later version encodes the same with more fields.
fn entry_sample(name: &str, entry: LogEntry) -> Sample {
    let same = entry.clone();
    Sample {
        level: NEWEST,
        name: format!("entry-{name}"),
        write: Box::new(move || seal(&entry).unwrap()),
        differs: Box::new(move |bytes| match unseal::<LogEntry>(bytes) {
            Err(e) => Some(format!("it {e}")),
            Ok(read) => entry_differs(&read, &same),
        }),
    }
}

pub(super) fn entry_differs(read: &LogEntry, meant: &LogEntry) -> Option<String> {
    let same = match (&read.payload, &meant.payload) {
        (EntryPayload::Normal(read), EntryPayload::Normal(meant)) => {
            read.decode() == meant.decode()
        }
        (read, meant) => read == meant,
    };
    (!same || read.log_id != meant.log_id).then(|| format!("it reads {read:?}, not {meant:?}"))
}

/// A log that has one entry of every kind, in an order in which most of them do something.
pub(super) fn log() -> Vec<(String, LogEntry)> {
    let nodes = [1, 2, 3].map(|n| (n, BasicNode::new(format!("10.0.0.{n}:7443"))));
    let members = |configs: Vec<_>| Membership::new(configs, BTreeMap::from(nodes.clone()));
    let plain = members(vec![[1].into()]).unwrap();
    let joint = members(vec![[1].into(), [1, 2].into()]).unwrap();
    let own = [
        ("membership", EntryPayload::Membership(plain)),
        ("blank", EntryPayload::Blank),
        ("membership-joint", EntryPayload::Membership(joint)),
    ];
    let own = own.into_iter().map(|(name, payload)| (name.to_owned(), payload));
    let commands = commands().into_iter().enumerate().map(|(n, command)| {
        let (request, at) =
            (id::<RequestId>(n as u8 + 1), TimestampMs(1_700_000_000_000 + n as u64));
        let name = name_of(&command);
        let name = match &command {
            Command::RecordReport(report) => format!("{name}-{}", name_of(&report.report)),
            _ => name,
        };
        let entry = Entry { request, at, command };
        (format!("{name}-{n}"), EntryPayload::Normal(EntryBytes::encode(&entry).unwrap()))
    });
    own.chain(commands)
        .enumerate()
        .map(|(index, (name, payload))| {
            let mut entry = blank_ent::<TypeConfig>(1 + index as u64 / 10, 2, index as u64);
            entry.payload = payload;
            (name, entry)
        })
        .collect()
}

const CONTAINER: u8 = 0x21;

fn node(name: &str, last: u8, role: NodeRole) -> NewNode {
    NewNode {
        name: name.parse().unwrap(),
        address: format!("10.0.0.{last}:7443"),
        underlay: [10, 0, 0, last].into(),
        role,
        asked: None,
    }
}

fn snapshot(epoch: u64, seq: u64, parent: Option<SnapshotUuid>) -> SnapshotId {
    let uid: ContainerUid = id(CONTAINER);
    let uuid = id(0x40 + seq as u8);
    SnapshotId { volume: VolumeUid::from(uid), epoch: Epoch(epoch), seq: Seq(seq), uuid, parent }
}

fn spec() -> ContainerSpec {
    ContainerSpec {
        image: Some("busybox".parse().unwrap()),
        disk: ByteSize::gib(2),
        limits: Limits { memory: Some(ByteSize::mib(64)), cpu_milli: Some(500), pids: Some(99) },
        protection: Protection::Protected,
        copies: 2,
        replicate_every_ms: 5_000,
        max_data_loss_ms: 60_000,
        priority: -3,
        command: vec!["/bin/sh".into(), "-c".into(), "exec sleep 1".into()],
        env: BTreeMap::from([("LANG".into(), "C.UTF-8 é".into())]),
        volumes: vec!["data=1GiB:/srv/data".parse().unwrap()],
    }
}

fn create(uid: u8, name: &str, origin: Option<Origin>) -> Command {
    Command::CreateContainer(CreateContainer {
        uid: id(uid),
        name: name.parse().unwrap(),
        spec: spec(),
        desired: DesiredState::Running,
        node: NodeId(1),
        replicas: [NodeId(2)].into(),
        operation: id(uid + 1),
        origin,
    })
}

/// One of every command, and one of every report.
pub(super) fn commands() -> Vec<Command> {
    let uid: ContainerUid = id(CONTAINER);
    let (cluster, epoch): (ClusterId, _) = (id(0x11), Epoch(1));
    let newest = snapshot(1, 1, None);
    let mut commands = vec![
        Command::InitCluster(InitCluster {
            cluster,
            lease: LeaseSettings::default(),
            overlay: "10.77.0.0/16".parse().unwrap(),
            founder: node("n1", 1, NodeRole::Voter),
        }),
        Command::AdmitNode(AdmitNode { node: node("n2", 2, NodeRole::Standby) }),
        Command::RegisterNode(RegisterNode { node: NodeId(1) }),
        Command::RegisterNode(RegisterNode { node: NodeId(2) }),
        Command::SetRole(SetRole { node: NodeId(2), role: NodeRole::Voter }),
        Command::AddImage(AddImage {
            uid: id(0x12),
            name: "busybox".parse().unwrap(),
            size: ByteSize::mib(64),
            snapshot: SnapshotId {
                volume: VolumeUid::from(id::<ImageUid>(0x12)),
                ..snapshot(0, 1, None)
            },
            entries: 400,
            content: ByteSize::mib(4),
            has_init: true,
            node: NodeId(1),
        }),
        create(CONTAINER, "web", None),
        Command::SetReplicas(SetReplicas { uid, epoch, replicas: [NodeId(2)].into() }),
        Command::RecordFloor(RecordFloor {
            copies: vec![(uid, NodeId(2), newest, TimestampMs(1_700_000_000_500))],
        }),
        Command::Resize(Resize { uid, volume: None, size: ByteSize::gib(3) }),
        Command::Resize(Resize {
            uid,
            volume: Some("data".parse().unwrap()),
            size: ByteSize::gib(2),
        }),
        Command::CreateSnapshot(CreateSnapshot {
            uid,
            name: "before".parse().unwrap(),
            uuid: id(0x42),
            by: KeptBy::Person,
            operation: Some(id(0x31)),
        }),
        Command::SetSchedule(SetSchedule { uid, keep: Some("hourly=24,daily=7".parse().unwrap()) }),
    ];
    commands.extend(reports().into_iter().map(|report| {
        let (node, incarnation) = (NodeId(1), Incarnation(1));
        Command::RecordReport(RecordReport { node, incarnation, report })
    }));
    let (from, before) = ("before".parse().unwrap(), "restored-1".parse().unwrap());
    let origin = Origin { uid, snapshot: "before".parse().unwrap() };
    commands.extend([
        create(0x51, "copy-of-web", Some(origin)),
        Command::RemoveSnapshot(RemoveSnapshot {
            uid,
            name: "before".parse().unwrap(),
            only: Some(KeptBy::Schedule),
        }),
        Command::SetDesired(SetDesired { uid, desired: DesiredState::Stopped }),
        Command::RestoreSnapshot(RestoreSnapshot {
            uid,
            from,
            before,
            before_uuid: id(0x43),
            operation: id(0x32),
        }),
        Command::MarkNodeLost(MarkNodeLost {
            node: NodeId(1),
            incarnation: Incarnation(1),
            evidence: Evidence::Silence { silent_ms: 4_300, required_ms: 4_281 },
        }),
        Command::MarkNodeLost(MarkNodeLost {
            node: NodeId(2),
            incarnation: Incarnation(1),
            evidence: Evidence::Relinquished,
        }),
        Command::HoldTakeover(HoldTakeover {
            uid,
            epoch,
            reason: "the newest copy is 90 s old".into(),
            cause: HoldCause::Data,
            for_person: true,
            offered: Some(HeldSnapshot { id: newest, age_ms: 90_000 }),
            without: [NodeId(3)].into(),
        }),
        Command::DecideTakeover(DecideTakeover { uid, approve: true }),
        Command::TakeOver(TakeOver {
            uid,
            from_epoch: epoch,
            from_incarnation: Incarnation(1),
            to: NodeId(2),
            branch: snapshot(1, 1, Some(id(0x40))),
            data_as_of: TimestampMs(1_700_000_000_500),
        }),
        Command::RemoveImage(RemoveImage { name: "busybox".parse().unwrap() }),
        Command::SetLabels(SetLabels {
            node: NodeId(1),
            set: [("domain".parse().unwrap(), "rack a".parse().unwrap())].into(),
            remove: ["disk".parse().unwrap()].into(),
            expect: Some(Revision(5)),
        }),
        Command::SetRoles(SetRoles {
            roles: [(NodeId(2), NodeRole::Standby)].into(),
            reason: "n2 is silent".into(),
        }),
        Command::Guarded(Guarded {
            since: Some(Revision(3)),
            expect: Some(Revision(9)),
            command: Box::new(Command::SetDesired(SetDesired {
                uid,
                desired: DesiredState::Deleted,
            })),
        }),
        Command::RemoveNode(RemoveNode { node: NodeId(4), force: true }),
        Command::RaiseLevel(RaiseLevel { to: FeatureLevel(1) }),
        Command::RecoverCluster(RecoverCluster {
            generation: 1,
            survivor: NodeId(1),
            members: [NodeId(1), NodeId(2)].into(),
            by: "root on n1".into(),
            log_end: 40,
            committed: 39,
        }),
        Command::RestoreCluster(RestoreCluster {
            cluster: id(0x61),
            founder: NewNode { asked: Some(NodeRole::Voter), ..node("n1", 9, NodeRole::Voter) },
            from: RestoredFrom {
                cluster: id(0x11),
                index: 41,
                taken: TimestampMs(1_700_000_000_600),
            },
        }),
    ]);
    commands
}

fn later() -> Vec<Command> {
    let authority = |n: u8| TrustedAuthority { certificate: vec![n; 3], key: Hidden(vec![n; 2]) };
    vec![
        Command::SetAuthorities(SetAuthorities {
            before: vec![vec![1; 3]],
            authorities: vec![authority(2), authority(1)],
            retiring: true,
            reason: "the old one goes".into(),
        }),
        Command::AddToken(AddToken {
            id: Uuid::from_u128(7),
            hash: [7; 32],
            by: "root of n1".into(),
            expires: TimestampMs(1_700_003_600_000),
        }),
        Command::LetIn(LetIn {
            token: Uuid::from_u128(7),
            hash: [7; 32],
            key: [9; 32],
            node: node("n9", 9, NodeRole::Worker),
        }),
    ]
}

fn reports() -> Vec<Report> {
    let uid: ContainerUid = id(CONTAINER);
    let (epoch, image): (_, ImageUid) = (Epoch(1), id(0x12));
    let failed = RunState::Failed { reason: "no init".into() };
    vec![
        Report::Run { uid, epoch, state: RunState::Running },
        Report::Run { uid, epoch, state: failed },
        Report::CopyRemoved { uid: id(0x77) },
        Report::ImageHeld { uid: image },
        Report::ImageLost { uid: image },
        Report::DivergedKept { uid, epoch, snapshot: id(0x44), changed_bytes: 4096 },
        Report::Resized { uid, epoch, sizes: vec![ByteSize::gib(3), ByteSize::gib(2)] },
        Report::ResizeFailed {
            uid,
            epoch,
            code: Code::PoolFull,
            reason: "the pool is full".into(),
        },
        Report::SnapshotTaken {
            epoch,
            id: SnapshotId { uuid: id(0x42), ..snapshot(1, 2, Some(id(0x41))) },
            taken: TimestampMs(1_700_000_000_700),
            size: ByteSize::gib(3),
        },
        Report::SnapshotFailed {
            uid,
            epoch,
            snapshot: id(0x45),
            code: Code::DiskIo,
            message: "the disk failed".into(),
        },
        Report::KeptHeld { uid, held: vec![id(0x42)] },
        Report::Restored { uid, epoch, operation: id::<OperationId>(0x32), failure: None },
        Report::Restored {
            uid,
            epoch,
            operation: id(0x33),
            failure: Some((Code::NotFound, "it is gone".into())),
        },
        Report::Notice {
            kind: "pool-full".into(),
            uid: Some(uid),
            message: "the pool is 95% full".into(),
        },
    ]
}

/// What the variant of an enum is called on disk.
fn name_of<T: serde::Serialize>(value: &T) -> String {
    let encoded = encode(value).unwrap();
    let map: BTreeMap<String, IgnoredAny> = decode(&encoded).unwrap();
    map.into_keys().next().unwrap()
}

/// The names of all variants, as serde tells them to whoever asks for one that is not there.
#[derive(Debug, Default)]
struct Variants(Vec<&'static str>);

impl std::fmt::Display for Variants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Variants {}

impl Error for Variants {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self::default()
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(expected.to_vec())
    }
}

fn variants<T: DeserializeOwned + std::fmt::Debug>() -> Vec<&'static str> {
    let none: StrDeserializer<'_, Variants> = "no such name".into_deserializer();
    T::deserialize(none).unwrap_err().0
}

/// A command or report that is added is kept from then on.
#[test]
fn there_is_a_sample_of_every_command_and_every_report() {
    let (commands, reports) = (commands(), reports());
    let commands: Vec<_> = commands.iter().chain(&later()).map(name_of).collect();
    let reports: Vec<_> = reports.iter().map(name_of).collect();
    for (known, sampled) in [(variants::<Command>(), commands), (variants::<Report>(), reports)] {
        assert!(known.len() > 9, "{known:?}");
        let missing: Vec<_> =
            known.iter().filter(|name| !sampled.iter().any(|s| s == **name)).collect();
        assert!(missing.is_empty(), "no sample of {missing:?}");
    }
}
