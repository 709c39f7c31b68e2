//! An image is to go.

use holdfast_types::{Code, ImageName};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Outcome, Refusal, Response};

/// A refusal names so many containers; there may be a million.
const NAMED: usize = 100;

/// Forgets an image that no container was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveImage {
    /// Which image.
    pub name: ImageName,
}

impl RemoveImage {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let uid = change.state.image_named(&self.name)?.uid;
        // The image's snapshot is the common base of every copy of these containers.
        let users = change.state.containers.of_image(uid).take(NAMED);
        let names: Vec<_> = users.map(|c| c.name.to_string()).collect();
        if !names.is_empty() {
            let more = change.state.containers.count_of_image(uid) - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!("image {} is in use by {}{more}", self.name, names.join(", "));
            return Err(Refusal::new(Code::InUse, message));
        }
        change.state.images.remove(&uid);
        change.touch_all_views();
        change.event("image-removed", None, None, format!("image {} removed", self.name), []);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, RemoveImage};
    use holdfast_types::Code;

    #[test]
    fn an_image_in_use_stays() {
        let mut world = World::three_nodes();
        world.container("web", 1, &[2]);
        let remove = Command::RemoveImage(RemoveImage { name: "busybox".parse().unwrap() });
        assert_eq!(world.refused(remove), Code::InUse);
    }
}
