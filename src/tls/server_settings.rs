//! Whether the TLS settings that users give a server leave clients anything to speak; and the groups
//! of the key exchange that a server offers where its user sets none.
//!
//! The clients are pgrekey itself (rustls with aws-lc), the standbys (libpq with the OpenSSL 3 of
//! the image) and every client that libpq's and OpenSSL's defaults are right for. All of them have
//! TLS 1.2 and 1.3; for TLS 1.2 the six suites of `Suite::ALL`; the curves X25519, P-256 and P-384.
//! An obstacle has to be certain: a list of ciphers in words that are not known here passes.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::tls::KeyAlgorithm;

const MIN_VERSION: &str = "ssl_min_protocol_version";
const MAX_VERSION: &str = "ssl_max_protocol_version";
const CIPHERS: &str = "ssl_ciphers";
const TLS13_CIPHERS: &str = "ssl_tls13_ciphers";
const CURVE: &str = "ssl_ecdh_curve";
/// The setting with the groups of the key exchange.
pub const GROUPS: &str = "ssl_groups";

/// All names of the setting with the groups: a value of one counts for the other.
pub const NAMES_OF_GROUPS: [&str; 2] = [GROUPS, CURVE];

/// The group that joins X25519 with a key exchange that quantum computers do not break. OpenSSL has
/// it since 3.5.
const HYBRID: &str = "X25519MLKEM768";

/// PostgreSQL's own default (18, `SSL_DEFAULT_GROUPS`), and the hybrid group before it.
const HYBRID_FIRST: &str = "X25519MLKEM768:X25519:prime256v1";

/// The first major version with `ssl_groups`. There `ssl_ecdh_curve` is another name of it; before,
/// it takes one elliptic curve.
const FIRST_WITH_GROUPS: u32 = 18;

/// The groups that every OpenSSL 3 has, by all their names. OpenSSL compares them without regard to
/// case.
const KNOWN_GROUPS: [&str; 17] = [
    "X25519",
    "X448",
    "P-256",
    "P-384",
    "P-521",
    "prime256v1",
    "secp256r1",
    "secp384r1",
    "secp521r1",
    "ffdhe2048",
    "ffdhe3072",
    "ffdhe4096",
    "ffdhe6144",
    "ffdhe8192",
    "brainpoolP256r1",
    "brainpoolP384r1",
    "brainpoolP512r1",
];

/// The groups that every client has. The hybrid one is none of them.
const COMMON_GROUPS: [&str; 6] = [
    "X25519",
    "P-256",
    "P-384",
    "prime256v1",
    "secp256r1",
    "secp384r1",
];

/// The elliptic curves that every client has, by the names that PostgreSQL before 18 takes. X25519
/// is none of them: such a server makes an elliptic-curve key of the name, and does not start.
const COMMON_CURVES: [&str; 2] = ["prime256v1", "secp384r1"];

/// The suites of TLS 1.3 that every client has.
const COMMON_TLS13: [&str; 3] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// The other suites of TLS 1.3.
const OTHER_TLS13: [&str; 2] = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"];

/// The facts about a server beside its settings.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// PostgreSQL's major version; `None` if it is not known.
    pub major: Option<u32>,
    /// Groups that the OpenSSL of the image has beyond those that every OpenSSL 3 has.
    pub groups: BTreeSet<String>,
    /// Algorithm of the server's key; `None` if the server has no TLS.
    pub key: Option<KeyAlgorithm>,
}

/// A setting with which clients have nothing in common with the server, or the server does not
/// start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The setting.
    pub setting: &'static str,
    /// The part of its value that the problem is about. It may come from a Secret.
    pub value: String,
    /// The problem, as the end of the sentence "SETTING = VALUE ...".
    pub problem: &'static str,
    /// The remedy.
    pub remedy: &'static str,
}

/// The groups that servers of this major version offer if their user sets none, by what the OpenSSL
/// of their image has beyond every OpenSSL 3; `None` if PostgreSQL's own default is right.
///
/// It is never guessed: a server does not start with a group that its OpenSSL lacks, and one that
/// runs loads no new certificate any more.
#[must_use]
pub fn default_groups(major: u32, groups_of_image: &BTreeSet<String>) -> Option<&'static str> {
    let mut groups = groups_of_image.iter();
    let has_hybrid = groups.any(|group| group.eq_ignore_ascii_case(HYBRID));
    (major >= FIRST_WITH_GROUPS && has_hybrid).then_some(HYBRID_FIRST)
}

