//! Deliberate bugs, to test the tests: each is one line that somebody could have written by
//! mistake, behind `mutant!("name")`. The simulator lists them and must catch every one.
//!
//! They exist in builds with the feature `mutants` only, all of them in one build, and one is
//! chosen as the process starts. In every other build the question is the constant `false`.

/// Whether the deliberate bug of this name is in force.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::is_chosen($name)
    };
}

/// Never: this build has no deliberate bugs.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is_chosen(_: &str) -> bool {
    false
}

#[cfg(feature = "mutants")]
static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Whether this bug was chosen.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_chosen(name: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == name)
}

/// Puts one bug in force for the life of the process. The first choice stays.
#[cfg(feature = "mutants")]
pub fn choose(name: &str) {
    CHOSEN.get_or_init(|| name.into());
}
