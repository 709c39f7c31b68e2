//! `holdfastd`: the composition root. It joins consensus, the controller, the agent and the API
//! into one node, and is the only crate that knows all of them.
//!
//! | file | what it is for |
//! |---|---|
//! | `startup`, `found`, `join` | from a process to a node |
//! | `recover`, `restore`, `backup` | after a disaster, and before one |
//! | `data_dir`, `identity` | who this machine is, and that nothing contradicts it |
//! | `serve`, `accept`, `gate` | listening, and answering only as far as the node is |
//! | `keyring`, `certify`, `renew`, `authorize` | who this node is, who others are, and what they may do |
//! | `reign`, `ports`, `membership` | the controller's loops while this process leads |
//! | `leader` | what nodes ask of the leader: admission, leases, views, reports |
//! | `api`, `forward`, `convert` | what clients ask, of any node |
//! | `doctor` | whether a machine is fit to be a node |
//! | `machine`, `host`, `pools`, `survey` | what is needed of the machine, and the real one: the agent, the pool |

mod accept;
mod api;
mod authorize;
mod backup;
mod certify;
mod channels;
mod clock;
mod config;
mod convert;
mod data_dir;
mod doctor;
mod error;
mod fault;
mod forward;
mod found;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod hints;
mod host;
mod identity;
mod join;
mod keyring;
mod leader;
mod machine;
mod member;
mod membership;
mod metrics;
mod peers;
mod pools;
mod ports;
mod reading;
mod recover;
mod reign;
mod relay;
mod remember;
mod renew;
mod restore;
mod seen;
mod serve;
mod startup;
mod survey;
mod warnings;

pub use config::{
    Config, ConsensusConfig, DEFAULT_CONFIG, GuardianConfig, LxcConfig, NetworkConfig, PoolConfig,
    PoolDriver,
};
pub use doctor::{Diagnosis, Finding, Grade, examine};
pub use error::DaemonError;
pub use host::Host;
pub use identity::Identity;
pub use machine::{Duties, Machine, MachineError, NewPool, PoolChange, PoolNews, Unpacked};
pub use recover::{Mode, recover};
pub use startup::Daemon;
