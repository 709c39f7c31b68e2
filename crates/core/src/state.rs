//! The replicated state.

use serde::{Deserialize, Serialize};

/// Everything that the cluster has agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {}
