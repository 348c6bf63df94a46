//! Asks the API server for the rights of the operator and of the user.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};

use crate::cli::doctor::installation::{AccountRights, Inquiry, UnreadableObject};

/// A right to do something with a kind of object.
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    /// Empty for the resource itself.
    subresource: &'static str,
}

const fn right(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right {
        verb,
        group,
        resource,
        subresource: "",
    }
}

impl Right {
    const fn of_subresource(self, subresource: &'static str) -> Self {
        Self {
            subresource,
            ..self
        }
    }

    /// As `create pods/eviction`.
    fn words(&self) -> String {
        let Self {
            verb,
            resource,
            subresource,
            ..
        } = self;
        if subresource.is_empty() {
            format!("{verb} {resource}")
        } else {
            format!("{verb} {resource}/{subresource}")
        }
    }

    /// The question for this right; without a namespace it is about all of them.
    fn attributes(&self, namespace: Option<&str>) -> ResourceAttributes {
        ResourceAttributes {
            verb: Some(self.verb.to_owned()),
            group: Some(self.group.to_owned()),
            resource: Some(self.resource.to_owned()),
            subresource: (!self.subresource.is_empty()).then(|| self.subresource.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        }
    }
}

/// Rights without which no operation can be carried out.
const OPERATOR_RIGHTS: &[Right] = &[
    right("patch", "ops.kubedb.com", "postgresopsrequests").of_subresource("status"),
    right("create", "cert-manager.io", "certificates"),
    right("create", "", "pods").of_subresource("eviction"),
];

/// The rights that the leader's ServiceAccount lacks. `None` if no pod holds the lease, or if the
/// leader does not run the controller of requests.
pub(super) async fn ask_for_operator(
    client: &Client,
    leases: &[Lease],
    pods: &[Pod],
) -> Result<Inquiry<Option<AccountRights>>, UnreadableObject> {
    let leader = pods
        .iter()
        .find(|pod| leases.iter().any(|lease| is_held_by(lease, pod)));
    let Some((namespace, spec)) =
        leader.and_then(|pod| Some((pod.namespace()?, pod.spec.as_ref()?)))
    else {
        return Ok(Inquiry::Answered(None));
    };
    if flag(spec, "--controllers").is_some_and(|names| !names.contains("ops-manager")) {
        return Ok(Inquiry::Answered(None));
    }
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let watched = flag(spec, "--watch-namespace");
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut forbidden = vec![];
    for right in OPERATOR_RIGHTS {
        let review = review_for_account(&namespace, account, right.attributes(watched));
        let answer = match reviews.create(&PostParams::default(), &review).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Ok(Inquiry::NotAllowed(
                    "not asked: you may not create subjectaccessreviews".to_owned(),
                ));
            }
            answer => UnreadableObject::explain("ask for the operator's rights", answer)?,
        };
        if !answer.status.is_some_and(|status| status.allowed) {
            forbidden.push(right.words());
        }
    }
    Ok(Inquiry::Answered(Some(AccountRights {
        account: format!("{namespace}/{account}"),
        forbidden,
    })))
}

fn is_held_by(lease: &Lease, pod: &Pod) -> bool {
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref());
    lease.namespace() == pod.namespace() && holder == pod.metadata.name.as_deref()
}

/// The value of a flag of the form `--NAME=VALUE` in the arguments of a pod's containers.
fn flag<'s>(spec: &'s PodSpec, name: &str) -> Option<&'s str> {
    spec.containers
        .iter()
        .flat_map(|container| container.args.iter().flatten())
        .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

fn review_for_account(
    namespace: &str,
    account: &str,
    attributes: ResourceAttributes,
) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// Rights that the commands need in the namespaces of databases.
const USER_RIGHTS: &[Right] = &[
    right("get", "kubedb.com", "postgreses"),
    right("list", "kubedb.com", "postgreses"),
    right("get", "ops.kubedb.com", "postgresopsrequests"),
    right("list", "ops.kubedb.com", "postgresopsrequests"),
    right("watch", "ops.kubedb.com", "postgresopsrequests"),
    right("create", "ops.kubedb.com", "postgresopsrequests"),
    right("get", "cert-manager.io", "certificates"),
    right("list", "cert-manager.io", "issuers"),
    right("get", "", "secrets"),
    right("list", "", "pods"),
];

/// Rights that the commands need for objects without a namespace.
const USER_RIGHTS_CLUSTER_WIDE: &[Right] = &[
    right("list", "catalog.kubedb.com", "postgresversions"),
    right("list", "cert-manager.io", "clusterissuers"),
    right("list", "", "namespaces"),
    right("list", "storage.k8s.io", "storageclasses"),
];

/// The rights that the user lacks.
pub(super) async fn ask_for_user(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<String>, UnreadableObject> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let namespaced = USER_RIGHTS.iter().map(|right| (right, namespace));
    let cluster_wide = USER_RIGHTS_CLUSTER_WIDE.iter().map(|right| (right, None));
    let mut forbidden = vec![];
    for (right, namespace) in namespaced.chain(cluster_wide) {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(right.attributes(namespace)),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = UnreadableObject::explain("ask for your rights", answer)?;
        if !answer.status.is_some_and(|status| status.allowed) {
            forbidden.push(right.words());
        }
    }
    Ok(forbidden)
}
