//! Random parts of objects: the suffix of a name, and passwords.
//!
//! # Guarantees
//! The operating system's generator seeds a cryptographic one anew for every text. If it gives no
//! seed, there is an error and no text.

use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::{StdRng, SysError, SysRng};
use rand::seq::{IndexedRandom, SliceRandom};
use secrecy::SecretString;

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no random numbers: {0}")]
pub struct NoRandomness(SysError);

/// The alphabet of Kubernetes' generated names: without vowels, so that no words come out.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The length of a generated password.
const PASSWORD_LENGTH: usize = 16;

/// A suffix for the name of an object: five characters, as Kubernetes generates them.
pub fn name_suffix() -> Result<String, NoRandomness> {
    let mut generator = seeded()?;
    Ok((0..5)
        .filter_map(|_| NAME_ALPHABET.choose(&mut generator))
        .map(|byte| char::from(*byte))
        .collect())
}

/// A password of 16 letters and digits. It has at least one capital letter, one small letter and
/// one digit, as password policies demand.
pub fn password() -> Result<SecretString, NoRandomness> {
    let mut generator = seeded()?;
    let classes: [&[u8]; 3] = [
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        b"abcdefghijklmnopqrstuvwxyz",
        b"0123456789",
    ];
    let mut characters: Vec<char> = classes
        .iter()
        .filter_map(|class| class.choose(&mut generator))
        .map(|byte| char::from(*byte))
        .collect();
    let others = PASSWORD_LENGTH - classes.len();
    characters.extend(Alphanumeric.sample_string(&mut generator, others).chars());
    characters.shuffle(&mut generator);
    Ok(characters.into_iter().collect::<String>().into())
}

fn seeded() -> Result<StdRng, NoRandomness> {
    StdRng::try_from_rng(&mut SysRng).map_err(NoRandomness)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_password_has_letters_of_both_kinds_and_digits() {
        for _ in 0..100 {
            let password = password().expect("randomness");
            let password = password.expose_secret();
            assert_eq!(password.len(), PASSWORD_LENGTH);
            assert!(password.chars().all(|c| c.is_ascii_alphanumeric()));
            assert!(password.chars().any(|c| c.is_ascii_uppercase()));
            assert!(password.chars().any(|c| c.is_ascii_lowercase()));
            assert!(password.chars().any(|c| c.is_ascii_digit()));
        }
    }

    #[test]
    fn a_suffix_fits_into_a_name_and_differs_each_time() {
        let suffixes = [name_suffix(), name_suffix()].map(|suffix| suffix.expect("randomness"));
        assert_ne!(suffixes[0], suffixes[1]);
        for suffix in suffixes {
            assert_eq!(suffix.len(), 5);
            assert!(suffix.bytes().all(|byte| NAME_ALPHABET.contains(&byte)));
        }
    }
}
