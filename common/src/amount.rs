//! Exact resource amounts: integers with a unit, never floats.
//!
//! CPUs are counted in thousandths, memory and disk in bytes. Sums are checked: an overflow is
//! an error of the caller, not a wrap.

use minicbor::{Decode, Encode};
use std::fmt;
use std::str::FromStr;

/// An amount of CPU in thousandths of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Cpus(#[n(0)] pub u32);

/// An amount of memory or disk in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Bytes(#[n(0)] pub u64);

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// No digits, or characters that are neither digits, one point, nor a unit.
    #[error("not a number")]
    NotANumber,
    /// Bytes without a unit.
    #[error("unit missing; write for instance 64GiB")]
    UnitMissing,
    /// A unit that is not known.
    #[error("unknown unit {0}; known are B, KiB, MiB, GiB, TiB, PiB, KB, MB, GB, TB, PB")]
    UnitUnknown(String),
    /// More digits after the point than the smallest step.
    #[error("smaller than the smallest step of {0}")]
    TooFine(&'static str),
    /// Larger than the type can hold.
    #[error("too large")]
    TooLarge,
}

impl Cpus {
    /// Whole cores.
    ///
    /// # Errors
    /// [`AmountError::TooLarge`] above 4,294,967 cores.
    pub fn cores(count: u32) -> Result<Cpus, AmountError> {
        count.checked_mul(1000).map(Cpus).ok_or(AmountError::TooLarge)
    }
}

/// Parses `digits[.digits]` as a count of `steps` per unit.
fn parse_decimal(text: &str, steps: u64, step_name: &'static str) -> Result<u64, AmountError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return Err(AmountError::NotANumber);
    }
    let whole: u64 = whole.parse().map_err(|_| AmountError::TooLarge)?;
    let mut total = whole.checked_mul(steps).ok_or(AmountError::TooLarge)?;
    let mut step = u128::from(steps);
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 18 {
        return Err(AmountError::TooFine(step_name));
    }
    if !fraction.is_empty() {
        let numerator: u128 = fraction.parse().map_err(|_| AmountError::NotANumber)?;
        step *= numerator;
        let denominator = 10u128.pow(fraction.len() as u32);
        if step % denominator != 0 {
            return Err(AmountError::TooFine(step_name));
        }
        let part = u64::try_from(step / denominator).map_err(|_| AmountError::TooLarge)?;
        total = total.checked_add(part).ok_or(AmountError::TooLarge)?;
    }
    Ok(total)
}

impl FromStr for Cpus {
    type Err = AmountError;

    /// Reads `4`, `0.5` or `1.250`; the smallest step is 0.001.
    fn from_str(text: &str) -> Result<Cpus, AmountError> {
        let milli = parse_decimal(text, 1000, "0.001 CPUs")?;
        u32::try_from(milli).map(Cpus).map_err(|_| AmountError::TooLarge)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, milli) = (self.0 / 1000, self.0 % 1000);
        if milli == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{milli:03}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// Units of bytes, largest first, so that display finds the largest that divides.
const UNITS: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = AmountError;

    /// Reads `64GiB`, `1.5TB`, `512 MiB`; a unit is required unless the amount is 0.
    fn from_str(text: &str) -> Result<Bytes, AmountError> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..split], text[split..].trim_start());
        if number.is_empty() {
            return Err(AmountError::NotANumber);
        }
        if unit.is_empty() {
            let value = parse_decimal(number, 1, "1 byte")?;
            return if value == 0 { Ok(Bytes(0)) } else { Err(AmountError::UnitMissing) };
        }
        let (_, steps) = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(|| AmountError::UnitUnknown(unit.to_string()))?;
        parse_decimal(number, *steps, "1 byte").map(Bytes)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary =
            UNITS.iter().take(5).find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let unit = binary.or_else(|| UNITS.iter().find(|(_, size)| self.0.is_multiple_of(*size)));
        match unit {
            Some((name, size)) if self.0 != 0 => write!(f, "{}{name}", self.0 / size),
            _ => write!(f, "0B"),
        }
    }
}

/// CPU, memory and disk of one node, of one assignment, or a sum of those. GPUs are named
/// one by one and live in [`crate::gpu`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Amounts {
    /// Thousandths of a core.
    #[n(0)]
    pub cpu_milli: u64,
    /// Bytes of memory.
    #[n(1)]
    pub memory_bytes: u64,
    /// Bytes of scratch disk.
    #[n(2)]
    pub disk_bytes: u64,
}

impl Amounts {
    /// Nothing.
    pub const ZERO: Amounts = Amounts { cpu_milli: 0, memory_bytes: 0, disk_bytes: 0 };

