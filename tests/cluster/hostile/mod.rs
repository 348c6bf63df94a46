//! Strangers: objects, callers, databases, pods and neighbours that mean harm.
//!
//! pgrekey runs as the chart installs it, its memory limit and its admission policies included.
//! Whatever happens, other namespaces are served meanwhile, and in the end no container of pgrekey
//! has been restarted.

mod bystander;
mod callers;
mod databases;
mod neighbours;
mod objects;

use serde_json::{Value, json};

use self::bystander::Bystander;
use crate::harness::{Cluster, Installed, TestNamespace, example, issuers, versions};

/// Where the victim of most cases is.
const NAMESPACE: &str = "hostile";
/// The database that strangers are let loose on.
const VICTIM: &str = "victim";

/// A database of one pod.
fn victim(version: &str) -> Value {
    let mut victim = example("ha-postgres.yaml", VICTIM, 1, version);
    victim["spec"]["configuration"] = json!({"secretName": databases::SETTINGS});
    victim
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_ends_no_operator_and_gains_no_rights() {
    let Some(cluster) = Cluster::connect_alone().await else {
        return;
    };
    let versions = versions(&cluster);
    let installed = Installed::install(&cluster);
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    let bystander = Bystander::start(&cluster, &versions[&17]);
    issuers(namespace);
    databases::settings(namespace, "log_line_prefix = 'from a secret %m:'\n");
    namespace.apply(&victim(&versions[&17]));

    callers::large_manifests_are_refused(namespace, &versions[&17]);
    callers::half_sent_bodies_delay_no_caller(&installed, &cluster, &versions[&17]).await;
    objects::objects_of_strangers_are_refused_with_their_reason(namespace, &versions[&17]);

    namespace.until_phase(VICTIM, "Ready", 180).await;
    databases::settings_that_cannot_be_read_stop_no_pod(namespace).await;
    databases::an_impostor_gets_nothing(namespace).await;
    databases::functions_and_views_of_others_are_not_called(namespace).await;
    databases::a_server_that_never_ends_its_answer_is_left(namespace).await;
    neighbours::a_pet_set_without_an_owner_gets_no_pods(namespace);
    neighbours::a_second_budget_is_named(namespace).await;
    neighbours::it_has_got_none(namespace);
    neighbours::ten_waiting_requests_stop_no_other(namespace, &versions[&17]).await;

    bystander.stop().await;
    assert_eq!(
        installed.restarts(),
        0,
        "pgrekey was restarted: {}",
        installed.last_ends()
    );
    neighbours::without_cert_manager_plain_databases_are_made(namespace, &versions[&17]).await;
    namespace.until_phase(VICTIM, "Ready", 90).await;
    namespace.clear();
    assert_eq!(
        installed.restarts(),
        0,
        "pgrekey was restarted: {}",
        installed.last_ends()
    );
}
