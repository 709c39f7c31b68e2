//! What becomes of a transfer that was interrupted: it goes on, even if there is something newer, or
//! begins anew, and that is said.

use holdfast_storage::{SnapshotInfo, VolumeState};

use crate::error::AgentError;
use crate::replicate::news::tell;
use crate::replicate::ship::Offered;
use crate::replicate::slots::Slot;
use crate::replicate::target::{Target, UNKNOWN};

impl Target {
    /// What the replica has the beginning of, if it can go on from here and is on the way.
    pub(super) fn interrupted(
        &self,
        offered: &Offered,
        newest: &SnapshotInfo,
    ) -> Option<SnapshotInfo> {
        let uuid = offered.under_way.filter(|uuid| self.unfit != Some(*uuid))?;
        let state = self.context.parts()?.pool.volume(self.uid.into()).ok()?.state;
        let older = state.sound().find(|s| s.id.uuid == uuid)?;
        let acked = self.bases.of(self.node).and_then(|uuid| state.find(uuid));
        let after = acked.is_none_or(|acked| acked.id.order() < older.id.order());
        let before = older.id.order() < newest.id.order() && older.id.epoch == newest.id.epoch;
        (after && before).then(|| older.clone())
    }

    /// Goes on with an interrupted transfer. Returns whether there was anything to go on with.
    pub(super) async fn go_on(
        &mut self,
        older: &SnapshotInfo,
        address: &str,
        slot: &Slot,
    ) -> Result<bool, AgentError> {
        let offered = match self.offer(older, address).await {
            Ok(offered) => offered,
            Err(error) if error.code().retryable() => return Err(error),
            Err(_) => return Ok(false),
        };
        if offered.resume_at == 0 && !offered.there {
            return Ok(false);
        }
        self.hold(older);
        let as_of_ms = self.sent.filter(|(uuid, _)| *uuid == older.id.uuid).map(|(_, ms)| ms);
        let sent = self.send(older, as_of_ms.unwrap_or(UNKNOWN), &offered, address, slot).await;
        let hopeless =
            |e: &AgentError| matches!(e, AgentError::Storage(_)) || !e.code().retryable();
        if sent.as_ref().is_err_and(hopeless) {
            // It cannot be read or is not taken; the newest perhaps is.
            self.unfit = Some(older.id.uuid);
        }
        sent?;
        self.arrived(older);
        Ok(true)
    }

    /// The replica has it, verified and durable.
    pub(super) fn arrived(&mut self, snapshot: &SnapshotInfo) {
        self.bases.acknowledge(self.node, snapshot.id.uuid);
        self.given.add(snapshot.id.uuid);
    }

    /// Keeps what is sent until the replica acknowledges something.
    pub(super) fn hold(&self, snapshot: &SnapshotInfo) {
        let pool = self.context.parts().map(|parts| parts.pool.clone());
        if let Some(hold) = pool.and_then(|pool| pool.hold(snapshot.id.uuid).ok()) {
            self.bases.hold(self.node, hold);
        }
    }

    /// The replica had something, and no snapshot that it has is here any more (or the other way
    /// round): everything since the image is shipped again.
    pub(super) async fn tell_resync(&mut self, offered: &Offered) {
        let Ok(assigned) = self.assigned() else { return };
        let pool = self.context.parts().map(|parts| parts.pool.clone());
        let state = pool.and_then(|pool| pool.volume(self.uid.into()).ok()).map(|v| v.state);
        let Some(state) = state else { return };
        let floor = assigned.replicas.iter().find(|copy| copy.node == self.node);
        let had = self.bases.of(self.node).or(floor.and_then(|copy| copy.newest)).is_some();
        let Some(how) = resync(&state, had, offered).filter(|_| !self.resync_told) else { return };
        let node = self.context.peer(self.node).map(|peer| peer.name.to_string());
        let node = node.unwrap_or_else(|| self.node.to_string());
        let message = format!(
            "the copy of {} on {node} shares no snapshot with the primary any more: it is shipped \
             {how} again",
            assigned.name
        );
        self.resync_told = tell(&self.context, self.uid, "full-resync", message).await;
    }
}

/// How a replica that had something is shipped from the beginning, if it is.
pub(super) fn resync(state: &VolumeState, had: bool, offered: &Offered) -> Option<&'static str> {
    let delta = offered.base.is_some_and(|base| state.find(base).is_some());
    match offered.base {
        _ if !had || delta || offered.there => None,
        Some(_) => Some("against its image"),
        None => Some("whole"),
    }
}