/// The obstacles among the settings, whose names are in lower case.
#[must_use]
pub fn obstacles(settings: &BTreeMap<String, String>, server: &ServerFacts) -> Vec<Obstacle> {
    let value = |name: &str| settings.get(name).map(String::as_str);
    let newest = value(MAX_VERSION).and_then(Protocol::parse);
    let newest = newest.unwrap_or(Protocol::Tls13);
    let oldest = value(MIN_VERSION).and_then(Protocol::parse);
    let oldest = oldest.unwrap_or(Protocol::Tls12);
    let mut found = vec![];
    let mut add = |setting, value: Option<&str>, problem, remedy| {
        found.push(Obstacle {
            setting,
            value: value.unwrap_or_default().to_owned(),
            problem,
            remedy,
        });
    };
    if newest < Protocol::Tls12 {
        let problem = "is older than TLS 1.2, and pgrekey, the standbys and most clients speak 1.2 and 1.3 only";
        add(
            MAX_VERSION,
            value(MAX_VERSION),
            problem,
            "use TLSv1.2 or TLSv1.3, or leave it out",
        );
    } else if oldest > newest {
        let problem = "is newer than ssl_max_protocol_version, and no server with TLS starts so";
        add(
            MIN_VERSION,
            value(MIN_VERSION),
            problem,
            "use the same version for both, or leave both out",
        );
    }
    if let Some(text) = value(TLS13_CIPHERS).filter(|_| newest == Protocol::Tls13)
        && !text.is_empty()
        && !text.split(':').any(|name| COMMON_TLS13.contains(&name))
    {
        let problem = "has no suite of TLS 1.3 that pgrekey and the standbys speak";
        let remedy = "add TLS_AES_256_GCM_SHA384 or TLS_AES_128_GCM_SHA256, or leave it out";
        add(TLS13_CIPHERS, Some(text), problem, remedy);
    }
    if let Some(text) = value(CIPHERS) {
        if has_names_of_tls13_alone(text) {
            let problem = "has suites of TLS 1.3 alone, and no server with TLS starts so: this setting is for TLS 1.2";
            add(CIPHERS, Some(text), problem, "leave it out");
        } else if newest == Protocol::Tls12 && !suites(text).any(|suite| suite.suits(server.key)) {
            let problem = "has no suite that pgrekey and the standbys speak with this server, and TLS 1.3 is excluded";
            let remedy = "add ECDHE+AESGCM, or let ssl_max_protocol_version be TLSv1.3";
            add(CIPHERS, Some(text), problem, remedy);
        }
    }
    found.extend(group_obstacles(settings, server));
    found
}

/// The obstacles in the list of groups.
fn group_obstacles(settings: &BTreeMap<String, String>, server: &ServerFacts) -> Vec<Obstacle> {
    let is_old = server.major.is_some_and(|major| major < FIRST_WITH_GROUPS);
    let names: &[&'static str] = if is_old { &[CURVE] } else { &NAMES_OF_GROUPS };
    let set = |name: &&'static str| Some((*name, settings.get(*name)?));
    let Some((setting, value)) = names.iter().find_map(set) else {
        return vec![];
    };
    let obstacle = |value: &str, problem, remedy| Obstacle {
        setting,
        value: value.to_owned(),
        problem,
        remedy,
    };
    if is_old {
        if COMMON_CURVES.contains(&value.as_str()) {
            return vec![];
        }
        let problem = "is no curve that PostgreSQL before 18 takes and pgrekey speaks";
        let remedy = "use prime256v1 or secp384r1, or leave it out";
        return vec![obstacle(value, problem, remedy)];
    }
    let groups = GroupList::parse(value, server);
    let mut found = vec![];
    if let Some(unknown) = groups.unknown {
        let problem =
            "is a group that the OpenSSL of the image may lack, and no server with TLS starts so";
        let remedy =
            "leave it out, or let annotation pgrekey.dev/tls-groups of the PostgresVersion name it";
        found.push(obstacle(unknown, problem, remedy));
    }
    if !groups.has_common {
        let problem = "has no group that pgrekey, the standbys and older clients speak";
        let remedy = "add X25519, prime256v1 or secp384r1";
        found.push(obstacle(value, problem, remedy));
    }
    found
}

/// What a list of groups offers.
struct GroupList<'a> {
    /// The first group that OpenSSL may lack, so that it refuses the list.
    unknown: Option<&'a str>,
    /// A group of it is one that every client has.
    has_common: bool,
}

