//! Texts with rules: names, variables, labels, paths. Each is a type that only its check makes.

use super::json::Json;
use super::problem::Issue;
use super::walk::{Scalar, UserKey};
use crate::ErrorCode;
use crate::limits::{GPU_MODELS_MAX, LABELS_MAX, NAME_BYTES_MAX, NODE_LIST_MAX, SPEC_BYTES_MAX};
use crate::name::is_name;

/// Bytes of a path, as Linux has it.
const PATH_BYTES_MAX: usize = 4_095;
/// Bytes of a variable's name.
const VARIABLE_BYTES_MAX: usize = 255;
/// Bytes of a node's name: a DNS name.
const NODE_NAME_BYTES_MAX: usize = 253;
/// Bytes of a reference to an image.
const IMAGE_BYTES_MAX: usize = 512;

/// Declares a text that a check makes.
macro_rules! checked_text {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $check:path $(, at most $max:expr)?;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Scalar for $name {
            const WHAT: &'static str = $what;
            $(const LIST_MAX: usize = $max;)?

            fn parse(text: &str) -> Result<$name, Issue> {
                $check(text).map(|()| $name(text.to_string()))
            }

            fn print(&self) -> Json {
                Json::Text(self.0.clone())
            }
        }
    )*};
}

checked_text! {
    /// A name: `[a-z0-9][a-z0-9-]{0,62}`.
    Name: "a name", check_name;
    /// Any text without a NUL.
    Text: "a text", check_text;
    /// Any text without a NUL that is not empty.
    Word: "a text", check_word;
    /// A variable that the user sets.
    EnvName: "the name of a variable", check_variable;
    /// The id of an input, output or parameter; a part of a variable's name.
    Ident: "an id of letters, digits and _", check_ident;
    /// The key of a label.
    LabelKey: "the key of a label", check_label_key;
    /// The value of a label.
    LabelValue: "the value of a label", check_label_value;
    /// The name of a node: a DNS name in lower case.
    NodeName: "the name of a node", check_node_name, at most NODE_LIST_MAX;
    /// A GPU model in lower case without vendor: `h100`.
    Model: "a GPU model such as h100", check_model, at most GPU_MODELS_MAX;
    /// An absolute path without `..`.
    AbsPath: "an absolute path", check_absolute;
    /// A relative path without `..`.
    RelPath: "a relative path", check_relative;
    /// A path without `..`; when relative, below a root that the field names.
    AnyPath: "a path", check_path;
    /// A path on the submitter's machine; when relative, from the job file's directory.
    LocalPath: "a path", check_local;
    /// A reference to a container image.
    ImageRef: "a reference to an image", check_image;
    /// A network interface: `ib0`.
    Interface: "a network interface such as ib0", check_interface;
}

impl Name {
    /// The name that every queue and workspace has at install: `default`.
    pub(crate) fn of_default() -> Name {
        Name("default".into())
    }

    /// The name of a job that nothing else names.
    pub(crate) fn fallback() -> Name {
        Name("job".into())
    }

    /// The name that is nearest to any text.
    pub(crate) fn from_any(text: &str) -> Option<Name> {
        let mut name = String::new();
        for c in text.chars().flat_map(char::to_lowercase) {
            match c {
                'a'..='z' | '0'..='9' => name.push(c),
                _ if name.is_empty() || name.ends_with('-') => {}
                _ => name.push('-'),
            }
            if name.len() == NAME_BYTES_MAX {
                break;
            }
        }
        let name = name.trim_end_matches('-');
        is_name(name).then(|| Name(name.to_string()))
    }
}

impl Word {
    pub(crate) fn constant(text: &'static str) -> Word {
        Word(text.into())
    }
}

impl LocalPath {
    /// What stands in a spec for rows that were left out of it.
    pub(super) fn rows() -> LocalPath {
        LocalPath("rows".into())
    }
}

impl Ident {
    /// The id as it stands in a variable's name.
    #[must_use]
    pub fn upper(&self) -> String {
        self.0.to_ascii_uppercase()
    }
}

impl UserKey for EnvName {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl UserKey for Ident {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl UserKey for LabelKey {
    const MAP_MAX: usize = LABELS_MAX;

