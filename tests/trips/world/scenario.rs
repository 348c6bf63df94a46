//! The table of operations: the database before each, and the request.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use pgrekey::api::annotations::{OPS_REQUEST_FINALIZER, STRATEGY};
use pgrekey::api::ops_request::PostgresOpsRequestSpec;
use pgrekey::api::postgres::{DatabasePhase, PostgresSpec};
use pgrekey::api::{Postgres, PostgresOpsRequest};
use pgrekey::plan::preview::PodStrategy;

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
    before: &'static str,
    /// The request, without its `databaseRef`.
    request: &'static str,
}

impl Scenario {
    /// The operation of this name.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn named(name: &str) -> &'static Self {
        let mut scenarios = SCENARIOS.iter();
        scenarios
            .find(|scenario| scenario.name == name)
            .expect("a scenario")
    }

    /// The database before the operation.
    pub(super) fn database(&self, replicas: u32) -> Postgres {
        let mut spec: PostgresSpec = serde_saphyr::from_str(self.before).expect("a spec");
        spec.replicas = i32::try_from(replicas).ok();
        let mut database = Postgres::new("pg", spec);
        database.metadata.namespace = Some("demo".to_owned());
        database.metadata.uid = Some("database".to_owned());
        database.status.get_or_insert_default().phase = Some(DatabasePhase::Ready);
        database
    }

    /// The request, as the webhooks let it in.
    pub(super) fn request(&self, strategy: PodStrategy) -> PostgresOpsRequest {
        let asked = self.request.replacen('{', "{databaseRef: {name: pg}, ", 1);
        let spec: PostgresOpsRequestSpec = serde_saphyr::from_str(&asked).expect("a request");
        let mut request = PostgresOpsRequest::new("request", spec);
        request.metadata.namespace = Some("demo".to_owned());
        request.metadata.uid = Some("request".to_owned());
        request.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        request
            .annotations_mut()
            .insert(STRATEGY.to_owned(), format!("{strategy:?}"));
        request
            .finalizers_mut()
            .push(OPS_REQUEST_FINALIZER.to_owned());
        request
    }
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
        name: "change-key",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {certificates: [{alias: client, privateKey: {algorithm: ECDSA, encoding: PKCS8}}]}}",
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
