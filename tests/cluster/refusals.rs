//! Requests that fail in step `Preflight`: they say why, and have touched nothing.

use serde_json::{Value, json};

use crate::harness::{TestNamespace, ended, show, steps, uids};
use crate::issuers::ALIASES;

const DATABASE: &str = "pg/ha-postgres";

/// What such a request must not touch.
pub(crate) fn touchable(namespace: &TestNamespace<'_>) -> Value {
    let generations = ALIASES.map(|alias| {
        namespace.path(
            &format!("certificate/ha-postgres-{alias}-cert"),
            ".metadata.generation",
        )
    });
    json!({
        "pods": uids(namespace),
        "ssl": show(namespace, "ha-postgres-0", "ssl"),
        "served": namespace.path("secret/ha-postgres-tls", ".data"),
        "trusted": namespace.path("cm/ha-postgres-ca", ".data"),
        "certificates": generations,
        "spec": namespace.path(DATABASE, ".spec.tls"),
    })
}

/// This request, with one try only.
pub(crate) fn once(mut request: Value) -> Value {
    request["spec"]["maxRetries"] = json!(0);
    request
}

/// Applies a request that fails, with one try; returns why.
pub(crate) async fn is_refused(namespace: &TestNamespace<'_>, request: Value) -> String {
    let before = touchable(namespace);
    let request = once(request);
    namespace.apply(&request);
    let name = request["metadata"]["name"].as_str().expect("a name");
    has_touched_nothing(namespace, name, &before).await
}

/// Waits until this request has failed; returns why. `before` is what was there before it.
pub(crate) async fn has_touched_nothing(
    namespace: &TestNamespace<'_>,
    name: &str,
    before: &Value,
) -> String {
    let phase = ended(namespace, name, 60).await;
    println!("{name}: {phase}\n{}", steps(namespace, name));
    assert_eq!(phase, "Failed", "{name}");
    let of_request = |path: &str| namespace.path(&format!("pgops/{name}"), path);
    let taken = of_request(".status.steps[*].name");
    assert!(!taken.contains("Pause"), "{name}: {taken}");
    let paused = namespace.condition(DATABASE, "Paused", "status");
    nothing_is_left_of_the_trial(namespace).await;
    assert_eq!(touchable(namespace), *before, "{name}");
    let phase = namespace.path(DATABASE, ".status.phase");
    assert_eq!((paused.as_str(), phase.as_str()), ("", "Ready"), "{name}");
    of_request(".status.steps[*].message")
}

async fn nothing_is_left_of_the_trial(namespace: &TestNamespace<'_>) {
    for (kind, end) in [("certificate", "Certificates"), ("secret", "keys")] {
        let left = || {
            let all = namespace.list(kind, "app.kubernetes.io/instance=ha-postgres");
            let names = all
                .iter()
                .filter_map(|one| one["metadata"]["name"].as_str());
            names.filter(|name| name.contains("trial")).count()
        };
        namespace
            .until(&format!("the {end} of the trial are gone"), 30, || {
                left() == 0
            })
            .await;
    }
}
