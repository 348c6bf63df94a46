//! The rules about issuers and certificates, as a document: each with its reason and an example.

use crate::rules::Effect::{Refuse, Warn};
use crate::rules::certificates::view::HasTls;
use crate::rules::certificates::{entries, issuers, secrets};
use crate::rules::shared::CHANGES;
use crate::rules::{Needs, Review, Rule};

/// The rules of this file, for either kind of object; `unchanged` says what is needed to know what
/// the database has already.
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
            why: "The operation would wait for it until its timeout.",
            example: "tls: {issuerRef: {kind: Issuer, name: no-such-issuer}}",
            needs: Needs::SomeFacts,
            check: issuers::issuer_exists,
        },
        Rule {
            id: "issuer-not-ready",
            effect: Warn,
            on: CHANGES,
            what: "an issuer that is not Ready",
            why: "The operation waits for it, and nothing is touched before it is Ready.",
            example: "tls: {issuerRef: {kind: Issuer, name: broken-issuer}}",
            needs: Needs::Facts,
            check: issuers::issuer_not_ready,
        },
        Rule {
            id: "cert-shared-issuer",
            effect: Warn,
            on: CHANGES,
            what: "`clientAuthMode: cert` with a ClusterIssuer, or with an Issuer that other databases use",
            why: "A client is who its certificate says, if an issuer of the database has signed it: whoever can obtain one for the superuser's name is superuser. Another database's `NAME-client-cert` is such a one.",
            example: "{clientAuthMode: cert, tls: {issuerRef: {kind: ClusterIssuer, name: cluster-issuer}}}",
            needs: Needs::SomeFacts,
            check: issuers::cert_shared_issuer,
        },
        Rule {
            id: "alias-known",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate alias other than `server`, `client` and `metrics-exporter`",
            why: "Nothing would ever use the certificate; most often the alias is misspelt.",
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
            why: "Two writers of one Secret overwrite each other for ever, and cert-manager writes over whatever it finds. In which namespace the CA of a ClusterIssuer is, pgrekey does not know: its name is taken in all of them.",
            example: "tls: {certificates: [{alias: server, secretName: pg-certs}, {alias: client, secretName: pg-certs}]}",
            needs: Needs::SomeFacts,
            check: secrets::secret_name_unique,
        },
        Rule {
            id: "certificate-name-unique",
            effect: Refuse,
            on: CHANGES,
            what: "TLS for a database whose Certificates would have the names of another one's",
            why: "A name has at most 63 characters, so the end of a database's long name is cut off to make room: of 41 characters and more for `-metrics-exporter-cert`, of 51 for the others.",
            example: "# metadata.name: the same 41 characters as another database with TLS, and then something else",
            needs: Needs::Facts,
            check: secrets::certificate_name_unique,
        },
        Rule {
            id: "san-valid",
            effect: Refuse,
            on: CHANGES,
            what: "names that a certificate cannot carry, more than 250 of them, and more than 16 KiB: those of a request are counted with those that the database has",
            why: "cert-manager would refuse the Certificate in the middle of the operation; and a certificate that is too big ends handshakes, first with Java clients.",
            example: "tls: {certificates: [{alias: server, dnsNames: ['db.*.example.com'], ipAddresses: [10.0.0.256]}]}",
            needs: unchanged,
            check: entries::san_valid,
        },
        Rule {
            id: "subject-valid",
            effect: Refuse,
            on: CHANGES,
            what: "subject values with control characters, empty ones, ones longer than X.520 allows, and countries that are not two letters",
            why: "The certificate could not be encoded, or other software would refuse it. Commas, quotes and equals signs are data, and fine.",
            example: "tls: {certificates: [{alias: client, subject: {countries: [Utopia]}}]}",
            needs: Needs::Nothing,
            check: entries::subject_valid,
        },
        Rule {
            id: "duration-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a `duration` that is no duration, or shorter than 1 h",
            why: "cert-manager issues nothing shorter.",
            example: "tls: {certificates: [{alias: server, duration: 30m}]}",
            needs: Needs::Nothing,
            check: entries::duration_valid,
        },
        Rule {
            id: "renew-before-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a `renewBefore` that is no duration, shorter than 5 min, or not shorter than the certificate's `duration`",
            why: "cert-manager refuses it, or would renew without end.",
            example: "tls: {certificates: [{alias: server, duration: 1h, renewBefore: 2h}]}",
            needs: unchanged,
            check: entries::renew_before_valid,
        },
        Rule {
            id: "renew-before-deprecated",
            effect: Warn,
            on: CHANGES,
            what: "`renewBefore`, which KubeDB has deprecated",
            why: "It is honoured here; elsewhere it may not be.",
            example: "tls: {certificates: [{alias: server, duration: 24h, renewBefore: 8h}]}",
            needs: Needs::Nothing,
            check: entries::renew_before_deprecated,
        },
        Rule {
            id: "secret-name-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate Secret whose name Kubernetes does not take",
            why: "cert-manager could not create it.",
            example: "tls: {certificates: [{alias: server, secretName: Server_Cert}]}",
            needs: Needs::Nothing,
            check: secrets::secret_name_valid,
        },
    ]
}
