//! The check of pod security settings by Kubernetes' Pod Security Standards as of 1.34.
//!
//! It checks the settings that are built: those of level `restricted`, overridden by the user's. A
//! spec cannot ask for host namespaces, host ports, or volumes of types that `restricted` forbids,
//! so these need no check. The standards do not restrict groups (`runAsGroup`, `fsGroup`,
//! `supplementalGroups`), and neither does this rule.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext, WindowsSecurityContextOptions,
};

use crate::api::security;
use crate::api::{Postgres, PostgresSpec};

use crate::rules::allowed::PodSecurity;
use crate::rules::allowed::PodSecurity::{Baseline, Privileged, Restricted};
use crate::rules::{ClusterFacts, Findings, Review, quoted};

/// The capabilities that level `baseline` allows: the defaults of container runtimes.
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

/// The capabilities that level `restricted` allows.
const RESTRICTED_CAPABILITIES: [&str; 1] = ["NET_BIND_SERVICE"];

const SELINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// The sysctls that affect the pod alone.
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

/// Prefix of the annotations with the `AppArmor` profile of a container, for Kubernetes versions
/// before the field.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A setting beyond level `restricted`, and the strictest level that allows it.
#[derive(Debug, PartialEq, Eq)]
struct ElevatedSetting {
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
    for ElevatedSetting {
        field,
        value,
        level,
    } in elevated_settings(&review.object.spec)
        .into_iter()
        .filter(|setting| setting.level > allowed)
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

/// All settings of a database's pods beyond level `restricted`.
fn elevated_settings(spec: &PostgresSpec) -> Vec<ElevatedSetting> {
    const POD: &str = "spec.podTemplate.spec.securityContext";
    let mut elevated = ElevatedSettings::default();
    let template = spec.pod_template.as_ref();
    for (name, profile) in template
        .iter()
        .filter_map(|t| t.metadata.as_ref()?.annotations.as_ref())
        .flatten()
    {
        let is_fine =
            profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/");
        if name.starts_with(APP_ARMOR) && !is_fine {
            elevated.add(
                format!("spec.podTemplate.metadata.annotations.{}", plain(name)),
                quoted(profile),
                Privileged,
            );
        }
    }
    let settings = template.and_then(|t| t.spec.as_ref());
    // `build` uses the user of the image. Any user but root gives the same result here.
    elevated.add_pod(
        POD,
        &security::pod(1, settings.and_then(|pod| pod.security_context.clone())),
    );
    for (i, container) in settings
        .iter()
        .flat_map(|pod| pod.containers.iter().enumerate())
    {
        let field = format!("spec.podTemplate.spec.containers[{i}].securityContext");
        elevated.add_container(
            &field,
            &security::container(container.security_context.clone()),
        );
    }
    let exporter = spec
        .monitor
        .as_ref()
        .and_then(|m| m.prometheus.as_ref())
        .and_then(|p| p.exporter.as_ref());
    if let Some(setting) = exporter.and_then(|exporter| exporter.security_context.clone()) {
        elevated.add_container(
            "spec.monitor.prometheus.exporter.securityContext",
            &security::container(Some(setting)),
        );
    }
    elevated.0
}

/// The name of an annotation for a path, escaped.
fn plain(name: &str) -> String {
    quoted(name).trim_matches('"').to_owned()
}

#[derive(Default)]
struct ElevatedSettings(Vec<ElevatedSetting>);

impl ElevatedSettings {
    fn add(&mut self, field: String, value: impl Into<String>, level: PodSecurity) {
        self.0.push(ElevatedSetting {
            field,
            value: value.into(),
            level,
        });
    }

    /// Adds a boolean that differs from the value that the level requires.
    fn require_flag(
        &mut self,
        field: String,
        value: Option<bool>,
        required: bool,
        level: PodSecurity,
    ) {
        if value == Some(!required) {
            self.add(field, (!required).to_string(), level);
        }
    }

    fn add_pod(&mut self, at: &str, context: &PodSecurityContext) {
        // Destructured in full: a new field does not compile until it is checked against the
        // standards.
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
        self.add_profiles(
            at,
            app_armor_profile.as_ref(),
            se_linux_options.as_ref(),
            seccomp_profile.as_ref(),
        );
        self.add_user(at, *run_as_non_root, *run_as_user, windows_options.as_ref());
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

    fn add_container(&mut self, at: &str, context: &SecurityContext) {
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
        self.add_profiles(
            at,
            app_armor_profile.as_ref(),
            se_linux_options.as_ref(),
            seccomp_profile.as_ref(),
        );
        self.add_user(at, *run_as_non_root, *run_as_user, windows_options.as_ref());
        self.require_flag(format!("{at}.privileged"), *privileged, false, Privileged);
        self.require_flag(
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

    /// The settings of pods and containers alike.
    fn add_profiles(
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

    fn add_user(
        &mut self,
        at: &str,
        non_root: Option<bool>,
        user: Option<i64>,
        windows: Option<&WindowsSecurityContextOptions>,
    ) {
        self.require_flag(format!("{at}.runAsNonRoot"), non_root, true, Baseline);
        if user == Some(0) {
            self.add(format!("{at}.runAsUser"), "0", Baseline);
        }
        let host = windows.and_then(|options| options.host_process);
        self.require_flag(
            format!("{at}.windowsOptions.hostProcess"),
            host,
            false,
            Privileged,
        );
    }
}

#[cfg(test)]
mod tests;
