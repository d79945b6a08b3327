//! Scalars of every kind but times and names: words, booleans, counts, amounts; and the check
//! that a plain YAML scalar means one thing only.

use super::json::Json;
use super::nearest::nearest;
use super::problem::Issue;
use super::tree::{Node, Value};
use super::walk::{Detail, Part, Scalar, Walk};
use crate::amount::AmountError;
use crate::{Bytes, Cpus, ErrorCode};
use std::str::FromStr;

/// Refuses plain scalars that some YAML readers take for a boolean, for a number to another
/// base, or for a number with separators.
pub(crate) fn check_ambiguous(text: &str) -> Result<(), Issue> {
    const BOOLEANS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    let lower = text.to_ascii_lowercase();
    let capital_boolean = matches!(lower.as_str(), "true" | "false") && lower != text;
    let taken_for = if BOOLEANS.contains(&lower.as_str()) || capital_boolean {
        "a boolean"
    } else if is_sexagesimal(&lower) {
        "a number to base 60"
    } else if is_other_base(&lower) {
        "a number to another base"
    } else if is_separated(&lower) {
        "a number with separators"
    } else if is_special_float(&lower) {
        "an infinite number or none"
    } else {
        return Ok(());
    };
    let meant = match lower.as_str() {
        "y" | "yes" | "on" | "true" => " for the text, or true",
        "n" | "no" | "off" | "false" => " for the text, or false",
        _ => "",
    };
    let message = format!("some YAML readers take this for {taken_for}");
    let fix = format!("write \"{text}\"{meant}");
    Err(Issue::new(ErrorCode::AmbiguousScalar, message, fix))
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// `190:20:30`, and `22:22`.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = unsigned(text).split(':');
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let first = parts.next().is_some_and(|s| digits(s) && !s.starts_with('_'));
    let mut count = 0;
    let rest = parts.all(|part| {
        count += 1;
        let whole = part.split_once('.').map_or(part, |(whole, _)| whole);
        digits(whole) && whole.len() <= 2 && (whole.len() == 1 || whole.as_bytes()[0] < b'6')
    });
    first && rest && count > 0
}

/// `0o17`, `0x1f`, `0b101`, and `0123`, which is octal for some and decimal for others.
fn is_other_base(text: &str) -> bool {
    let text = unsigned(text);
    let prefixed = ["0o", "0x", "0b"].iter().any(|prefix| {
        text.strip_prefix(prefix).is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit() || b == b'_')
        })
    });
    let leading_zero =
        text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    prefixed || leading_zero
}

/// `1_000`.
fn is_separated(text: &str) -> bool {
    let text = unsigned(text);
    text.contains('_')
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'_' | b'.'))
}

fn is_special_float(text: &str) -> bool {
    matches!(unsigned(text), ".inf" | ".nan")
}

/// Reads a word of a closed list.
pub(crate) fn parse_word<T: Copy>(
    text: &str,
    all: &[T],
    as_str: impl Fn(T) -> &'static str,
) -> Result<T, Issue> {
    if let Some(found) = all.iter().find(|word| as_str(**word) == text) {
        return Ok(*found);
    }
    let words: Vec<&str> = all.iter().map(|word| as_str(*word)).collect();
    let found = nearest(text, words.iter().copied());
    let message = format!("known here are {}", words.join(", "));
    let fix = match found {
        Some(word) => format!("write {word}"),
        None => "write one of the known words".into(),
    };
    Err(Issue::new(ErrorCode::UnknownValue, message, fix).nearest(found.map(str::to_string)))
}

impl Scalar for bool {
    const WHAT: &'static str = "true or false";

    fn parse(text: &str) -> Result<bool, Issue> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => {
                let found = nearest(text, ["true", "false"].into_iter());
                let fix = format!("write {}", found.unwrap_or("true or false"));
                let issue = Issue::new(ErrorCode::WrongType, "this is not true or false", fix);
                Err(issue.nearest(found.map(str::to_string)))
            }
        }
    }

    fn print(&self) -> Json {
        Json::Bool(*self)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// The number, if it lies in the range.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if MIN <= value && value <= MAX { Some(Count(value)) } else { None }
    }

    /// The least number.
    pub const LEAST: Self = Count(MIN);

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The constant, which the compiler checks.
    pub(crate) const fn constant(value: u32) -> Self {
        assert!(MIN <= value && value <= MAX, "constant outside its range");
        Count(value)
    }
}

