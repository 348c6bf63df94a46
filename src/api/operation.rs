//! The operation that a request asks for.

use super::ops_request::{OpsType, PostgresOpsRequestSpec, TlsOperation};

/// One operation on a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// All pods are restarted.
    Restart,
    /// TLS is added to a database without TLS; else something about it changes.
    Change,
    /// All certificates are issued anew.
    Rotate,
    /// TLS is removed.
    Remove,
}

impl Operation {
    /// Whether certificates are issued.
    #[must_use]
    pub const fn issues_certificates(self) -> bool {
        matches!(self, Self::Change | Self::Rotate)
    }

    /// Whether the database's spec changes.
    #[must_use]
    pub const fn changes_spec(self) -> bool {
        matches!(self, Self::Change | Self::Remove)
    }

    /// Whether the operation is about TLS.
    #[must_use]
    pub fn is_about_tls(self) -> bool {
        self != Self::Restart
    }
}

impl PostgresOpsRequestSpec {
    /// The operation; `None` for a type that pgrekey does not carry out, and for a `ReconfigureTLS`
    /// that asks for nothing. A rule refuses both, and a request that asks for two operations.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match (self.type_, &self.tls) {
            (OpsType::Restart, _) => Some(Operation::Restart),
            (OpsType::ReconfigureTLS, Some(change)) => {
                change.operations().first().map(|asked| match asked {
                    TlsOperation::Remove => Operation::Remove,
                    TlsOperation::Rotate => Operation::Rotate,
                    TlsOperation::Change => Operation::Change,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_one_operation() {
        for (spec, operation) in [
            ("{type: Restart}", Some(Operation::Restart)),
            (
                "{type: Restart, tls: {remove: true}}",
                Some(Operation::Restart),
            ),
            (
                "{type: ReconfigureTLS, tls: {remove: true, clientAuthMode: md5}}",
                Some(Operation::Remove),
            ),
            (
                "{type: ReconfigureTLS, tls: {rotateCertificates: true}}",
                Some(Operation::Rotate),
            ),
            (
                "{type: ReconfigureTLS, tls: {sslMode: require}}",
                Some(Operation::Change),
            ),
            (
                "{type: ReconfigureTLS, tls: {issuerRef: {name: a}}}",
                Some(Operation::Change),
            ),
            ("{type: ReconfigureTLS, tls: {}}", None),
            ("{type: ReconfigureTLS}", None),
            ("{type: UpdateVersion}", None),
        ] {
            let spec = spec.replacen('{', "{databaseRef: {name: pg}, ", 1);
            let spec: PostgresOpsRequestSpec = serde_saphyr::from_str(&spec).expect("a spec");
            assert_eq!(spec.operation(), operation, "{spec:?}");
        }
    }
}
