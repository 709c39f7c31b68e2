//! The replicated commands, one file each.

mod add_image;
mod admit_node;
mod create_container;
mod decide_takeover;
mod hold_takeover;
mod init_cluster;
mod mark_node_lost;
mod record_floor;
mod record_report;
mod register_node;
mod remove_image;
mod resize;
mod set_desired;
mod set_replicas;
mod set_role;
mod take_over;

pub use add_image::AddImage;
pub use admit_node::{AdmitNode, NewNode};
pub use create_container::CreateContainer;
pub use decide_takeover::DecideTakeover;
pub use hold_takeover::HoldTakeover;
pub use init_cluster::InitCluster;
pub use mark_node_lost::MarkNodeLost;
pub use record_floor::RecordFloor;
pub use record_report::RecordReport;
pub use register_node::RegisterNode;
pub use remove_image::RemoveImage;
pub use resize::Resize;
pub use set_desired::SetDesired;
pub use set_replicas::SetReplicas;
pub use set_role::SetRole;
pub use take_over::TakeOver;