impl<'a> GroupList<'a> {
    /// OpenSSL 3.5 has a grammar (`man SSL_CTX_set1_groups_list`): `/` between tuples, `?` before a
    /// group that may be unknown, `*` before one whose key share is sent, `-` before one that is
    /// taken away, and `DEFAULT`. An image whose groups are declared has that OpenSSL.
    fn parse(value: &'a str, server: &ServerFacts) -> Self {
        let is_one_of =
            |group: &str, list: &[&str]| list.iter().any(|one| one.eq_ignore_ascii_case(group));
        let of_image = |group: &str| {
            let mut groups = server.groups.iter();
            groups.any(|one| one.eq_ignore_ascii_case(group))
        };
        let has_grammar = !server.groups.is_empty();
        let mut list = Self {
            unknown: None,
            has_common: false,
        };
        for word in value.split([':', '/']) {
            let marks: &[char] = if has_grammar { &['?', '*'] } else { &[] };
            let name = word.trim_start_matches(marks);
            let is_default = name.eq_ignore_ascii_case("DEFAULT");
            let may_be_unknown = word.contains('?') || name.starts_with('-') || is_default;
            let is_taken = has_grammar && may_be_unknown;
            if !is_taken && !is_one_of(name, &KNOWN_GROUPS) && !of_image(name) {
                list.unknown = list.unknown.or(Some(word));
            }
            list.has_common |= is_one_of(name, &COMMON_GROUPS) || (has_grammar && is_default);
        }
        list
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}

impl Protocol {
    /// The version in a setting; `None` for a text that names none.
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "tlsv1" => Self::Tls10,
            "tlsv1.1" => Self::Tls11,
            "tlsv1.2" => Self::Tls12,
            "tlsv1.3" => Self::Tls13,
            _ => return None,
        })
    }
}

/// A suite of TLS 1.2 that every client has. The key exchange is ECDHE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suite {
    /// Name in OpenSSL.
    name: &'static str,
    /// Name in the register of TLS, which newer versions of OpenSSL take too.
    registered: &'static str,
    signs_with_rsa: bool,
    cipher: Cipher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Aes128,
    Aes256,
    ChaCha20,
}

impl Suite {
    const ALL: [Self; 6] = [
        Self {
            name: "ECDHE-ECDSA-AES256-GCM-SHA384",
            registered: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            signs_with_rsa: false,
            cipher: Cipher::Aes256,
        },
        Self {
            name: "ECDHE-ECDSA-AES128-GCM-SHA256",
            registered: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            signs_with_rsa: false,
            cipher: Cipher::Aes128,
        },
        Self {
            name: "ECDHE-ECDSA-CHACHA20-POLY1305",
            registered: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            signs_with_rsa: false,
            cipher: Cipher::ChaCha20,
        },
        Self {
            name: "ECDHE-RSA-AES256-GCM-SHA384",
            registered: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            signs_with_rsa: true,
            cipher: Cipher::Aes256,
        },
        Self {
            name: "ECDHE-RSA-AES128-GCM-SHA256",
            registered: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            signs_with_rsa: true,
            cipher: Cipher::Aes128,
        },
        Self {
            name: "ECDHE-RSA-CHACHA20-POLY1305",
            registered: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            signs_with_rsa: true,
            cipher: Cipher::ChaCha20,
        },
    ];

    /// Whether a server with such a key can use the suite. An Ed25519 key signs where an ECDSA key
    /// does (RFC 8422).
    fn suits(self, key: Option<KeyAlgorithm>) -> bool {
        key.is_none_or(|key| self.signs_with_rsa == (key == KeyAlgorithm::Rsa))
    }

