//! The settings of a Secret on a real cluster: they stay in Secrets, reach every server, and keep
//! none from starting.

use serde_json::json;

use crate::harness::{Cluster, Controllers, Seat, TestNamespace, example, psql, secret, versions};

const NAMESPACE: &str = "user-conf";
const PODS: [&str; 2] = ["pg-0", "pg-1"];

/// What every server says to this query, if all say the same.
fn all_say(namespace: &TestNamespace<'_>, query: &str) -> Option<String> {
    let [first, second] = PODS.map(|pod| psql(namespace, pod, "user=postgres", query).ok());
    first.filter(|said| second.as_ref() == Some(said))
}

fn write(namespace: &TestNamespace<'_>, conf: &str) {
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "conf"}, "stringData": {"user.conf": conf},
    }));
}

async fn until_taken(namespace: &TestNamespace<'_>, setting: &str, value: &str) {
    let show = format!("show {setting}");
    let what = format!("{setting} is {value}");
    let took = namespace
        .until(&what, 60, || {
            all_say(namespace, &show).as_deref() == Some(value)
        })
        .await;
    println!(
        "a changed Secret: {setting} everywhere after {:.1} s",
        took.as_secs_f32()
    );
}

/// Nobody who may not read Secrets, or asks Patroni, reads what is in one.
fn nobody_tells(namespace: &TestNamespace<'_>) {
    let told = namespace.kubectl(&["get", "cm,pod,petset,sts,pg,events", "-o", "yaml"]);
    assert!(!told.contains("hush"), "{told}");
    for path in ["config", "patroni"] {
        let url = format!("localhost:8008/{path}");
        let said =
            namespace.kubectl(&["exec", PODS[0], "-c", "postgres", "--", "curl", "-s", &url]);
        assert!(said.starts_with('{') && !said.contains("hush"), "{said}");
    }
}

/// Whether the database is blocked with a message that contains this text.
fn blocked(namespace: &TestNamespace<'_>, text: &str) -> bool {
    namespace
        .condition("pg/pg", "Blocked", "message")
        .contains(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_a_secret_stay_in_secrets_and_reach_every_server() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let controllers = Controllers::start(&seat, NAMESPACE).await;
    let namespace = TestNamespace::make(&cluster, NAMESPACE);
    let namespace = &namespace;
    // With every character that has a meaning somewhere on the way, and as long as may be.
    let password = format!("{: <256}", r#" a:b\c 'd"%e$f$(HOME){x}`id`#"#).replace("  ", "xx");
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "odd"},
        "stringData": {"username": "postgres", "password": format!("{password}\n")},
    }));
    write(namespace, "log_line_prefix = 'hush '\nmax_connections = 60");
    let mut database = example("ha-postgres.yaml", "pg", 2, &versions[&17]);
    database["spec"]["configuration"] = json!({"secretName": "conf"});
    database["spec"]["authSecret"] =
        json!({"kind": "Secret", "name": "odd", "externallyManaged": true});
    namespace.apply(&database);
    namespace
        .until("the line break is told", 60, || {
            blocked(namespace, "key password has a line break")
        })
        .await;
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "odd"}, "stringData": {"password": password},
    }));
    namespace.until_phase("pg", "Ready", 180).await;
    let both = "select current_setting('log_line_prefix') || current_setting('max_connections')";
    assert_eq!(all_say(namespace, both).as_deref(), Some("hush 60"));
    // What initdb found out is not lost.
    assert_ne!(
        all_say(namespace, "show default_text_search_config").as_deref(),
        Some("pg_catalog.simple")
    );
    nobody_tells(namespace);

    write(
        namespace,
        "log_line_prefix = 'hush hush '\nmax_connections = 70\nwork_mem = 5MB",
    );
    until_taken(namespace, "work_mem", "5MB").await;
    let pending = || namespace.condition("pg/pg", "RestartPending", "message");
    namespace
        .until("a restart is asked for", 60, || {
            pending().contains("max_connections (pg-0, pg-1)")
        })
        .await;
    nobody_tells(namespace);
    a_bad_secret_takes_nothing_away(namespace).await;
    namespace.clear();
    controllers.stop().await;
}

/// A line that no server starts with, a value that PostgreSQL refuses, and a Secret that is gone:
/// the servers keep the settings that they have.
async fn a_bad_secret_takes_nothing_away(namespace: &TestNamespace<'_>) {
    // A line that no server starts with is not given to any.
    write(namespace, "log_line_prefix = 'hush '\nwrok_mem = 6MB");
    namespace
        .until("the line is told", 60, || {
            blocked(namespace, "Secret conf, key user.conf, line 2: ")
        })
        .await;
    assert_eq!(
        all_say(namespace, "show log_line_prefix").as_deref(),
        Some("hush hush")
    );
    write(
        namespace,
        "max_connections = 60\nwork_mem = 7MB\ntimezone = 'hush '",
    );
    until_taken(namespace, "work_mem", "7MB").await;
    namespace
        .until("the setting is told", 60, || {
            blocked(namespace, "PostgreSQL does not take timezone")
        })
        .await;
    namespace
        .until("it is left out", 60, || {
            !secret(namespace, "pg-user-conf", "user.conf").contains("timezone")
        })
        .await;
    nobody_tells(namespace);

    // Nor does a Secret that has gone take anything away, and an empty one does.
    namespace.kubectl(&["delete", "secret", "conf"]);
    namespace
        .until("the loss is told", 60, || {
            blocked(namespace, "Secret conf has no key user.conf")
        })
        .await;
    assert_eq!(all_say(namespace, "show work_mem").as_deref(), Some("7MB"));
    write(namespace, "");
    until_taken(namespace, "work_mem", "4MB").await;
    namespace
        .until("nothing is in the way", 60, || {
            namespace.condition("pg/pg", "Blocked", "status").is_empty()
        })
        .await;
}
