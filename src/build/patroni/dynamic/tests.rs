use super::*;
use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
use crate::build::BuildInputs;
use crate::build::cluster::tests::{cluster, postgres, version};
use crate::tls::Method;
use proptest::prelude::*;

fn config_of(spec: &str) -> Value {
    json!(config(
        &cluster(&postgres(spec)),
        &Posture::plain(Method::Scram)
    ))
}

#[test]
fn a_user_may_set_shared_buffers_but_no_reserved_setting() {
    let config = config_of(
        "{version: '17', configuration: {inline: {user.conf: \"shared_buffers = 64MB\\npassword_encryption = md5\"}}}",
    );
    let parameters = &config["postgresql"]["parameters"];
    assert_eq!(
        (
            &parameters["shared_buffers"],
            &parameters["password_encryption"]
        ),
        (&json!("64MB"), &json!("scram-sha-256"))
    );
}

#[test]
fn a_default_gives_way_to_the_file_and_the_spec_wins_over_it() {
    let of = |text: &str, inline: &str| {
        let spec = format!(
            "{{version: '17', configuration: {{secretName: s, inline: {{user.conf: \"{inline}\"}}}}}}"
        );
        let facts = BuildInputs {
            version: &version("17"),
            superuser: "postgres",
            user_conf: Some(text),
            live_pods: 0,
            cluster_domain: DEFAULT_CLUSTER_DOMAIN,
        };
        let cluster = Cluster::build(&postgres(&spec), &facts).expect("a cluster");
        json!(config(&cluster, &Posture::plain(Method::Scram)))["postgresql"]["parameters"].clone()
    };
    assert_eq!(of("work_mem = 8MB", "")["shared_buffers"], "256MB");
    assert!(
        of("shared_buffers = 64MB", "")
            .get("shared_buffers")
            .is_none()
    );
    assert_eq!(
        of("shared_buffers = 64MB", "shared_buffers = 32MB")["shared_buffers"],
        "32MB"
    );
    assert_eq!(
        of("max_connections = 50", "max_connections = 60")["max_connections"],
        "60"
    );
    assert_eq!(
        of("password_encryption = md5", "")["password_encryption"],
        "scram-sha-256"
    );
}

#[test]
fn there_is_room_for_the_largest_number_of_pods_whatever_there_are_now() {
    for (conf, senders) in [
        ("", "42"),
        ("max_wal_senders = 5", "42"),
        ("max_wal_senders = lots", "42"),
        ("MAX_WAL_SENDERS = 64", "64"),
    ] {
        let config = config_of(&format!(
            "{{version: '17', configuration: {{inline: {{user.conf: '{conf}'}}}}}}"
        ));
        let parameters = &config["postgresql"]["parameters"];
        assert_eq!(
            (
                &parameters["max_wal_senders"],
                &parameters["max_replication_slots"]
            ),
            (&json!(senders), &json!("42"))
        );
    }
}

#[test]
fn commits_wait_for_standbys_as_the_spec_says() {
    let asynchronous = config_of("version: '17'");
    assert_eq!(
        (
            asynchronous.get("synchronous_mode"),
            asynchronous.get("synchronous_node_count")
        ),
        (None, None)
    );
    let default = config_of("{version: '17', streamingMode: Synchronous}");
    assert_eq!(
        (
            &default["synchronous_mode"],
            &default["synchronous_node_count"]
        ),
        (&json!("quorum"), &json!(1))
    );
    assert_eq!(
        default["postgresql"]["parameters"]["synchronous_commit"],
        "remote_write"
    );
    let first = config_of(
        "{version: '17', streamingMode: Synchronous, synchronousReplicationConfig: \
         {mode: First, numSyncReplicas: 2, commitLevel: RemoteApply}}",
    );
    assert_eq!(
        (&first["synchronous_mode"], &first["synchronous_node_count"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(
        first["postgresql"]["parameters"]["synchronous_commit"],
        "remote_apply"
    );
}

#[test]
fn the_limit_of_a_failover_is_the_specs() {
    assert_eq!(
        config_of("version: '17'")["maximum_lag_on_failover"],
        defaults::MAXIMUM_LAG_BEFORE_FAILOVER
    );
    let limited = config_of("{version: '17', leaderElection: {maximumLagBeforeFailover: 7}}");
    assert_eq!(limited["maximum_lag_on_failover"], 7);
}

#[test]
fn a_configuration_is_read_as_it_was_written() {
    let spec =
        "{version: '17', streamingMode: Synchronous, synchronousReplicationConfig: {mode: MODE}}";
    for mode in ["Any", "First"] {
        let cluster = cluster(&postgres(&spec.replace("MODE", mode)));
        let mut written = config(&cluster, &Posture::plain(Method::Scram));
        written.drop_left_slots();
        let read = DynamicConfig::parse(&written.to_string()).expect("JSON");
        assert_eq!((&read, read.is_synchronous()), (&written, true));
    }
}

proptest! {
    /// Keys and values that pgrekey does not write survive.
    #[test]
    fn keys_of_others_are_kept(key in "[a-z_]{1,12}", value in "[ -~]{0,12}", number in any::<i64>()) {
        for value in [json!(value), json!(number), json!({ "of": value })] {
            let text = json!({ &key: value, "ttl": "30", "postgresql": { &key: value } });
            let read = DynamicConfig::parse(&text.to_string()).expect("JSON");
            prop_assert_eq!(read.to_string(), text.to_string());
        }
    }
}
