//! Names that users give: `[a-z0-9][a-z0-9-]{0,62}`, compared byte for byte.

use crate::limits::NAME_BYTES_MAX;

/// Whether a text is a legal name. Upper case, Unicode look-alikes, control characters and
/// leading dashes are refused, so that two different names never look the same.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && legal(text.as_bytes()[0])
        && text.bytes().all(|b| legal(b) || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_plain() {
        for good in ["a", "llama-ft", "7b", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a b", "а", "a\n", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