    /// Whether every part fits into `available`.
    #[must_use]
    pub fn fits(&self, available: &Amounts) -> bool {
        self.cpu_milli <= available.cpu_milli
            && self.memory_bytes <= available.memory_bytes
            && self.disk_bytes <= available.disk_bytes
    }

    /// The sum, or `None` on overflow of any part.
    #[must_use]
    pub fn checked_add(&self, other: &Amounts) -> Option<Amounts> {
        Some(Amounts {
            cpu_milli: self.cpu_milli.checked_add(other.cpu_milli)?,
            memory_bytes: self.memory_bytes.checked_add(other.memory_bytes)?,
            disk_bytes: self.disk_bytes.checked_add(other.disk_bytes)?,
        })
    }

    /// The difference, or `None` if any part would be negative.
    #[must_use]
    pub fn checked_sub(&self, other: &Amounts) -> Option<Amounts> {
        Some(Amounts {
            cpu_milli: self.cpu_milli.checked_sub(other.cpu_milli)?,
            memory_bytes: self.memory_bytes.checked_sub(other.memory_bytes)?,
            disk_bytes: self.disk_bytes.checked_sub(other.disk_bytes)?,
        })
    }

    /// The difference with every part at least 0.
    #[must_use]
    pub fn saturating_sub(&self, other: &Amounts) -> Amounts {
        Amounts {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
        }
    }

    /// The smaller of each part.
    #[must_use]
    pub fn min(&self, other: &Amounts) -> Amounts {
        Amounts {
            cpu_milli: self.cpu_milli.min(other.cpu_milli),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            disk_bytes: self.disk_bytes.min(other.disk_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpus_read_and_display() {
        for (text, milli, shown) in
            [("4", 4000, "4"), ("0.5", 500, "0.5"), ("1.250", 1250, "1.25"), ("0.001", 1, "0.001")]
        {
            let cpus: Cpus = text.parse().unwrap();
            assert_eq!((cpus.0, cpus.to_string().as_str()), (milli, shown), "{text}");
        }
    }

    #[test]
    fn bad_amounts_say_why() {
        assert_eq!("0.0001".parse::<Cpus>(), Err(AmountError::TooFine("0.001 CPUs")));
        assert_eq!("-1".parse::<Cpus>(), Err(AmountError::NotANumber));
        assert_eq!("1e9".parse::<Cpus>(), Err(AmountError::NotANumber));
        assert_eq!("9999999".parse::<Cpus>(), Err(AmountError::TooLarge));
        assert_eq!("64".parse::<Bytes>(), Err(AmountError::UnitMissing));
        assert_eq!("64G".parse::<Bytes>(), Err(AmountError::UnitUnknown("G".into())));
        assert_eq!("20000PiB".parse::<Bytes>(), Err(AmountError::TooLarge));
        assert_eq!("".parse::<Bytes>(), Err(AmountError::NotANumber));
    }

    #[test]
    fn bytes_read_and_display() {
        for (text, bytes, shown) in [
            ("64GiB", 64 << 30, "64GiB"),
            ("1.5 GiB", 3 << 29, "1536MiB"),
            ("10GB", 10_000_000_000, "10GB"),
            ("0", 0, "0B"),
            ("1500B", 1500, "1500B"),
        ] {
            let parsed: Bytes = text.parse().unwrap();
            assert_eq!(parsed.0, bytes, "{text}");
            assert_eq!(parsed.to_string().parse::<Bytes>().unwrap(), parsed);
            if text != "10GB" {
                assert_eq!(parsed.to_string(), shown);
            }
        }
    }

    proptest! {
        #[test]
        fn display_reads_back(milli in any::<u32>(), bytes in any::<u64>()) {
            prop_assert_eq!(Cpus(milli).to_string().parse::<Cpus>().unwrap(), Cpus(milli));
            prop_assert_eq!(Bytes(bytes).to_string().parse::<Bytes>().unwrap(), Bytes(bytes));
        }

        #[test]
        fn any_text_is_refused_or_read(text in ".{0,24}") {
            let _ = text.parse::<Cpus>();
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn sums_undo(a in any::<[u32; 3]>(), b in any::<[u32; 3]>()) {
            let amounts = |p: [u32; 3]| Amounts {
                cpu_milli: p[0].into(), memory_bytes: p[1].into(), disk_bytes: p[2].into(),
            };
            let (a, b) = (amounts(a), amounts(b));
            let sum = a.checked_add(&b).unwrap();
            prop_assert!(a.fits(&sum) && b.fits(&sum));
            prop_assert_eq!(sum.checked_sub(&b), Some(a));
        }
    }
}
