//! Security settings of the pods: those of Pod Security level `restricted`, and over them the
//! user's.
//!
//! They are in `api` because the rules and the builder must judge and build the same pod.

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};

/// Settings of a pod that runs as this user.
#[must_use]
pub fn pod(uid: i64, wish: Option<PodSecurityContext>) -> PodSecurityContext {
    let mut context = PodSecurityContext {
        run_as_user: Some(uid),
        run_as_group: Some(uid),
        fs_group: Some(uid),
        // A data volume of many files need not be walked through at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        run_as_non_root: Some(true),
        seccomp_profile: Some(runtime_default()),
        ..Default::default()
    };
    context.merge_from(wish.unwrap_or_default());
    context
}

/// Settings of a container. Its root file system is read-only.
#[must_use]
pub fn container(wish: Option<SecurityContext>) -> SecurityContext {
    let mut context = SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        seccomp_profile: Some(runtime_default()),
        ..Default::default()
    };
    context.merge_from(wish.unwrap_or_default());
    context
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}
