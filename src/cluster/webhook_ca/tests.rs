use super::*;

fn configuration(webhooks: &Value) -> DynamicObject {
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "validators.kubedb.com"}, "webhooks": webhooks,
    });
    serde_json::from_value(configuration).unwrap()
}

fn names() -> Vec<String> {
    ["pgrekey.ns.svc", "192.0.2.1", "2001:db8::1"]
        .map(ToOwned::to_owned)
        .to_vec()
}

#[test]
fn only_differences_are_repaired() {
    let service = json!({"namespace": "ns", "name": "pgrekey"});
    let published = json!({"name": "a", "clientConfig": {"caBundle": "Q0E=", "service": service}});
    let repairs =
        |webhooks: &Value| Value::Array(repairs(&configuration(webhooks), b"CA", &names()));
    assert_eq!(repairs(&json!([published])), json!([]));
    assert_eq!(repairs(&Value::Null), json!([]));
    let webhooks = json!([
        published,
        {"name": "none", "clientConfig": {"url": "https://192.0.2.1/path"}},
        {"name": "other", "clientConfig": {"caBundle": "T1RIRVI=", "service": service}},
    ]);
    let expected = json!([
        {"op": "test", "path": "/webhooks/1/name", "value": "none"},
        {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "Q0E="},
        {"op": "test", "path": "/webhooks/2/name", "value": "other"},
        {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "Q0E="},
    ]);
    assert_eq!(repairs(&webhooks), expected);
}

#[test]
fn webhooks_of_another_installation_are_left_alone() {
    for (client, ours) in [
        (
            json!({"service": {"namespace": "ns", "name": "pgrekey"}}),
            true,
        ),
        (
            json!({"service": {"namespace": "another", "name": "pgrekey"}}),
            false,
        ),
        (
            json!({"service": {"namespace": "ns", "name": "another"}}),
            false,
        ),
        (json!({"url": "https://192.0.2.1:9443/path"}), true),
        (json!({"url": "https://[2001:db8:0::1]:9443"}), true),
        (json!({"url": "https://192.0.2.2:9443"}), false),
        (json!({"url": "no url"}), false),
        (json!({}), false),
    ] {
        let configuration = configuration(&json!([{"name": "a", "clientConfig": client}]));
        assert_eq!(
            !repairs(&configuration, b"CA", &names()).is_empty(),
            ours,
            "{client}"
        );
    }
}
