//! Syntax checks of names in certificates and of objects.

use std::net::IpAddr;

/// Whether this is a DNS name for a certificate: labels of letters, digits and inner hyphens, at
/// most 63 characters each and 253 in all (RFC 1123). The first label may be the wildcard `*` (RFC
/// 6125).
#[must_use]
pub fn is_dns_name(text: &str) -> bool {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    text.len() <= 253
        && rest.split('.').all(is_dns_label)
        && !rest
            .split('.')
            .all(|l| l.bytes().all(|b| b.is_ascii_digit()))
}

fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether this is a valid name of a Secret: lower-case DNS labels, at most 253 characters in all.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(is_dns_label)
        && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether this is a valid name of a Service: one lower-case DNS label that begins with a letter
/// (RFC 1035).
#[must_use]
pub fn is_service_name(text: &str) -> bool {
    is_dns_label(text)
        && !text.bytes().any(|b| b.is_ascii_uppercase())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether this is the name of an API group of a CRD: lower-case DNS labels, with at least one dot.
#[must_use]
pub fn is_api_group(text: &str) -> bool {
    is_object_name(text) && text.contains('.')
}

/// Whether this is the name of a kind: in lower case it is a DNS label that begins with a letter.
#[must_use]
pub fn is_kind(text: &str) -> bool {
    is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether this is an IPv4 or IPv6 address without a zone.
#[must_use]
pub fn is_ip_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Whether this is a URI with scheme and host, in ASCII (RFC 3986), as certificates require (RFC
/// 5280, 4.2.1.6).
#[must_use]
pub fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let scheme_is_fine = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    // `http::Uri` parses authorities, but not every scheme and no fragment.
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let host = format!("http://{rest}")
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.host().map(str::to_owned));
    scheme_is_fine && text.is_ascii() && host.is_some_and(|host| !host.is_empty())
}

/// Whether this is a bare e-mail address: `local@domain` in ASCII, without a display name (RFC
/// 5280, 4.2.1.6).
#[must_use]
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    (1..=64).contains(&local.len())
        && local.bytes().all(is_atom)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && is_dns_name(domain)
        && !domain.starts_with('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(check: fn(&str) -> bool, fine: &[&str], bad: &[&str]) {
        for text in fine {
            assert!(check(text), "{text:?} should be fine");
        }
        for text in bad {
            assert!(!check(text), "{text:?} should be refused");
        }
    }

    #[test]
    fn dns_names() {
        let long = [
            "a".repeat(63),
            "b".repeat(64),
            format!("{}x", "abc.".repeat(63)),
        ];
        all(
            is_dns_name,
            &[
                "localhost",
                "a.b",
                "*.a.b",
                "DB.Example.COM",
                "xn--bcher-kva.example",
                "1a.b",
                "a1",
                &long[0],
                &long[2],
            ],
            &[
                "",
                ".",
                "a.",
                ".a",
                "a..b",
                "*",
                "*a.b",
                "a.*.b",
                "a_b",
                "-a",
                "a-",
                "a b",
                "b\u{fc}cher.de",
                &long[1],
                "10.0.0.1",
                "a\n",
                "a/b",
                "a:1",
                "*.",
                "*.*.a",
            ],
        );
        assert!(!is_dns_name(
            &"a.".repeat(127).trim_end_matches('.').repeat(2)
        ));
    }

    #[test]
    fn object_and_service_names() {
        all(
            is_object_name,
            &["a", "a.b-c", "1"],
            &["", "A", "a_b", "-a", "a/b"],
        );
        all(
            is_service_name,
            &["a", "a-1"],
            &["", "1a", "a.b", "A", "a-"],
        );
    }

    #[test]
    fn groups_and_kinds() {
        all(
            is_api_group,
            &[
                "cert-manager.io",
                "awspca.cert-manager.io",
                "certmanager.step.sm",
            ],
            &[
                "",
                "apps",
                "Cert-Manager.io",
                "a..b",
                "a_b.c",
                "a.b/v1",
                ".io",
            ],
        );
        all(
            is_kind,
            &["Issuer", "AWSPCAClusterIssuer", "StepIssuer"],
            &[
                "",
                "1Issuer",
                "Step Issuer",
                "step.Issuer",
                "Issuer-",
                "Issuer/v1",
            ],
        );
    }

    #[test]
    fn ip_addresses() {
        all(
            is_ip_address,
            &["127.0.0.1", "::1", "2001:db8::1"],
            &["", "127.0.0", "127.0.0.01", "fe80::1%eth0", "1.2.3.4/8"],
        );
    }

    #[test]
    fn uris() {
        all(
            is_uri,
            &[
                "spiffe://cluster.local/ns/demo/sa/x",
                "https://a.example:8443/x?y#z",
                "urn+x://host",
                "https://[::1]/",
            ],
            &[
                "",
                "a",
                "/path",
                "urn:a:b",
                "https://",
                "https:///path",
                "://host",
                "1a://host",
                "https://h\u{f6}st/",
                "a b://c",
            ],
        );
    }

    #[test]
    fn email_addresses() {
        all(
            is_email,
            &["dba@example.com", "a.b+c@d.e"],
            &[
                "",
                "dba",
                "@example.com",
                "dba@",
                "A <a@b.c>",
                "a@b@c",
                "a b@c.d",
                ".a@b.c",
                "a..b@c.d",
                "a@*.b",
            ],
        );
    }
}