    /// Whether a word of OpenSSL's cipher list (`man openssl-ciphers`, 3.0) selects the suite;
    /// `None` for a word that is not known here.
    fn has(self, word: &str) -> Option<bool> {
        let is_aes = self.cipher != Cipher::ChaCha20;
        Some(match word {
            "ALL" | "HIGH" | "TLSv1.2" | "kECDHE" | "kEECDH" | "ECDHE" | "EECDH" | "ECDH" => true,
            "aECDSA" | "ECDSA" => !self.signs_with_rsa,
            "aRSA" => self.signs_with_rsa,
            "AES" | "AESGCM" | "FIPS" => is_aes,
            "AES128" => self.cipher == Cipher::Aes128,
            "AES256" => self.cipher == Cipher::Aes256,
            "CHACHA20" => !is_aes,
            _ if NEITHER.split(' ').any(|known| known == word) => false,
            _ if word == self.name || word == self.registered => true,
            // Whole names of suites have hyphens, and no other words have.
            _ if word.contains('-') => false,
            _ if COMMON_TLS13.contains(&word) || OTHER_TLS13.contains(&word) => false,
            _ => return None,
        })
    }

    /// The same for words that are joined with `+`: all of them must select it.
    fn has_all(self, words: &str) -> Option<bool> {
        words
            .split('+')
            .try_fold(true, |all, word| Some(all & self.has(word)?))
    }
}

/// Words of a cipher list that select none of the suites of [`Suite::ALL`].
const NEITHER: &str = "SSLv3 TLSv1 TLSv1.0 COMPLEMENTOFALL COMPLEMENTOFDEFAULT MEDIUM LOW EXP EXPORT EXPORT40 \
    EXPORT56 eNULL NULL aNULL kRSA RSA kDHE kEDH DHE EDH kDHr kDHd kDH DH aDH ADH AECDH aDSS \
    DSS kPSK kRSAPSK kECDHEPSK kDHEPSK PSK aPSK kSRP aSRP SRP kGOST aGOST aGOST01 3DES DES RC4 \
    RC2 IDEA SEED CAMELLIA CAMELLIA128 CAMELLIA256 ARIA ARIA128 ARIA256 ARIAGCM AESCCM AESCCM8 \
    MD5 SHA1 SHA SHA256 SHA384";

/// The words of a cipher list, each with its operator.
fn words(list: &str) -> impl Iterator<Item = (Option<char>, &str)> {
    let words = list.split([':', ',', ';', ' ']);
    words
        .filter(|word| !word.is_empty())
        .map(|word| match word.chars().next() {
            Some(operator @ ('!' | '-' | '+' | '@')) => (Some(operator), &word[1..]),
            _ => (None, word),
        })
}

/// The common suites that a list of OpenSSL's grammar may leave: all that it does leave, and those
/// that an unknown word may add.
fn suites(list: &str) -> impl Iterator<Item = Suite> {
    Suite::ALL.into_iter().filter(move |suite| {
        let (mut is_listed, mut is_barred) = (false, false);
        for (operator, word) in words(list) {
            // DEFAULT is a list and no word: it has no operators.
            let selects = match (word, operator) {
                ("DEFAULT", None) => Some(true),
                ("DEFAULT", Some(_)) => None,
                _ => suite.has_all(word),
            };
            match (operator, selects) {
                (None, None | Some(true)) => is_listed = true,
                (Some('-'), Some(true)) => is_listed = false,
                (Some('!'), Some(true)) => is_barred = true,
                // `+` only moves suites, and `@` sorts them or sets a level.
                _ => {}
            }
        }
        is_listed && !is_barred
    })
}

/// Whether all that a list adds are suites of TLS 1.3, which OpenSSL does not take there.
fn has_names_of_tls13_alone(list: &str) -> bool {
    let mut added = words(list)
        .filter(|(operator, _)| operator.is_none())
        .map(|(_, word)| word)
        .peekable();
    added.peek().is_some()
        && added.all(|word| COMMON_TLS13.contains(&word) || OTHER_TLS13.contains(&word))
}

#[cfg(test)]
mod tests;
