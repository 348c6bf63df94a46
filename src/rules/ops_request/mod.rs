//! The rules for `PostgresOpsRequest`.

mod checks;
mod table;
mod target;
mod tls;

use crate::api::PostgresOpsRequest;

use crate::rules::AdmissionOperation::Create;
use crate::rules::certificates;
use crate::rules::{Needs, Rule};

/// Every rule for `PostgresOpsRequest`, in the order in which findings are listed.
pub fn rules() -> impl Iterator<Item = &'static Rule<PostgresOpsRequest>> {
    // An update runs only the rules for updates: the spec was judged at creation, and the cluster
    // has changed since.
    static CERTIFICATES: [Rule<PostgresOpsRequest>; 19] =
        on_create(certificates::rules(Needs::SomeFacts));
    table::RULES.iter().chain(&CERTIFICATES)
}

const fn on_create<const N: usize>(
    mut rules: [Rule<PostgresOpsRequest>; N],
) -> [Rule<PostgresOpsRequest>; N] {
    let mut i = 0;
    while i < N {
        rules[i].on = &[Create];
        i += 1;
    }
    rules
}