    fn as_str(&self) -> &str {
        &self.0
    }
}

fn bad_name(message: impl Into<String>, fix: impl Into<String>) -> Issue {
    Issue::new(ErrorCode::BadName, message, fix)
}

fn check_name(text: &str) -> Result<(), Issue> {
    if is_name(text) {
        return Ok(());
    }
    let message = "a name has 1 to 63 of a-z, 0-9 and -, and does not start with -";
    let nearest = Name::from_any(text).map(|name| name.0);
    let fix = match &nearest {
        Some(name) => format!("write {name}"),
        None => "write a name of lower-case letters and digits".into(),
    };
    Err(bad_name(message, fix).nearest(nearest))
}

fn check_text(text: &str) -> Result<(), Issue> {
    if text.contains('\0') {
        let message = "a NUL cannot be passed to a program";
        return Err(Issue::new(ErrorCode::UnknownValue, message, "remove the NUL"));
    }
    if text.len() > SPEC_BYTES_MAX {
        let message = format!("longer than {SPEC_BYTES_MAX} bytes");
        return Err(Issue::new(ErrorCode::OutOfRange, message, "put it into a file"));
    }
    Ok(())
}

fn check_word(text: &str) -> Result<(), Issue> {
    if text.trim().is_empty() {
        return Err(Issue::new(ErrorCode::OutOfRange, "this is empty", "write something"));
    }
    check_text(text)
}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_variable(text: &str) -> Result<(), Issue> {
    if !is_identifier(text) || text.len() > VARIABLE_BYTES_MAX {
        let message = "a variable has letters, digits and _, and does not start with a digit";
        return Err(bad_name(message, "rename it"));
    }
    if let Some(prefix) = ["YARD_", "AZ_BATCHAI_"].iter().find(|p| text.starts_with(*p)) {
        let message = format!("variables that start with {prefix} are set by Trainyard");
        return Err(Issue::new(ErrorCode::ReservedName, message, "choose another name"));
    }
    Ok(())
}

fn check_ident(text: &str) -> Result<(), Issue> {
    if is_identifier(text) && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let message = "an id has 1 to 63 letters, digits and _, and does not start with a digit";
    let nearest = text.replace(['-', '.', ' '], "_");
    let nearest = (is_identifier(&nearest) && nearest.len() <= NAME_BYTES_MAX).then_some(nearest);
    Err(bad_name(message, "rename it").nearest(nearest))
}

fn check_label_key(text: &str) -> Result<(), Issue> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| legal(b) || matches!(b, b'-' | b'_' | b'.' | b'/');
    if text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(legal)
        && text.bytes().all(inner)
    {
        return Ok(());
    }
    let message = "the key of a label has 1 to 63 of a-z, 0-9, -, _, . and /";
    Err(bad_name(message, "rename it"))
}

fn check_label_value(text: &str) -> Result<(), Issue> {
    if text.len() > NAME_BYTES_MAX || text.chars().any(|c| c.is_control()) {
        let message = "the value of a label has at most 63 bytes and no control characters";
        return Err(Issue::new(ErrorCode::OutOfRange, message, "shorten it"));
    }
    Ok(())
}

fn check_node_name(text: &str) -> Result<(), Issue> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| legal(b) || matches!(b, b'-' | b'.');
    if text.len() <= NODE_NAME_BYTES_MAX
        && text.bytes().next().is_some_and(legal)
        && text.bytes().all(inner)
    {
        return Ok(());
    }
    let lower = text.to_ascii_lowercase();
    let nearest = (lower != text && check_node_name(&lower).is_ok()).then_some(lower);
    let message = "the name of a node has a-z, 0-9, - and .";
    Err(bad_name(message, "write it as `yard node ls` shows it").nearest(nearest))
}

fn check_model(text: &str) -> Result<(), Issue> {
    if is_name(text) {
        return Ok(());
    }
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix("nvidia").unwrap_or(&lower).trim_start_matches(['-', ' ', '_']);
    let nearest = is_name(bare).then(|| bare.to_string());
    let message = "a model is in lower case, without the vendor";
    Err(bad_name(message, "write for instance h100 or a100").nearest(nearest))
}

fn bad_path(message: impl Into<String>, fix: impl Into<String>) -> Issue {
    Issue::new(ErrorCode::BadPath, message, fix)
}

/// Rules for every path: some bytes, no control characters, and no empty meaning.
fn check_local(text: &str) -> Result<(), Issue> {
    if text.is_empty() || text.len() > PATH_BYTES_MAX {
        let message = format!("a path has 1 to {PATH_BYTES_MAX} bytes");
        return Err(bad_path(message, "write a path"));
    }
    if text.chars().any(|c| c.is_control()) {
        return Err(bad_path("a path has no control characters", "remove them"));
    }
    if text.starts_with('~') || text.starts_with('$') {
        let message = "~ and variables are not replaced in paths";
        return Err(bad_path(message, "write the path itself"));
    }
    Ok(())
}

fn check_path(text: &str) -> Result<(), Issue> {
    check_local(text)?;
    if text.split('/').any(|part| part == "..") {
        let message = "the path leaves its root: it has a part ..";
        return Err(bad_path(message, "write the path without .."));
    }
    Ok(())
}

