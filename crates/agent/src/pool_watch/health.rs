//! What operators are told of a pool and the filesystems on it, beside how full they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_storage::fsys;
use holdfast_types::{Code, ContainerName, ContainerUid};

use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::places::Places;
use crate::replicate::{Turn, Words, tell};

/// Parts of a pool's life after which operators are told, in percent: half of it, when there is time
/// to plan, when it is urgent, and when snapshots end.
const WORN_PERCENT: [u8; 3] = [50, 80, 95];

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Health {
    exhausted: Turn,
    damaged: Turn,
    held: Turn,
    /// Looks in a row at which nothing could be compared: another tool may read for a moment.
    held_looks: u32,
    worn_told: u8,
    read_only: BTreeMap<ContainerUid, Turn>,
    /// The last look found that the pool can be written no more.
    refuses_writes: bool,
}

impl Health {
    /// Whether the pool did when it was last asked.
    pub(super) fn takes_writes(&self) -> bool {
        !self.refuses_writes
    }

    pub(super) async fn look(
        &mut self,
        context: &Context,
        parts: &Arc<Parts>,
    ) -> Result<(), AgentError> {
        let assigned: Vec<(ContainerUid, ContainerName)> = context
            .view()
            .map(|view| view.assigned.iter().map(|a| (a.uid, a.name.clone())).collect())
            .unwrap_or_default();
        let mounts: Vec<_> = assigned.iter().map(|(uid, _)| (*uid, context.places(*uid))).collect();
        let pool = parts.pool.clone();
        let (writable, comparable, worn_percent, read_only) = blocking(move || {
            let read_only = |(uid, places): (ContainerUid, Places)| {
                let mounted = fsys::mounted(places.all()).unwrap_or_default();
                (uid, mounted.into_iter().any(|at| fsys::is_read_only(at).unwrap_or(false)))
            };
            let read_only: BTreeMap<_, _> = mounts.into_iter().map(read_only).collect();
            let (writable, comparable) = (pool.writable(), pool.comparable());
            Ok::<_, AgentError>((writable, comparable, pool.worn_percent(), read_only))
        })
        .await?;
        self.refuses_writes = writable.is_err();
        self.tell_writable(context, writable).await;
        self.tell_held(context, comparable).await;
        self.tell_worn(context, worn_percent).await;
        self.read_only.retain(|uid, _| read_only.contains_key(uid));
        for (uid, name) in assigned {
            let is_so = read_only.get(&uid).copied().unwrap_or(false);
            self.tell_read_only(context, uid, &name, is_so).await;
        }
        Ok(())
    }

    async fn tell_writable(&mut self, context: &Context, writable: holdfast_storage::Result<()>) {
        let why = writable.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let full = matches!(&writable, Err(error) if error.code() == Code::PoolFull);
        let begun = format!(
            "{why}: nothing is left, and what containers write to it waits or fails, as configured; \
             grow the pool, or delete what is not needed"
        );
        let words = Words {
            begun: ("pool-exhausted", &begun),
            over: ("pool-goes-on", "the pool takes writes again"),
        };
        self.exhausted.now(context, None, full, words).await;
        let words = Words {
            begun: ("pool-damaged", &why),
            over: ("pool-repaired", "the pool takes writes again"),
        };
        self.damaged.now(context, None, writable.is_err() && !full, words).await;
    }

    async fn tell_held(&mut self, context: &Context, comparable: holdfast_storage::Result<()>) {
        const PATIENCE_LOOKS: u32 = 5;
        let why = comparable.as_ref().err().map(ToString::to_string).unwrap_or_default();
        self.held_looks = if comparable.is_err() { self.held_looks.saturating_add(1) } else { 0 };
        let begun = format!("nothing can be replicated: {why}");
        let words = Words {
            begun: ("pool-metadata-held", &begun),
            over: ("pool-metadata-free", "the pool's snapshots can be compared again"),
        };
        self.held.now(context, None, self.held_looks >= PATIENCE_LOOKS, words).await;
    }

    async fn tell_worn(&mut self, context: &Context, percent: u8) {
        let Some(mark) = WORN_PERCENT.into_iter().rev().find(|mark| percent >= *mark) else {
            return;
        };
        if mark <= self.worn_told {
            return;
        }
        let message = format!(
            "the thin pool is worn: {percent} % of the snapshots of its life were taken; at 95 % no \
             more are taken: move its containers to a new pool before, or replicate less often"
        );
        if tell(context, None, "pool-worn", message).await {
            self.worn_told = mark;
        }
    }

    async fn tell_read_only(
        &mut self,
        context: &Context,
        uid: ContainerUid,
        name: &ContainerName,
        is_so: bool,
    ) {
        let begun = format!(
            "the filesystem of {name} has become read-only, because its journal could not be \
             written: once the pool has room and no errors, stop and start {name}"
        );
        let over = format!("the filesystem of {name} takes writes again");
        let words =
            Words { begun: ("filesystem-read-only", &begun), over: ("filesystem-writable", &over) };
        self.read_only.entry(uid).or_default().now(context, uid, is_so, words).await;
    }
}
