use serde_json::{Value, json};

use super::*;

/// The settings beyond `restricted` in `podTemplate.spec`, by the end of their path.
fn elevated_of(settings: &Value) -> Vec<(String, PodSecurity)> {
    let spec = json!({"version": "17", "podTemplate": {"spec": settings}});
    let spec: PostgresSpec = serde_json::from_value(spec).expect("a spec");
    let short = |field: &str| {
        field
            .rsplit_once("securityContext.")
            .map_or("", |(_, end)| end)
            .to_owned()
    };
    elevated_settings(&spec)
        .iter()
        .map(|setting| (short(&setting.field), setting.level))
        .collect()
}

fn container(context: &Value) -> Vec<(String, PodSecurity)> {
    elevated_of(&json!({"containers": [{"name": "postgres", "securityContext": context}]}))
}

fn pod(context: &Value) -> Vec<(String, PodSecurity)> {
    elevated_of(&json!({"securityContext": context}))
}

#[test]
fn a_pod_without_settings_of_its_own_meets_restricted() {
    assert_eq!(container(&json!({})), []);
    assert_eq!(pod(&json!({})), []);
}

#[test]
fn every_control_of_both_levels_is_known_by_the_level_that_allows_it() {
    let both = [
        (json!({"runAsNonRoot": false}), "runAsNonRoot", Baseline),
        (json!({"runAsUser": 0}), "runAsUser", Baseline),
        (
            json!({"seccompProfile": {"type": "Unconfined"}}),
            "seccompProfile.type",
            Privileged,
        ),
        (
            json!({"appArmorProfile": {"type": "Unconfined"}}),
            "appArmorProfile.type",
            Privileged,
        ),
        (
            json!({"seLinuxOptions": {"type": "spc_t"}}),
            "seLinuxOptions.type",
            Privileged,
        ),
        (
            json!({"seLinuxOptions": {"user": "system_u"}}),
            "seLinuxOptions.user",
            Privileged,
        ),
        (
            json!({"seLinuxOptions": {"role": "system_r"}}),
            "seLinuxOptions.role",
            Privileged,
        ),
        (
            json!({"windowsOptions": {"hostProcess": true}}),
            "windowsOptions.hostProcess",
            Privileged,
        ),
    ];
    let of_pods = [(
        json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        "sysctls[0].name",
        Privileged,
    )];
    let of_containers = [
        (json!({"privileged": true}), "privileged", Privileged),
        (
            json!({"allowPrivilegeEscalation": true}),
            "allowPrivilegeEscalation",
            Baseline,
        ),
        (json!({"procMount": "Unmasked"}), "procMount", Privileged),
        (
            json!({"capabilities": {"add": ["CHOWN"]}}),
            "capabilities.add[0]",
            Baseline,
        ),
        (
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            "capabilities.add[0]",
            Privileged,
        ),
        (
            json!({"capabilities": {"add": ["ALL"]}}),
            "capabilities.add[0]",
            Privileged,
        ),
        (
            json!({"capabilities": {"drop": ["NET_RAW"]}}),
            "capabilities.drop",
            Baseline,
        ),
        (
            json!({"capabilities": {"drop": []}}),
            "capabilities.drop",
            Baseline,
        ),
    ];
    for (context, field, level) in both.iter().chain(&of_pods) {
        assert_eq!(pod(context), [((*field).to_owned(), *level)], "{context}");
    }
    for (context, field, level) in both.iter().chain(&of_containers) {
        assert_eq!(
            container(context),
            [((*field).to_owned(), *level)],
            "{context}"
        );
    }
}

#[test]
fn settings_that_restricted_allows_need_no_level() {
    for context in [
        json!({"runAsUser": 65534, "runAsGroup": 0}),
        json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/pg.json"}}),
        json!({"seLinuxOptions": {"type": "container_t", "level": "s0:c1,c2", "user": "", "role": ""}}),
    ] {
        assert_eq!(container(&context), [], "{context}");
        assert_eq!(pod(&context), [], "{context}");
    }
    assert_eq!(
        container(&json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}, "procMount": "Default"})),
        []
    );
    assert_eq!(
        container(
            &json!({"capabilities": {"drop": ["ALL", "KILL"]}, "readOnlyRootFilesystem": false})
        ),
        []
    );
    let groups = json!({"supplementalGroups": [0, 6], "fsGroup": 0});
    assert_eq!(pod(&groups), [], "the standards do not speak of groups");
    assert_eq!(
        pod(&json!({"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "60"}]})),
        []
    );
}

#[test]
fn profiles_in_annotations_count_too() {
    let of = |annotations: &Value| {
        let spec =
            json!({"version": "17", "podTemplate": {"metadata": {"annotations": annotations}}});
        elevated_settings(&serde_json::from_value(spec).expect("a spec")).len()
    };
    assert_eq!(
        of(&json!({"container.apparmor.security.beta.kubernetes.io/postgres": "unconfined"})),
        1
    );
    assert_eq!(
        of(&json!({"container.apparmor.security.beta.kubernetes.io/postgres": "runtime/default"})),
        0
    );
    assert_eq!(
        of(&json!({"container.apparmor.security.beta.kubernetes.io/postgres": "localhost/pg"})),
        0
    );
    assert_eq!(of(&json!({"example.com/of": "unconfined"})), 0);
}