impl<const MIN: u32, const MAX: u32> Scalar for Count<MIN, MAX> {
    const WHAT: &'static str = "a whole number";

    fn parse(text: &str) -> Result<Self, Issue> {
        parse_integer(text, MIN.into(), MAX.into()).map(|value| Count(value as u32))
    }

    fn print(&self) -> Json {
        Json::Int(self.0.into())
    }
}

/// Reads a whole number from `min` to `max`.
pub(crate) fn parse_integer(text: &str, min: i64, max: i64) -> Result<i64, Issue> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let fix = format!("write digits, from {min} to {max}");
        return Err(Issue::new(ErrorCode::WrongType, "this is not a whole number", fix));
    }
    // Longer than any i64: only its sign matters.
    let saturated = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    let value = text.parse().unwrap_or(saturated);
    if min <= value && value <= max {
        return Ok(value);
    }
    let nearest = value.clamp(min, max);
    let message = format!("from {min} to {max} is allowed");
    let issue = Issue::new(ErrorCode::OutOfRange, message, "write a number of this range");
    Err(issue.nearest(Some(nearest.to_string())))
}

fn parse_amount<T: FromStr<Err = AmountError>>(text: &str) -> Result<T, Issue> {
    text.parse().map_err(|error: AmountError| {
        let (code, fix, nearest) = match &error {
            AmountError::NotANumber => {
                let fix = "write a number such as 8, with its unit if it has one: 64GiB";
                (ErrorCode::WrongType, fix, None)
            }
            AmountError::UnitMissing => {
                (ErrorCode::BadUnit, "add the unit", Some(format!("{text}GiB")))
            }
            AmountError::UnitUnknown(unit) => {
                let meant = match unit.to_ascii_lowercase().as_str() {
                    "k" | "ki" => Some("KiB"),
                    "m" | "mi" => Some("MiB"),
                    "g" | "gi" => Some("GiB"),
                    "t" | "ti" => Some("TiB"),
                    "p" | "pi" => Some("PiB"),
                    _ => None,
                };
                let number = text.strip_suffix(unit.as_str()).unwrap_or(text).trim_end();
                let nearest = meant.map(|unit| format!("{number}{unit}"));
                (ErrorCode::BadUnit, "use a known unit", nearest)
            }
            AmountError::TooFine(_) => (ErrorCode::OutOfRange, "round it", None),
            AmountError::TooLarge => (ErrorCode::OutOfRange, "write a smaller amount", None),
        };
        Issue::new(code, error.to_string(), fix).nearest(nearest)
    })
}

impl Scalar for Bytes {
    const WHAT: &'static str = "an amount such as 64GiB";

    fn parse(text: &str) -> Result<Bytes, Issue> {
        parse_amount(text)
    }

    fn print(&self) -> Json {
        Json::Text(self.to_string())
    }
}

impl Scalar for Cpus {
    const WHAT: &'static str = "a number of CPUs such as 8 or 0.5";

    fn parse(text: &str) -> Result<Cpus, Issue> {
        match parse_amount(text)? {
            Cpus(0) => Err(Issue::new(
                ErrorCode::OutOfRange,
                "a rank needs some CPU",
                "write at least 0.001, or auto",
            )),
            cpus => Ok(cpus),
        }
    }

    fn print(&self) -> Json {
        if self.0.is_multiple_of(1000) {
            Json::Int(i64::from(self.0 / 1000))
        } else {
            Json::Text(self.to_string())
        }
    }
}

/// A value, or `auto`: chosen when the job meets a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Auto<T> {
    /// Chosen by the cluster.
    Auto,
    /// As the user says.
    Fixed(T),
}

