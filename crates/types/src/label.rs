//! Labels: small facts that people give to an object, by key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Code;

/// So many labels an object carries at most.
pub const MAX_LABELS: usize = 64;
/// Bytes of a value.
const MAX_VALUE: usize = 1024;

/// A label's value: at most 1 KiB of text without control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelValue(String);

/// A text that is no label's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a label's value is at most {MAX_VALUE} bytes of text without control characters")]
pub struct LabelError;

impl LabelError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl LabelValue {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for LabelValue {
    type Error = LabelError;
    fn try_from(text: String) -> Result<Self, LabelError> {
        let fits = text.len() <= MAX_VALUE && !text.chars().any(char::is_control);
        if fits { Ok(Self(text)) } else { Err(LabelError) }
    }
}

impl FromStr for LabelValue {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.to_owned().try_into()
    }
}

impl From<LabelValue> for String {
    fn from(value: LabelValue) -> String {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_short_text() {
        assert_eq!("rack 1, ß".parse::<LabelValue>().unwrap().as_str(), "rack 1, ß");
        assert_eq!("".parse::<LabelValue>(), Ok(LabelValue::default()));
        assert!("x".repeat(MAX_VALUE).parse::<LabelValue>().is_ok());
        assert_eq!("x".repeat(MAX_VALUE + 1).parse::<LabelValue>(), Err(LabelError));
        assert_eq!("two\nlines".parse::<LabelValue>(), Err(LabelError));
    }
}
