//! After the cut: what the cluster tells of it, and the node's return.

use std::time::Duration;

use holdfast_types::ContainerUid;

use super::Narrator;
use super::stage::Stage;
use super::story::Account;
use crate::LabError;
use crate::clock::BootInstant;
use crate::cluster::events;

const EVENTS_LIMIT: Duration = Duration::from_secs(15);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(90);

/// The cluster's own account of the takeover, once it is complete (or as far as it got).
pub fn account(stage: &Stage, victim: &str, uid: &str, after: u64) -> Result<Account, LabError> {
    let mut latest = Account::default();
    let complete = stage.cluster.wait_for(
        "the takeover's events",
        stage.lab().pace().of(EVENTS_LIMIT),
        async |s| {
            let events = events(s, after).await?;
            latest = Account::read(&events, victim, uid);
            Ok(latest.running_at_ms.map(|_| ()))
        },
    );
    match complete {
        Ok(()) | Err(LabError::Deadline { .. }) => Ok(latest),
        Err(error) => Err(error),
    }
}

/// What became of the old copy.
#[derive(Default)]
pub(super) struct Returned {
    pub(super) diverged: bool,
    pub(super) caught_up_after: Option<Duration>,
}

/// Gives the node its power back and waits until its copy is a current replica again.
pub(super) fn watch_return(
    stage: &Stage,
    narrator: &Narrator,
    victim: &str,
    uid: ContainerUid,
    taken_over: bool,
) -> Result<Returned, LabError> {
    stage.lab().power_on(victim)?;
    narrator.say(format_args!("{victim} has power again"));
    let begin = BootInstant::now();
    if !taken_over {
        return Ok(Returned::default());
    }
    let name = &stage.container;
    stage.cluster.wait_for(
        "the old copy to catch up",
        stage.lab().pace().of(CATCH_UP_LIMIT),
        async |s| {
            let container = s.container(name).await?;
            let mut here = container.replicas.iter().filter(|r| r.node == victim);
            Ok(here.any(|r| r.epoch == Some(container.epoch)).then_some(()))
        },
    )?;
    let caught_up_after = Some(BootInstant::now().since(begin));
    narrator.say(format_args!("its copy is a current replica again"));
    let diverged = stage.cluster.ask(async |s| s.diverged().await)?;
    let diverged = diverged.iter().any(|d| d.container_uid == uid.to_string() && d.node == victim);
    Ok(Returned { diverged, caught_up_after })
}
