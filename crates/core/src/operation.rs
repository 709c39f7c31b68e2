//! Long-running work that a client can follow. An operation ends when a report says that its
//! container is what it was to be.

use holdfast_types::{Code, ContainerName, ContainerUid, OperationId, TimestampMs};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Table;
use crate::index::Index;

/// How many ended operations the state remembers.
pub(crate) const KEPT: usize = 1024;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Make it, and start it unless it is to stay stopped.
    Create,
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Remove every copy.
    Delete,
    /// Make its disk larger.
    Resize,
    /// Take a named snapshot.
    Snapshot,
    /// Begin anew as a snapshot.
    Restore,
}

impl OperationKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Delete => "delete",
            Self::Resize => "resize",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
        }
    }

    /// Whether a request of `newer` ends what is still being done.
    pub(crate) fn gives_way_to(self, newer: Self) -> bool {
        match (self, newer) {
            (_, Self::Delete) => self != newer,
            (Self::Snapshot | Self::Restore | Self::Resize, _) => false,
            (Self::Create | Self::Start | Self::Stop | Self::Delete, _) => self != newer,
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended otherwise.
    Failed {
        /// The stable code.
        code: Code,
        /// One line for a person.
        message: String,
    },
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its identity: the id of the request that began it.
    pub id: OperationId,
    /// What is being done.
    pub kind: OperationKind,
    /// To which container.
    pub uid: ContainerUid,
    /// Its name at the time.
    pub container: ContainerName,
    /// How far it is.
    pub state: OperationState,
    /// When it began.
    pub started: TimestampMs,
}

/// Work under way, and the latest that ended; and the way from a container to what is under way.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    rows: Table<OperationId, Operation>,
    /// Follows from the rows; neither encoded nor compared.
    running: Index<ContainerUid, OperationId>,
}

impl Operations {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The one with that id.
    pub fn get(&self, id: &OperationId) -> Option<&Operation> {
        self.rows.get(id)
    }

    /// All in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &Operation> {
        self.rows.values()
    }

    /// Those under way on a container, in the order of their ids.
    pub fn running_on(&self, uid: ContainerUid) -> impl Iterator<Item = &Operation> {
        self.running.of(&uid).filter_map(|id| self.rows.get(id))
    }

    /// Adds one.
    pub fn insert(&mut self, operation: Operation) {
        self.remove(&operation.id);
        if operation.state == OperationState::Running {
            self.running.add(&operation.uid, operation.id);
        }
        self.rows.insert(operation.id, operation);
    }

    /// Ends one; whether it was there and under way.
    pub fn end(&mut self, id: &OperationId, outcome: OperationState) -> bool {
        if self.rows.get(id).is_none_or(|o| o.state != OperationState::Running) {
            return false;
        }
        if let Some(operation) = self.rows.get_mut(id) {
            operation.state = outcome;
            self.running.remove(&operation.uid, id);
        }
        true
    }

    /// Forgets one.
    pub fn remove(&mut self, id: &OperationId) {
        if let Some(operation) = self.rows.remove(id) {
            self.running.remove(&operation.uid, id);
        }
    }
}

impl PartialEq for Operations {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl Eq for Operations {}

impl Serialize for Operations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rows.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Table::<OperationId, Operation>::deserialize(deserializer)?;
        let mut running = Index::default();
        for operation in rows.values().filter(|o| o.state == OperationState::Running) {
            running.add(&operation.uid, operation.id);
        }
        Ok(Self { rows, running })
    }
}
