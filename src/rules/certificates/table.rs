//! The rules about issuers and certificates, as a document: each with its reason and an example.

use crate::rules::Effect::{Refuse, Warn};
use crate::rules::certificates::view::HasTls;
use crate::rules::certificates::{entries, issuers, secrets};
use crate::rules::shared::CHANGES;
use crate::rules::{Needs, Review, Rule};

/// The rules, for either kind of object. `unchanged` are the facts that [`HasTls::unchanged`]
/// needs.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table")]
pub const fn rules<K: 'static>(unchanged: Needs) -> [Rule<K>; 15]
where
    Review<K>: HasTls,
{
    [
        Rule {
            id: "issuer-kind",
            effect: Refuse,
            on: CHANGES,
            what: "an issuer of another kind than `Issuer` or `ClusterIssuer`",
            why: "cert-manager signs with these two kinds only.",
            example: "tls: {issuerRef: {kind: Vault, name: pg-issuer}}",
            needs: Needs::Nothing,
            check: issuers::issuer_kind,
        },
        Rule {
            id: "issuer-group",
            effect: Refuse,
            on: CHANGES,
            what: "an issuer of another API group than `cert-manager.io`",
            why: "pgrekey creates Certificates, and only cert-manager's own issuers are known to fill them as pgrekey verifies them.",
            example: "tls: {issuerRef: {apiGroup: example.com, kind: Issuer, name: pg-issuer}}",
            needs: Needs::Nothing,
            check: issuers::issuer_group,
        },
        Rule {
            id: "issuer-exists",
            effect: Refuse,
            on: CHANGES,
            what: "an issuer that does not exist; an Issuer must be in the database's own namespace",
            why: "The operation would wait for the issuer until its timeout.",
            example: "tls: {issuerRef: {kind: Issuer, name: no-such-issuer}}",
            needs: Needs::SomeFacts,
            check: issuers::issuer_exists,
        },
        Rule {
            id: "issuer-not-ready",
            effect: Warn,
            on: CHANGES,
            what: "an issuer that is not Ready",
            why: "The operation waits until the issuer is Ready, and changes nothing before.",
            example: "tls: {issuerRef: {kind: Issuer, name: broken-issuer}}",
            needs: Needs::Facts,
            check: issuers::issuer_not_ready,
        },
        Rule {
            id: "cert-shared-issuer",
            effect: Warn,
            on: CHANGES,
            what: "`clientAuthMode: cert` with a ClusterIssuer, or with an Issuer that other databases use",
            why: "A server accepts any client certificate of the database's issuers. Anybody with a certificate for the superuser's name is superuser, and another database's `NAME-client-cert` is such a certificate.",
            example: "{clientAuthMode: cert, tls: {issuerRef: {kind: ClusterIssuer, name: cluster-issuer}}}",
            needs: Needs::SomeFacts,
            check: issuers::cert_shared_issuer,
        },
        Rule {
            id: "alias-known",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate alias other than `server`, `client` and `metrics-exporter`",
            why: "The certificate would never be used; most often the alias is misspelt.",
            example: "tls: {certificates: [{alias: sever}]}",
            needs: Needs::Nothing,
            check: entries::alias_known,
        },
        Rule {
            id: "alias-unique",
            effect: Refuse,
            on: CHANGES,
            what: "two entries for one alias",
            why: "Only one of them could take effect, and it would not be clear which.",
            example: "tls: {certificates: [{alias: server}, {alias: server}]}",
            needs: Needs::Nothing,
            check: entries::alias_unique,
        },
        Rule {
            id: "secret-name-unique",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate Secret, named or by default, that two aliases share, that pgrekey or the spec uses otherwise, that belongs to another database, or that holds the CA of an issuer",
            why: "Two writers of one Secret overwrite each other for ever, and cert-manager overwrites any content. pgrekey does not know the namespace with the CA of a ClusterIssuer, so this Secret's name is reserved in all namespaces.",
            example: "tls: {certificates: [{alias: server, secretName: pg-certs}, {alias: client, secretName: pg-certs}]}",
            needs: Needs::SomeFacts,
            check: secrets::secret_name_unique,
        },
        Rule {
            id: "certificate-name-unique",
            effect: Refuse,
            on: CHANGES,
            what: "TLS for a database whose Certificates would have the names of another one's",
            why: "A name has at most 63 characters, so the end of a long database name is cut off: from 41 characters on for `-metrics-exporter-cert`, from 51 on for the others.",
            example: "# metadata.name: the same 41 characters as another database with TLS, and then something else",
            needs: Needs::Facts,
            check: secrets::certificate_name_unique,
        },
        Rule {
            id: "san-valid",
            effect: Refuse,
            on: CHANGES,
            what: "names that a certificate cannot have, more than 250 of them, and more than 16 KiB; the names of a request are counted together with those of the database",
            why: "cert-manager would refuse the Certificate in the middle of the operation. With a certificate that is too big, handshakes fail, first those of Java clients.",
            example: "tls: {certificates: [{alias: server, dnsNames: ['db.*.example.com'], ipAddresses: [10.0.0.256]}]}",
            needs: unchanged,
            check: entries::san_valid,
        },
        Rule {
            id: "subject-valid",
            effect: Refuse,
            on: CHANGES,
            what: "subject values with control characters, empty ones, ones longer than X.520 allows, and countries that are not two letters",
            why: "The certificate could not be encoded, or other software would refuse it. Commas, quotes and equals signs are allowed.",
            example: "tls: {certificates: [{alias: client, subject: {countries: [Utopia]}}]}",
            needs: Needs::Nothing,
            check: entries::subject_valid,
        },
        Rule {
            id: "duration-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a `duration` that is not a duration, or is shorter than 1 h",
            why: "cert-manager issues no shorter certificate.",
            example: "tls: {certificates: [{alias: server, duration: 30m}]}",
            needs: Needs::Nothing,
            check: entries::duration_valid,
        },
        Rule {
            id: "renew-before-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a `renewBefore` that is not a duration, is shorter than 5 min, or is not shorter than the certificate's `duration`",
            why: "cert-manager refuses it, or would renew endlessly.",
            example: "tls: {certificates: [{alias: server, duration: 1h, renewBefore: 2h}]}",
            needs: unchanged,
            check: entries::renew_before_valid,
        },
        Rule {
            id: "renew-before-deprecated",
            effect: Warn,
            on: CHANGES,
            what: "`renewBefore`, which KubeDB has deprecated",
            why: "pgrekey honours it; KubeDB may not.",
            example: "tls: {certificates: [{alias: server, duration: 24h, renewBefore: 8h}]}",
            needs: Needs::Nothing,
            check: entries::renew_before_deprecated,
        },
        Rule {
            id: "secret-name-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate Secret with an invalid name",
            why: "cert-manager could not create it.",
            example: "tls: {certificates: [{alias: server, secretName: Server_Cert}]}",
            needs: Needs::Nothing,
            check: secrets::secret_name_valid,
        },
    ]
}
