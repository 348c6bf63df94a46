//! The operations that are simulated: what the database is before, and what is asked of it.

const SECURE: &str =
    "{version: '17', sslMode: verify-full, clientAuthMode: cert, tls: {issuerRef: {name: old}}}";

const MD5: &str =
    "{version: '17', sslMode: verify-full, clientAuthMode: md5, tls: {issuerRef: {name: old}}}";

const PLAIN: &str = "{version: '17', sslMode: disable, clientAuthMode: md5}";

/// An operation to simulate.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name, in the names of transcripts too.
    pub(crate) name: &'static str,
    /// The database's spec before it.
    pub(super) before: &'static str,
    /// The request, without its `databaseRef`.
    pub(super) request: &'static str,
}

/// Every operation.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "add",
        before: PLAIN,
        request: "{type: ReconfigureTLS, tls: {issuerRef: {name: old}, sslMode: verify-full, clientAuthMode: cert}}",
    },
    Scenario {
        name: "add-scram",
        before: PLAIN,
        request: "{type: ReconfigureTLS, tls: {issuerRef: {name: old}, sslMode: require, clientAuthMode: scram}}",
    },
    Scenario {
        name: "remove",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {remove: true, clientAuthMode: md5}}",
    },
    Scenario {
        name: "change-issuer",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {issuerRef: {name: new}}}",
    },
    Scenario {
        name: "update",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {certificates: [{alias: server, dnsNames: [db.example]}]}}",
    },
    Scenario {
        name: "change-modes",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {sslMode: require, clientAuthMode: scram}}",
    },
    Scenario {
        name: "change-password",
        before: MD5,
        request: "{type: ReconfigureTLS, tls: {clientAuthMode: scram}}",
    },
    Scenario {
        name: "rotate",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {rotateCertificates: true}}",
    },
    Scenario {
        name: "restart",
        before: SECURE,
        request: "{type: Restart}",
    },
];
