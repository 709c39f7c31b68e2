//! The life of a pool, for the operator: made, grown, moved from device to device, checked.
//!
//! Each operation is [`plan`]ned, shown, and then [`run()`]:
//! ```text
//! Request ─┐
//!          ├─ plan (pure) ─► Plan { steps } ─► run, step by step
//! Found ───┘                                        │ killed, power lost
//!   ▲                                               ▼
//!   └───────────────── look ◄────────── the same request once more
//! ```
//! What is so is read from LVM's own reports and from the devices ([`look()`]), never remembered. So
//! an interrupted operation is finished by the same request: what is done is found done, and is not
//! in the new plan. A step is one command whose effect LVM commits as a whole, or one that carries
//! [`MAKING`] or [`GROWING`] until it is complete.
//!
//! Programs are called with argument vectors, and names are [`Name`]s and paths below `/dev`: no
//! shell ever reads them.

mod check;
mod create;
mod devices;
mod found;
mod groups;
mod grow;
mod look;
mod members;
#[cfg(test)]
mod model;
mod name;
mod refusal;
mod repair;
mod report;
mod request;
mod run;
mod size;
mod step;

pub use check::{Finding, Severity, check};
pub use found::{Catalog, Device, Found, Group, Logical, Mapped, Physical, Piece, Tools};
pub use look::{Identity, identify, look};
pub(super) use look::{check_tools, why_unusable};
pub use name::Name;
pub use refusal::Refusal;
pub use request::{Change, Place, Request};
pub use run::{Progress, run};
pub use step::{Plan, Step};

/// The logical volume with the catalog.
pub(super) const CATALOG: &str = "holdfast_catalog";
/// A thin volume that nothing uses. A pool without any has another device, which changes its name
/// with the first; and a group with an active volume is not taken for unused. It is made last: a
/// pool without it was not finished.
pub(super) const ANCHOR: &str = "holdfast_anchor";
/// The thin pool, where no other was named.
pub const THIN_POOL: &str = "holdfast_pool";

/// A tag of a group that was made for a pool, by us.
const OURS: &str = "holdfast";
/// A tag of a logical volume that is not complete: what an interruption left of it is made anew.
const MAKING: &str = "holdfast.making";
/// A tag of the catalog's volume while its filesystem may not fill it: that is grown once more.
const GROWING: &str = "holdfast.growing";

/// What has to be done so that what was found becomes what is asked for. Nothing to do is a plan
/// without steps.
pub fn plan(request: &Request, found: &Found) -> Result<Plan, Refusal> {
    found.tools.check()?;
    let steps = match &request.change {
        Change::Create { place, wipe } => create::plan(request, place, wipe, found),
        Change::AddDevices { devices, wipe } => members::add(request, devices, wipe, found),
        Change::Evacuate { device } => members::evacuate(request, device, found),
        Change::RemoveDevice { device } => members::remove(request, device, found),
        Change::Grow { data, metadata } => grow::plan(request, *data, *metadata, found),
        Change::Split { devices, into } => groups::split(request, devices, into, found),
        Change::Merge { from } => groups::merge(request, from, found),
        Change::Repair => repair::plan(request, found),
    }?;
    Ok(Plan { steps, devices: found.accounts(request) })
}
