//! What must not be shown.

use crate::v1::Secret;
use std::fmt;

impl fmt::Debug for Secret {
    /// Shows nothing of the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret { text }
    }
}
