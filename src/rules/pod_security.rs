//! What the pods of a database may be, by Kubernetes' Pod Security Standards as of 1.34.
//!
//! What is judged are the settings that are built: those of level `restricted`, and over them the
//! user's. Much that the standards speak of no spec can ask for, so pods never have it: host
//! namespaces, host ports, volumes of other types than `restricted` allows. On groups
//! (`runAsGroup`, `fsGroup`, `supplementalGroups`) the standards say nothing, and neither does this
//! rule.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext, WindowsSecurityContextOptions,
};

use crate::api::security;
use crate::api::{Postgres, PostgresSpec};

use crate::rules::allowed::PodSecurity;
use crate::rules::allowed::PodSecurity::{Baseline, Privileged, Restricted};
use crate::rules::{ClusterFacts, Findings, Review, quoted};

/// What may be added at level `baseline`: what container runtimes give to everybody.
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What may be added at level `restricted`.
const RESTRICTED_CAPABILITIES: [&str; 1] = ["NET_BIND_SERVICE"];

const SELINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// The kernel parameters that are the pod's own.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Annotations with this beginning name the `AppArmor` profile of a container, where Kubernetes is
/// older than the field.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a pod asks for: where, what, and the strictest level that has it.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    field: String,
    value: String,
    level: PodSecurity,
}

pub(super) fn pod_security(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let allowed = review.allowed.pod_security;
    for Wish {
        field,
        value,
        level,
    } in wishes(&review.object.spec)
        .into_iter()
        .filter(|wish| wish.level > allowed)
    {
        let problem = format!(
            "{value} is more than Pod Security level {} lets a pod be",
            allowed.as_str()
        );
        let remedy = format!(
            "leave it out; only an installation with podSecurity {} allows it",
            level.as_str()
        );
        findings.add(field, problem, remedy);
    }
}

/// All that is not `restricted` in the pods of a database.
fn wishes(spec: &PostgresSpec) -> Vec<Wish> {
    const POD: &str = "spec.podTemplate.spec.securityContext";
    let mut wishes = Wishes::default();
    let template = spec.pod_template.as_ref();
    for (name, profile) in template
        .iter()
        .filter_map(|t| t.metadata.as_ref()?.annotations.as_ref())
        .flatten()
    {
        let is_fine =
            profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/");
        if name.starts_with(APP_ARMOR) && !is_fine {
            wishes.add(
                format!("spec.podTemplate.metadata.annotations.{}", plain(name)),
                quoted(profile),
                Privileged,
            );
        }
    }
    let settings = template.and_then(|t| t.spec.as_ref());
    // Who builds knows the user of the image; any but root says the same here.
    wishes.pod(
        POD,
        &security::pod(1, settings.and_then(|pod| pod.security_context.clone())),
    );
    for (i, container) in settings
        .iter()
        .flat_map(|pod| pod.containers.iter().enumerate())
    {
        let field = format!("spec.podTemplate.spec.containers[{i}].securityContext");
        wishes.container(
            &field,
            &security::container(container.security_context.clone()),
        );
    }
    let exporter = spec
        .monitor
        .as_ref()
        .and_then(|m| m.prometheus.as_ref())
        .and_then(|p| p.exporter.as_ref());
    if let Some(wish) = exporter.and_then(|exporter| exporter.security_context.clone()) {
        wishes.container(
            "spec.monitor.prometheus.exporter.securityContext",
            &security::container(Some(wish)),
        );
    }
    wishes.0
}

/// The name of an annotation as it may stand in a path: what is odd about it is escaped.
fn plain(name: &str) -> String {
    quoted(name).trim_matches('"').to_owned()
}

#[derive(Default)]
struct Wishes(Vec<Wish>);

impl Wishes {
    fn add(&mut self, field: String, value: impl Into<String>, level: PodSecurity) {
        self.0.push(Wish {
            field,
            value: value.into(),
            level,
        });
    }

    /// Notes a truth value that is not what its level wants.
    fn flag(&mut self, field: String, value: Option<bool>, wanted: bool, level: PodSecurity) {
        if value == Some(!wanted) {
            self.add(field, (!wanted).to_string(), level);
        }
    }

    fn pod(&mut self, at: &str, context: &PodSecurityContext) {
        // Every field, so that a new one does not compile until somebody has read what the
        // standards say about it.
        let PodSecurityContext {
            app_armor_profile,
            run_as_non_root,
            run_as_user,
            se_linux_options,
            seccomp_profile,
            sysctls,
            windows_options,
            fs_group: _,
            fs_group_change_policy: _,
            run_as_group: _,
            se_linux_change_policy: _,
            supplemental_groups: _,
            supplemental_groups_policy: _,
        } = context;
        self.both(
            at,
            app_armor_profile.as_ref(),
            se_linux_options.as_ref(),
            seccomp_profile.as_ref(),
        );
        self.user(at, *run_as_non_root, *run_as_user, windows_options.as_ref());
        for (i, sysctl) in sysctls.iter().flatten().enumerate() {
            if !SYSCTLS.contains(&sysctl.name.as_str()) {
                self.add(
                    format!("{at}.sysctls[{i}].name"),
                    quoted(&sysctl.name),
                    Privileged,
                );
            }
        }
    }

