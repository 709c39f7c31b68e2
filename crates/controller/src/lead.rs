//! All loops of one leadership.

use std::sync::Arc;

use crate::leadership::Leadership;
use crate::ports::Ports;
use crate::{lost, schedule, takeover, upkeep};

/// Leads until dropped. The caller drops the future when the leadership ends.
pub async fn lead<P: Ports>(ports: Arc<P>, leadership: Arc<Leadership>) {
    tokio::join!(
        lost::watch(&*ports, &leadership),
        takeover::run(&*ports, &leadership),
        upkeep::run(&*ports, &leadership),
        schedule::run(&*ports, &leadership),
    );
}
