//! Amounts of a resource: `500m`, `1Gi`, `1e3` (apimachinery `resource.Quantity`).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An exact amount, in billionths of the unit (a core, a byte, a pod).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

/// What Kubernetes says of text that is no quantity.
pub const MALFORMED: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANOS: i128 = 1_000_000_000;

impl Amount {
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self(units as i128 * NANOS)
    }

    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis as i128 * (NANOS / 1000))
    }

    /// Reads a quantity; the error is [`MALFORMED`].
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let number_end = text
            .char_indices()
            .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && matches!(c, '+' | '-'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(number_end);
        let (mantissa, decimals) = decimal(number).ok_or(MALFORMED)?;
        let (numerator, denominator) = scale(suffix).ok_or(MALFORMED)?;
        let denominator =
            denominator.checked_mul(10_i128.checked_pow(decimals).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        let scaled = mantissa.checked_mul(numerator).and_then(|n| n.checked_mul(NANOS)).ok_or(MALFORMED)?;
        // Finer than a billionth is rounded up, away from zero.
        let whole = scaled / denominator;
        Ok(Self(if scaled % denominator == 0 { whole } else { whole + scaled.signum() }))
    }

    /// Of an API value; nothing for text that is no quantity, which validation has refused.
    #[must_use]
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn units(self) -> i64 {
        self.divided_by(Self::from_units(1))
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.divided_by(Self::from_millis(1))
    }

    /// How many `divisor`s, rounded up, as `resourceFieldRef` counts (BEHAVIOURS 10.4).
    #[must_use]
    pub fn divided_by(self, divisor: Self) -> i64 {
        if divisor.0 == 0 {
            return 0;
        }
        let whole = self.0.div_euclid(divisor.0) + i128::from(self.0.rem_euclid(divisor.0) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// The text as Kubernetes writes it back: `1024Mi` is `1Gi`, `0.5` is `500m`, `1000` is `1k`. Stays in
/// the family of its suffix; finer than a thousandth is rounded up. The error is [`MALFORMED`].
pub fn canonical(text: &str) -> Result<String, &'static str> {
    Ok(written(Amount::parse(text)?, text))
}

/// The sum of two, written in the family of the first that is not nothing.
#[must_use]
pub fn sum(one: &Quantity, other: &Quantity) -> Quantity {
    let like = if Amount::of(one).is_zero() { other } else { one };
    Quantity(written(Amount::of(one) + Amount::of(other), &like.0))
}

/// The amount in the family of the suffix of `like`.
fn written(amount: Amount, like: &str) -> String {
    let amount = amount.0;
    let milli = NANOS / 1000;
    let amount = (amount / milli + if amount % milli == 0 { 0 } else { amount.signum() }) * milli;
    let suffix = like.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    // Small and broken binary amounts are written decimally, so that nothing is lost.
    if suffix.ends_with('i') && amount % NANOS == 0 && amount.abs() >= 1024 * NANOS {
        let (number, suffix) = in_thousands(amount / NANOS, 1024, &BINARY);
        return format!("{number}{suffix}");
    }
    if amount == 0 {
        return "0".to_owned();
    }
    let exponential = suffix.len() > 1 && suffix.starts_with(['e', 'E']) && !suffix.ends_with('i');
    let (number, suffix) = in_thousands(amount, 1000, if exponential { &EXPONENTS } else { &DECIMAL });
    format!("{number}{suffix}")
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// From billionths up.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const EXPONENTS: [&str; 10] = ["e-9", "e-6", "e-3", "", "e3", "e6", "e9", "e12", "e15", "e18"];

/// `amount` with the largest suffix that leaves it whole.
fn in_thousands(mut amount: i128, thousand: i128, suffixes: &[&'static str]) -> (i128, &'static str) {
    let mut power = 0;
    while power + 1 < suffixes.len() && amount % thousand == 0 {
        amount /= thousand;
        power += 1;
    }
    (amount, suffixes[power])
}

/// The digits as a whole number, and how many of them stand behind the point.
fn decimal(number: &str) -> Option<(i128, u32)> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some((sign * value, u32::try_from(fraction.len()).ok()?))
}

/// A suffix as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly_and_rounded_up() {
        for (text, millis, units) in [
            ("500m", 500, 1),
            ("2", 2000, 2),
            ("0.1", 100, 1),
            ("1Ki", 1_024_000, 1024),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("1e3", 1_000_000, 1000),
            ("100u", 1, 1),
            ("-1", -1000, -1),
            ("+.5", 500, 1),
            ("1E", i64::MAX, 1_000_000_000_000_000_000),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount.millis(), amount.units()), (millis, units), "{text}");
        }
    }

    #[test]
    fn quantities_are_written_in_one_way() {
        for (text, canonical_text) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("100000", "100k"),
            ("1000k", "1M"),
            ("1E", "1E"),
            ("10e2", "1e3"),
            ("5e-1", "500e-3"),
            ("100u", "1m"),
            ("-2000", "-2k"),
            ("0Gi", "0"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(canonical_text), "{text}");
            assert_eq!(canonical(canonical_text).as_deref(), Ok(canonical_text), "{canonical_text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "m", "1 Gi", "1Gb", "1.2.3", "--1", "1e", "0x10"] {
            assert_eq!(Amount::parse(text), Err(MALFORMED), "{text}");
        }
    }
}
