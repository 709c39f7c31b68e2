//! A command under its client's conditions: that it is not done twice, and that it changes nothing which
//! the client has not seen.

use holdfast_types::{Code, Revision};
use serde::{Deserialize, Serialize};

use super::set_labels::expect;
use crate::apply::Change;
use crate::{Command, CreateContainer, Refusal, Response, State};

/// Applies the command if the conditions hold, at its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// A revision that the cluster had reached before the client first sent the request. Refused if an
    /// answer to it could be forgotten already.
    #[serde(default)]
    pub since: Option<Revision>,
    /// The version that the object which is changed must have.
    #[serde(default)]
    pub expect: Option<Revision>,
    /// What is to change.
    pub command: Box<Command>,
}

impl Guarded {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        if self.since.is_some_and(|since| !change.state.is_new_since(since)) {
            let message = "this request is so old that nobody knows whether it was done before: \
                           look at what there is, and ask anew for what is still to be done";
            return Err(Refusal::new(Code::RequestExpired, message));
        }
        if self.expect.is_some() {
            let (now, what) = version(&self.command, change.state)?;
            expect(self.expect, now, || what)?;
        }
        change.run(*self.command)
    }
}

/// The version of the object that a client's command changes, and what to call it.
fn version(command: &Command, state: &State) -> Result<(Revision, String), Refusal> {
    let uid = match command {
        Command::SetDesired(c) => c.uid,
        Command::Resize(c) => c.uid,
        Command::CreateSnapshot(c) => c.uid,
        Command::RemoveSnapshot(c) => c.uid,
        Command::RestoreSnapshot(c) => c.uid,
        Command::SetSchedule(c) => c.uid,
        Command::DecideTakeover(c) => c.uid,
        Command::CreateContainer(CreateContainer { origin: Some(origin), .. }) => origin.uid,
        Command::RemoveImage(c) => {
            let image = state.image_named(&c.name)?;
            return Ok((image.revision, format!("image {}", image.name)));
        }
        _ => {
            let message = "this changes nothing that has a version yet";
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
    };
    let container = state.container(uid)?;
    Ok((container.revision, format!("container {}", container.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{AGE_MS, LEAST};
    use crate::testing::{World, clone, image, remove, want};
    use crate::{Outcome, RemoveImage, SetDesired};
    use holdfast_types::{ContainerUid, DesiredState, RequestId};
    use uuid::Uuid;

    fn guarded(since: Option<u64>, expect: Option<Revision>, command: Command) -> Command {
        let (since, command) = (since.map(Revision), Box::new(command));
        Command::Guarded(Guarded { since, expect, command })
    }

    fn desire(uid: ContainerUid, desired: DesiredState) -> Command {
        Command::SetDesired(SetDesired { uid, desired })
    }

    /// So many other requests are answered, each a second after the one before.
    fn others(world: &mut World, count: usize) {
        const { assert!(LEAST as u64 * 1_000 > AGE_MS) };
        for _ in 0..count {
            let none = Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() });
            drop(world.try_apply(none));
        }
    }

    /// I7: a retry was done again once its answer was forgotten.
    #[test]
    fn a_retry_after_the_window_was_done_again() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let request = RequestId(Uuid::from_u128(99));
        let since = world.index();
        let stop = || guarded(Some(since), None, desire(uid, DesiredState::Stopped));
        let first = world.apply_as(request, stop());
        assert!(matches!(first, Ok(Outcome::Operation { .. })));
        world.ok(desire(uid, DesiredState::Running));
        others(&mut world, LEAST - 2);
        assert_eq!(world.apply_as(request, stop()), first, "it is known still");
        others(&mut world, 1);
        let late = world.apply_as(request, stop()).unwrap_err();
        assert_eq!(late.code, Code::RequestExpired);
        assert_eq!(world.state.containers[&uid].desired, DesiredState::Running);
    }

    /// What is new is done, whatever was forgotten before its client looked.
    #[test]
    fn a_new_request_is_done_when_others_were_forgotten_long_ago() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        others(&mut world, LEAST * 2);
        let since = world.index();
        others(&mut world, LEAST - 1);
        world.ok(guarded(Some(since), None, desire(uid, DesiredState::Stopped)));
        let older = since - LEAST as u64 * 2;
        let refused = world.refused(guarded(Some(older), None, desire(uid, DesiredState::Running)));
        assert_eq!(refused, Code::RequestExpired);
    }

    /// Who has not seen the last change overwrites nothing, whatever the call.
    #[test]
    fn another_version_than_the_expected_is_refused() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let seen = world.state.containers[&uid].revision;
        world.taken(uid, "s1", 1, 5);
        let now = world.state.containers[&uid].revision;
        assert!(now > seen);
        let calls = [
            desire(uid, DesiredState::Stopped),
            want(uid, "s2", 2),
            remove(uid, "s1"),
            clone(uid, "s1", "web2", 1),
        ];
        for call in &calls {
            let refusal = world.try_apply(guarded(None, Some(seen), call.clone())).unwrap_err();
            assert_eq!(refusal.code, Code::Conflict);
            let both = refusal.message.contains(&now.to_string())
                && refusal.message.contains(&seen.to_string());
            assert!(both, "{}", refusal.message);
        }
        assert_eq!(world.state.containers[&uid].desired, DesiredState::Running);
        world.ok(guarded(None, Some(now), desire(uid, DesiredState::Stopped)));
    }

    #[test]
    fn images_have_versions_and_what_is_not_there_has_none() {
        let mut world = World::three_nodes();
        world.ok(image("busybox2", 1));
        let name = "busybox2".parse().unwrap();
        let version = world.state.image_named(&name).unwrap().revision;
        let rm = Command::RemoveImage(RemoveImage { name });
        let other = Some(Revision(version.0 - 1));
        assert_eq!(world.refused(guarded(None, other, rm.clone())), Code::Conflict);
        world.ok(guarded(None, Some(version), rm));
        let create = guarded(None, other, crate::testing::create("db", 1, &[]));
        assert_eq!(world.refused(create), Code::InvalidArgument);
    }

    /// Entries are read whatever conditions a later version may add.
    #[test]
    fn a_guarded_command_survives_its_encoding() {
        let uid = ContainerUid(Uuid::from_u128(1));
        let command = guarded(Some(3), Some(Revision(4)), desire(uid, DesiredState::Stopped));
        let bytes = rmp_serde::to_vec_named(&command).unwrap();
        assert_eq!(rmp_serde::from_slice::<Command>(&bytes).unwrap(), command);
    }
}