fn check_absolute(text: &str) -> Result<(), Issue> {
    check_path(text)?;
    if text.starts_with('/') {
        return Ok(());
    }
    let nearest = format!("/{}", text.trim_start_matches("./"));
    Err(bad_path("the path must be absolute", "start it with /").nearest(Some(nearest)))
}

fn check_relative(text: &str) -> Result<(), Issue> {
    check_path(text)?;
    let relative = text.trim_start_matches('/');
    if relative.len() == text.len() {
        return Ok(());
    }
    let nearest = (!relative.is_empty()).then(|| relative.to_string());
    Err(bad_path("the path must be relative", "remove the / at its start").nearest(nearest))
}

fn check_image(text: &str) -> Result<(), Issue> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"/:@._-+".contains(&b);
    if (1..=IMAGE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(legal)
        && text.as_bytes()[0].is_ascii_alphanumeric()
    {
        return Ok(());
    }
    Err(bad_name(
        "this is no reference to an image",
        "write for instance nvcr.io/nvidia/pytorch:25.01",
    ))
}

fn check_interface(text: &str) -> Result<(), Issue> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-@:".contains(&b);
    // Linux: IFNAMSIZ is 16 with the final NUL.
    if (1..=15).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(());
    }
    Err(bad_name("this is no name of a network interface", "write it as `ip link` shows it"))
}

/// The mode that is taken away from new files. Always quoted in a job file: `"0022"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Umask(u16);

impl Umask {
    /// Nobody else may write.
    pub const DEFAULT: Umask = Umask(0o022);

    /// The mode bits.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }
}

impl Scalar for Umask {
    const WHAT: &'static str = "a umask such as \"0022\"";

    fn parse(text: &str) -> Result<Umask, Issue> {
        let octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = u16::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
        bits.map(Umask).ok_or_else(|| {
            let message = "a umask has three octal digits after an optional 0";
            Issue::new(ErrorCode::OutOfRange, message, "write for instance \"0022\" or \"0077\"")
        })
    }

    fn print(&self) -> Json {
        Json::Text(format!("{:04o}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: Scalar>(text: &str) -> Option<ErrorCode> {
        T::parse(text).err().map(|issue| issue.code)
    }

    #[test]
    fn variables_of_ours_are_reserved() {
        assert_eq!(code::<EnvName>("LR"), None);
        assert_eq!(code::<EnvName>("YARD_RANK"), Some(ErrorCode::ReservedName));
        assert_eq!(code::<EnvName>("AZ_BATCHAI_X"), Some(ErrorCode::ReservedName));
        for bad in ["", "1A", "A-B", "A=B", "A B", "Ä"] {
            assert_eq!(code::<EnvName>(bad), Some(ErrorCode::BadName), "{bad}");
        }
        assert_eq!(code::<Text>("a\0b"), Some(ErrorCode::UnknownValue));
    }

    #[test]
    fn paths_stay_below_their_root() {
        assert_eq!(code::<AbsPath>("/ckpt/run7"), None);
        assert_eq!(code::<RelPath>("a/b..c"), None);
        assert_eq!(code::<LocalPath>("../src"), None);
        for bad in ["ckpt", "/a/../b", "/..", "", "~/x", "$HOME/x", "/a\nb", &"/x".repeat(3_000)] {
            assert_eq!(code::<AbsPath>(bad), Some(ErrorCode::BadPath), "{bad}");
        }
        assert_eq!(code::<RelPath>("/a"), Some(ErrorCode::BadPath));
        assert_eq!(AbsPath::parse("./ckpt").unwrap_err().nearest.as_deref(), Some("/ckpt"));
    }

    #[test]
    fn names_suggest_what_is_near() {
        assert_eq!(Name::parse("Llama_FT v2").unwrap_err().nearest.as_deref(), Some("llama-ft-v2"));
        assert_eq!(Model::parse("NVIDIA H100").unwrap_err().nearest.as_deref(), Some("h100"));
        assert_eq!(Ident::parse("train-set").unwrap_err().nearest.as_deref(), Some("train_set"));
        assert_eq!(NodeName::parse("GPU-1").unwrap_err().nearest.as_deref(), Some("gpu-1"));
        assert_eq!(Name::from_any("---"), None);
    }

    #[test]
    fn umasks_are_octal() {
        assert_eq!(Umask::parse("0022"), Ok(Umask::DEFAULT));
        assert_eq!(Umask::parse("077").unwrap().print(), Json::Text("0077".into()));
        for bad in ["22", "0888", "7777", "+022", "00022", ""] {
            assert_eq!(code::<Umask>(bad), Some(ErrorCode::OutOfRange), "{bad}");
        }
    }
}