    fn container(&mut self, at: &str, context: &SecurityContext) {
        let SecurityContext {
            allow_privilege_escalation,
            app_armor_profile,
            capabilities,
            privileged,
            proc_mount,
            run_as_non_root,
            run_as_user,
            se_linux_options,
            seccomp_profile,
            windows_options,
            read_only_root_filesystem: _,
            run_as_group: _,
        } = context;
        self.both(
            at,
            app_armor_profile.as_ref(),
            se_linux_options.as_ref(),
            seccomp_profile.as_ref(),
        );
        self.user(at, *run_as_non_root, *run_as_user, windows_options.as_ref());
        self.flag(format!("{at}.privileged"), *privileged, false, Privileged);
        self.flag(
            format!("{at}.allowPrivilegeEscalation"),
            *allow_privilege_escalation,
            false,
            Baseline,
        );
        if let Some(mount) = proc_mount.as_ref().filter(|mount| *mount != "Default") {
            self.add(format!("{at}.procMount"), quoted(mount), Privileged);
        }
        let Capabilities { add, drop } = capabilities.clone().unwrap_or_default();
        for (i, added) in add.iter().flatten().enumerate() {
            let level = match added.as_str() {
                name if RESTRICTED_CAPABILITIES.contains(&name) => Restricted,
                name if BASELINE_CAPABILITIES.contains(&name) => Baseline,
                _ => Privileged,
            };
            if level > Restricted {
                self.add(format!("{at}.capabilities.add[{i}]"), quoted(added), level);
            }
        }
        if !drop.iter().flatten().any(|dropped| dropped == "ALL") {
            self.add(
                format!("{at}.capabilities.drop"),
                "a list without ALL",
                Baseline,
            );
        }
    }

    /// What pods and containers alike can ask for.
    fn both(
        &mut self,
        at: &str,
        app_armor: Option<&AppArmorProfile>,
        selinux: Option<&SELinuxOptions>,
        seccomp: Option<&SeccompProfile>,
    ) {
        let is_fine = |type_: &str| matches!(type_, "RuntimeDefault" | "Localhost");
        if let Some(profile) = app_armor.filter(|profile| !is_fine(&profile.type_)) {
            self.add(
                format!("{at}.appArmorProfile.type"),
                quoted(&profile.type_),
                Privileged,
            );
        }
        if let Some(profile) = seccomp.filter(|profile| !is_fine(&profile.type_)) {
            self.add(
                format!("{at}.seccompProfile.type"),
                quoted(&profile.type_),
                Privileged,
            );
        }
        let SELinuxOptions {
            type_,
            user,
            role,
            level: _,
        } = selinux.cloned().unwrap_or_default();
        for (key, value, fine) in [
            ("type", type_, &SELINUX_TYPES[..]),
            ("user", user, &[""][..]),
            ("role", role, &[""][..]),
        ] {
            if let Some(value) = value.filter(|value| !fine.contains(&value.as_str())) {
                self.add(
                    format!("{at}.seLinuxOptions.{key}"),
                    quoted(&value),
                    Privileged,
                );
            }
        }
    }

    fn user(
        &mut self,
        at: &str,
        non_root: Option<bool>,
        user: Option<i64>,
        windows: Option<&WindowsSecurityContextOptions>,
    ) {
        self.flag(format!("{at}.runAsNonRoot"), non_root, true, Baseline);
        if user == Some(0) {
            self.add(format!("{at}.runAsUser"), "0", Baseline);
        }
        let host = windows.and_then(|options| options.host_process);
        self.flag(
            format!("{at}.windowsOptions.hostProcess"),
            host,
            false,
            Privileged,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a pod asks for, at the place where its part of the spec is.
    fn wishes_of(settings: &Value) -> Vec<(String, PodSecurity)> {
        let spec = json!({"version": "17", "podTemplate": {"spec": settings}});
        let spec: PostgresSpec = serde_json::from_value(spec).expect("a spec");
        let short = |field: &str| {
            field
                .rsplit_once("securityContext.")
                .map_or("", |(_, end)| end)
                .to_owned()
        };
        wishes(&spec)
            .iter()
            .map(|wish| (short(&wish.field), wish.level))
            .collect()
    }

    fn container(context: &Value) -> Vec<(String, PodSecurity)> {
        wishes_of(&json!({"containers": [{"name": "postgres", "securityContext": context}]}))
    }

    fn pod(context: &Value) -> Vec<(String, PodSecurity)> {
        wishes_of(&json!({"securityContext": context}))
    }

    #[test]
    fn what_is_built_without_wishes_is_restricted() {
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
    fn what_restricted_allows_is_no_wish() {
        for context in [
            json!({"runAsUser": 65534, "runAsGroup": 0}),
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/pg.json"}}),
            json!({"seLinuxOptions": {"type": "container_t", "level": "s0:c1,c2", "user": "", "role": ""}}),
        ] {
            assert_eq!(container(&context), [], "{context}");
            assert_eq!(pod(&context), [], "{context}");
        }
        assert_eq!(
            container(
                &json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}, "procMount": "Default"})
            ),
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
            wishes(&serde_json::from_value(spec).expect("a spec")).len()
        };
        assert_eq!(
            of(&json!({"container.apparmor.security.beta.kubernetes.io/postgres": "unconfined"})),
            1
        );
        assert_eq!(
            of(
                &json!({"container.apparmor.security.beta.kubernetes.io/postgres": "runtime/default"})
            ),
            0
        );
        assert_eq!(
            of(&json!({"container.apparmor.security.beta.kubernetes.io/postgres": "localhost/pg"})),
            0
        );
        assert_eq!(of(&json!({"example.com/of": "unconfined"})), 0);
    }
}
