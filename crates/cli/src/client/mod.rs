//! A client of the public API that survives the loss of the node it was talking to.
//!
//! A [`Session`] knows several addresses of one cluster. A call goes to one of them; when that one
//! fails, or is silent for a moment, the same request (with the same request id, so that it applies
//! once: I7) goes to the next as well, and the first useful answer wins. What counts as useful,
//! and how long to go on, is decided by [`retry`], which is pure.

mod addresses;
mod calls;
mod follow;
pub mod retry;
mod session;

pub use addresses::{ADDRESS_FILE, AddressesError, DEFAULT_SOCKET, discover, parse_list};
pub use calls::{NewToken, import_start};
pub use session::{Freshness, Session};
