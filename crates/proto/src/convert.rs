//! Between messages and the project's own types. Whatever comes off the wire is checked here.

use std::collections::BTreeMap;

use holdfast_types::{
    ByteSize, Code, ContainerSpec, DataVolume, Epoch, HeldSnapshot, IdError, Limits, NameError,
    Protection, Seq, SnapshotId, SnapshotUuid, VolumeError, VolumeUid,
};

use crate::{internal, v1};

/// A message field that is missing or holds what it may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A field that must be there is not.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A number out of its field's range.
    #[error("the field {0} is out of range")]
    Range(&'static str),
    /// A malformed id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A malformed name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A malformed data volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl FieldError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::Name(e) => e.code(),
            Self::Volume(e) => e.code(),
            Self::Missing(_) | Self::Range(_) | Self::Id(_) => Code::InvalidArgument,
        }
    }
}

/// The field, or the error that names it.
pub fn required<T>(field: Option<T>, name: &'static str) -> Result<T, FieldError> {
    field.ok_or(FieldError::Missing(name))
}

impl From<SnapshotId> for internal::SnapshotId {
    fn from(id: SnapshotId) -> Self {
        Self {
            volume: id.volume.to_bytes().into(),
            epoch: id.epoch.0,
            seq: id.seq.0,
            uuid: id.uuid.to_bytes().into(),
            parent: id.parent.map(|p| p.to_bytes().into()).unwrap_or_default(),
        }
    }
}

impl TryFrom<internal::SnapshotId> for SnapshotId {
    type Error = FieldError;
    fn try_from(id: internal::SnapshotId) -> Result<Self, FieldError> {
        let parent = (!id.parent.is_empty()).then(|| SnapshotUuid::try_from(&id.parent[..]));
        Ok(Self {
            volume: VolumeUid::try_from(&id.volume[..])?,
            epoch: Epoch(id.epoch),
            seq: Seq(id.seq),
            uuid: SnapshotUuid::try_from(&id.uuid[..])?,
            parent: parent.transpose()?,
        })
    }
}

impl From<HeldSnapshot> for internal::Holding {
    fn from(held: HeldSnapshot) -> Self {
        Self {
            volume: held.id.volume.to_bytes().into(),
            newest: Some(held.id.into()),
            age_ms: held.age_ms,
            removed: false,
        }
    }
}

impl From<&ContainerSpec> for v1::ContainerSpec {
    fn from(spec: &ContainerSpec) -> Self {
        Self {
            image: spec.image.as_ref().map(ToString::to_string).unwrap_or_default(),
            disk_bytes: spec.disk.bytes(),
            memory_bytes: spec.limits.memory.map(ByteSize::bytes),
            cpu_milli: spec.limits.cpu_milli,
            pids: spec.limits.pids,
            protection: match spec.protection {
                Protection::Protected => v1::Protection::Protected,
                Protection::Pinned => v1::Protection::Pinned,
            }
            .into(),
            copies: spec.copies.into(),
            replicate_every_ms: spec.replicate_every_ms,
            max_data_loss_ms: spec.max_data_loss_ms,
            priority: spec.priority,
            command: spec.command.clone(),
            env: spec.env.clone(),
            volumes: spec.volumes.iter().map(v1::DataVolume::from).collect(),
        }
    }
}

impl From<&DataVolume> for v1::DataVolume {
    fn from(volume: &DataVolume) -> Self {
        Self {
            name: volume.name.to_string(),
            size_bytes: volume.size.bytes(),
            path: volume.path.to_string(),
        }
    }
}

impl TryFrom<v1::DataVolume> for DataVolume {
    type Error = FieldError;
    fn try_from(volume: v1::DataVolume) -> Result<Self, FieldError> {
        let size = ByteSize(volume.size_bytes);
        Ok(Self { name: volume.name.parse()?, size, path: volume.path.parse()? })
    }
}

impl TryFrom<v1::ContainerSpec> for ContainerSpec {
    type Error = FieldError;

    /// Zero in a number that may not be zero means the default.
    fn try_from(spec: v1::ContainerSpec) -> Result<Self, FieldError> {
        let default = Self::default();
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let protection = match spec.protection() {
            v1::Protection::Pinned => Protection::Pinned,
            v1::Protection::Protected | v1::Protection::Unspecified => Protection::Protected,
        };
        let copies = match spec.copies {
            0 => default.copies,
            n => u8::try_from(n).map_err(|_| FieldError::Range("copies"))?,
        };
        let image = required((!spec.image.is_empty()).then_some(spec.image), "spec.image")?;
        Ok(Self {
            image: Some(image.parse()?),
            disk: ByteSize(or(spec.disk_bytes, default.disk.bytes())),
            limits: Limits {
                memory: spec.memory_bytes.map(ByteSize),
                cpu_milli: spec.cpu_milli,
                pids: spec.pids,
            },
            protection,
            copies,
            replicate_every_ms: or(spec.replicate_every_ms, default.replicate_every_ms),
            max_data_loss_ms: or(spec.max_data_loss_ms, default.max_data_loss_ms),
            priority: spec.priority,
            command: spec.command,
            env: spec.env.into_iter().collect::<BTreeMap<_, _>>(),
            volumes: spec
                .volumes
                .into_iter()
                .map(DataVolume::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_wire() {
        let spec = ContainerSpec {
            image: Some("busybox".parse().unwrap()),
            priority: -3,
            command: vec!["/bin/sh".into()],
            volumes: vec!["data=2GiB:/srv".parse().unwrap()],
            ..Default::default()
        };
        assert_eq!(ContainerSpec::try_from(v1::ContainerSpec::from(&spec)), Ok(spec));
    }

    #[test]
    fn a_snapshot_id_survives_the_wire_and_a_short_uuid_does_not() {
        let id = SnapshotId {
            volume: VolumeUid(uuid::Uuid::from_u128(1)),
            epoch: Epoch(2),
            seq: Seq(3),
            uuid: SnapshotUuid(uuid::Uuid::from_u128(4)),
            parent: None,
        };
        let message = internal::SnapshotId::from(id);
        assert_eq!(SnapshotId::try_from(message.clone()), Ok(id));
        let short = internal::SnapshotId { uuid: vec![1].into(), ..message };
        assert!(SnapshotId::try_from(short).is_err());
    }
}
