//! Kubernetes quantities, as far as memory and storage need them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffix, base and exponent.
const SUFFIXES: &[(&str, u128, u32)] = &[
    ("", 10, 0),
    ("k", 10, 3),
    ("M", 10, 6),
    ("G", 10, 9),
    ("T", 10, 12),
    ("P", 10, 15),
    ("E", 10, 18),
    ("Ki", 2, 10),
    ("Mi", 2, 20),
    ("Gi", 2, 30),
    ("Ti", 2, 40),
    ("Pi", 2, 50),
    ("Ei", 2, 60),
];

/// The quantity in bytes, rounded down. `None` if the text is no quantity, is negative, or is more
/// than a computer has.
///
/// Suffixes below 1 (`n`, `u`, `m`) are understood if the result is whole bytes, as in `1024000m`.
#[must_use]
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    let (digits, divisor) = ratio(&quantity.0)?;
    u64::try_from(digits / divisor).ok()
}

/// The quantity in thousandths, rounded down, so that two spellings can be compared.
#[must_use]
pub fn thousandths(text: &str) -> Option<u128> {
    let (digits, divisor) = ratio(text)?;
    Some(digits.checked_mul(1000)? / divisor)
}

/// The quantity as a fraction.
fn ratio(text: &str) -> Option<(u128, u128)> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let (number, suffix) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len()),
    );
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, divisor) = scale(suffix)?;
    let divisor = divisor.checked_mul(10_u128.checked_pow(fraction.len().try_into().ok()?)?)?;
    Some((digits.checked_mul(multiplier)?, divisor))
}

/// The factor and the divisor of a suffix.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    if let Some((_, base, exponent)) = SUFFIXES.iter().find(|(known, ..)| *known == suffix) {
        return Some((base.checked_pow(*exponent)?, 1));
    }
    if let Some(below_one) = [("m", 3), ("u", 6), ("n", 9)]
        .into_iter()
        .find(|(known, _)| *known == suffix)
    {
        return Some((1, 10_u128.checked_pow(below_one.1)?));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_amount_is_understood() {
        for (text, amount) in [
            ("0", Some(0)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("129E6", Some(129_000_000)),
            ("2500e-2", Some(25)),
            ("129M", Some(129_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("123Mi", Some(123 << 20)),
            ("1.5Gi", Some(3 << 29)),
            (".5Gi", Some(1 << 29)),
            ("+1Ki", Some(1024)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("", None),
            (".", None),
            ("-1Gi", None),
            ("1.2.3", None),
            ("1GiB", None),
            ("1 Gi", None),
            ("Gi", None),
            ("100Ei", None),
            ("1e99", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), amount, "{text}");
        }
    }
}
