//! The public objects as they are printed: structs whose field names are the public API's, which is
//! what makes `-o json` stable, and the rows of their tables. Enums become lower-case words.

mod backup;
mod cluster;
mod container;
mod event;
mod image;
mod operation;
mod pool;
mod snapshot;

pub(crate) use backup::{BackupView, RestoredView};
pub(crate) use cluster::{NodeView, StatusView, role_word};
pub(crate) use container::{ContainerView, DivergedView, ReplicaView};
pub(crate) use event::EventView;
pub(crate) use image::ImageView;
pub(crate) use operation::OperationView;
pub(crate) use pool::PoolView;
pub(crate) use snapshot::{ScheduleView, SnapshotView};

/// The word of a protobuf enum value: `NODE_ROLE_VOTER` without its prefix, `voter`.
fn word(name: &str, prefix: &str) -> String {
    let short = name.strip_prefix(prefix).unwrap_or(name);
    match short {
        "UNSPECIFIED" => "unknown".to_owned(),
        short => short.to_ascii_lowercase().replace('_', "-"),
    }
}