impl<T: Copy> Auto<T> {
    /// What the user said.
    #[must_use]
    pub fn fixed(self) -> Option<T> {
        match self {
            Auto::Auto => None,
            Auto::Fixed(value) => Some(value),
        }
    }
}

/// A value, or `max`: as much as the node allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit<T> {
    /// As high as the node allows.
    Max,
    /// At most this.
    At(T),
}

/// Implements [`Part`] for an enum of one word and another part.
macro_rules! word_or {
    ($name:ident, $word:literal, $none:ident, $some:ident) => {
        impl<T: Part> Part for $name<T> {
            fn read(node: &Node, walk: &mut Walk<'_>) -> Option<$name<T>> {
                match &node.value {
                    Value::Scalar(text, _) if text == $word => Some($name::$none),
                    _ => T::read(node, walk).map($name::$some),
                }
            }

            fn write(&self, detail: Detail) -> Json {
                match self {
                    $name::$none => Json::Text($word.into()),
                    $name::$some(value) => value.write(detail),
                }
            }
        }
    };
}

word_or!(Auto, "auto", Auto, Fixed);
word_or!(Limit, "max", Max, At);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_that_readers_disagree_on_are_refused() {
        for text in [
            "yes", "No", "on", "OFF", "y", "True", "FALSE", "0123", "0o17", "0x1F", "12:30:45",
            "22:22", "-1:30", "1_000", ".inf", "-.NaN", "0022", "1:30.5",
        ] {
            let issue = check_ambiguous(text).unwrap_err();
            assert_eq!(issue.code, ErrorCode::AmbiguousScalar, "{text}");
            assert!(issue.fix.contains(&format!("\"{text}\"")), "{}", issue.fix);
        }
        for text in [
            "true",
            "false",
            "0",
            "0.5",
            "8",
            "1-12:00:00",
            "h100:8",
            "0-199%16",
            "1e-4",
            "yes!",
            "nodes",
            "10.0.0.4:/x",
            "2026-01-01T00:00:00Z",
            "22:80",
            "99:99",
            "",
            "-",
            "0..9",
            "_1",
        ] {
            assert_eq!(check_ambiguous(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn integers_name_their_range_and_the_nearest() {
        assert_eq!(parse_integer("-5", -10, 10), Ok(-5));
        for (text, nearest) in [("11", "10"), ("-99999999999999999999", "-10")] {
            let issue = parse_integer(text, -10, 10).unwrap_err();
            assert_eq!(issue.code, ErrorCode::OutOfRange);
            assert_eq!(issue.nearest.as_deref(), Some(nearest));
        }
        for text in ["", "-", "1.5", "four", "1e3", "+1", "--1", "１"] {
            assert_eq!(parse_integer(text, -10, 10).unwrap_err().code, ErrorCode::WrongType);
        }
    }

    #[test]
    fn amounts_say_which_unit_was_meant() {
        for (text, code, nearest) in [
            ("64", ErrorCode::BadUnit, Some("64GiB")),
            ("64G", ErrorCode::BadUnit, Some("64GiB")),
            ("64 Mi", ErrorCode::BadUnit, Some("64MiB")),
            ("64 bananas", ErrorCode::BadUnit, None),
            ("lots", ErrorCode::WrongType, None),
            ("0.3B", ErrorCode::OutOfRange, None),
            ("99999PiB", ErrorCode::OutOfRange, None),
        ] {
            let issue = <Bytes as Scalar>::parse(text).unwrap_err();
            assert_eq!((issue.code, issue.nearest.as_deref()), (code, nearest), "{text}");
        }
        assert_eq!(<Cpus as Scalar>::parse("0.5").unwrap().print(), Json::Text("0.5".into()));
        assert_eq!(<Cpus as Scalar>::parse("0").unwrap_err().code, ErrorCode::OutOfRange);
    }

    #[test]
    fn booleans_are_true_or_false() {
        assert_eq!(bool::parse("true"), Ok(true));
        assert_eq!(bool::parse("treu").unwrap_err().nearest.as_deref(), Some("true"));
        assert_eq!(bool::parse("1").unwrap_err().code, ErrorCode::WrongType);
    }
}
