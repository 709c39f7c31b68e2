//! What operators are told of a volume or of the node: each turn once, however many rounds it lasts.

use holdfast_types::{ContainerUid, Report};

use crate::context::Context;
use crate::report;

/// Something that is so or not, and what was last said of it.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    told: bool,
}

/// What to say of a turn, each with its kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a> {
    /// When it has become so.
    pub(crate) begun: (&'a str, &'a str),
    /// When it is so no longer.
    pub(crate) over: (&'a str, &'a str),
}

impl Turn {
    /// Whether it was so when it was last said.
    pub(crate) fn told(&self) -> bool {
        self.told
    }

    /// Says so if it has turned since it was last said. What could not be said is said next time.
    pub(crate) async fn now(
        &mut self,
        context: &Context,
        uid: impl Into<Option<ContainerUid>>,
        is_so: bool,
        words: Words<'_>,
    ) {
        if is_so == self.told {
            return;
        }
        let (kind, message) = if is_so { words.begun } else { words.over };
        if tell(context, uid, kind, message.to_owned()).await {
            self.told = is_so;
        }
    }
}

/// Returns whether the cluster knows it now.
pub(crate) async fn tell(
    context: &Context,
    uid: impl Into<Option<ContainerUid>>,
    kind: &str,
    message: String,
) -> bool {
    let report = Report::Notice { kind: kind.to_owned(), uid: uid.into(), message };
    report::send(context, &report).await.is_ok()
}
