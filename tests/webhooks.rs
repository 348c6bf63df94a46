//! The webhooks behind their router: responses to good and bad bodies.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use pgrekey::rules::Snapshot;
use pgrekey::rules::defaults::InstallationDefaults;
use pgrekey::serve::table::{WEBHOOKS, Webhook, WebhookType};
use pgrekey::serve::webhooks::{Admission, router};
use serde_json::{Value, json};
use tower::ServiceExt;

fn facts() -> Snapshot {
    let decode = |value: Value| serde_json::from_value(value).expect("an object");
    Snapshot {
        databases: vec![Arc::new(decode(database()))],
        issuers: vec![Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
                "metadata": {"name": "pg-issuer", "namespace": "demo"}, "spec": {"ca": {"secretName": "postgres-ca"}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }))
            .expect("an Issuer"),
        )],
        ..Snapshot::default()
    }
}

fn database() -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres", "metadata": {"name": "ha-postgres", "namespace": "demo"},
        "spec": {"version": "17.12", "replicas": 3, "storageType": "Ephemeral", "sslMode": "disable", "clientAuthMode": "md5"},
    })
}

fn request(tls: &Value) -> Value {
    json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "request", "namespace": "demo"},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "ha-postgres"}, "tls": tls},
    })
}

fn webhook(kind: &str, purpose: WebhookType) -> &'static Webhook {
    WEBHOOKS
        .iter()
        .find(|w| w.kind == kind && w.webhook_type == purpose)
        .expect("a webhook")
}

fn envelope(webhook: &Webhook, operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "5f3c", "operation": operation, "namespace": "demo", "name": object["metadata"]["name"], "object": object, "oldObject": old,
            "kind": {"group": webhook.group, "version": webhook.version, "kind": webhook.kind},
        },
    })
}

async fn send(webhook: &Webhook, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
    send_as(webhook, body, &[(header::CONTENT_TYPE, "application/json")]).await
}

async fn send_as(
    webhook: &Webhook,
    body: impl Into<Body>,
    headers: &[(header::HeaderName, &str)],
) -> (StatusCode, Vec<u8>) {
    let installation = InstallationDefaults {
        ops_manager: true,
        ..InstallationDefaults::default()
    };
    let admission = Arc::new(Admission {
        facts: Arc::new(facts()),
        installation,
        observe: Box::new(|_, _| {}),
    });
    let request = headers
        .iter()
        .fold(Request::post(webhook.path), |request, (name, value)| {
            request.header(name, *value)
        });
    // The server disables axum's own limit, and has another one.
    let response = router(&admission)
        .layer(DefaultBodyLimit::disable())
        .oneshot(request.body(body.into()).expect("a request"))
        .await
        .expect("an answer");
    let status = response.status();
    (
        status,
        response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes()
            .to_vec(),
    )
}

/// The `response` of the answer to a valid envelope.
async fn ask(webhook: &Webhook, envelope: &Value) -> Value {
    let (status, body) = send(webhook, envelope.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["response"]["uid"], "5f3c");
    answer["response"].take()
}

#[tokio::test]
async fn a_denial_lists_every_reason_with_field_and_remedy() {
    let webhook = webhook("PostgresOpsRequest", WebhookType::Validate);
    let object = request(
        &json!({"remove": true, "sslMode": "require", "certificates": [{"alias": "sever"}]}),
    );
    let response = ask(webhook, &envelope(webhook, "CREATE", &object, &Value::Null)).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(
        (&response["status"]["code"], &response["status"]["reason"]),
        (&json!(422), &json!("Invalid"))
    );
    let message = response["status"]["message"].as_str().expect("a message");
    let ids: Vec<&str> = message
        .lines()
        .filter_map(|l| l.strip_prefix('[')?.split(']').next())
        .collect();
    assert_eq!(
        ids,
        [
            "one-operation",
            "remove-needs-tls",
            "remove-forbids-ssl-mode",
            "alias-known"
        ]
    );
    let causes = response["status"]["details"]["causes"]
        .as_array()
        .expect("causes");
    let fields: Vec<&str> = causes.iter().filter_map(|c| c["field"].as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.tls",
            "spec.tls.remove",
            "spec.tls.sslMode",
            "spec.tls.certificates[0].alias"
        ]
    );
    assert_eq!(response["status"]["details"]["name"], "request");
    let messages = causes.iter().filter_map(|c| c["message"].as_str());
    assert!(
        messages
            .zip(&ids)
            .all(|(message, id)| message.starts_with(&format!("[{id}] "))),
        "{causes:?}"
    );
    assert_eq!(response["auditAnnotations"]["refused-by"], ids.join(","));
    assert_eq!(
        response["auditAnnotations"]["warned-by"],
        "remove-lowers-security"
    );
    let warnings = response["warnings"].as_array().expect("warnings");
    assert!(
        warnings
            .iter()
            .all(|w| w.as_str().is_some_and(|w| w.chars().count() <= 120)),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn left_out_fields_are_filled_in_by_a_minimal_patch() {
    let webhook = webhook("PostgresOpsRequest", WebhookType::Mutate);
    let mut object = request(&json!({"issuerRef": {"name": "pg-issuer"}}));
    object["spec"]["tls"]["issuerRef"]["unknown"] = json!("kept");
    let response = ask(webhook, &envelope(webhook, "CREATE", &object, &Value::Null)).await;
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    let patch: k8s_openapi::ByteString =
        serde_json::from_value(response["patch"].clone()).expect("base64");
    let patch: Value = serde_json::from_slice(&patch.0).expect("JSON");
    let expected = json!([
        {"op": "add", "path": "/metadata/finalizers", "value": ["pgrekey.dev/ops-request"]},
        {"op": "add", "path": "/spec/tls/issuerRef/apiGroup", "value": "cert-manager.io"},
        {"op": "add", "path": "/spec/tls/issuerRef/kind", "value": "Issuer"},
    ]);
    assert_eq!(patch, expected);
}

#[tokio::test]
async fn an_object_that_does_not_decode_is_refused_with_its_path_and_never_patched() {
    let object = request(&json!({"certificates": [{"alias": "server", "dnsNames": [1]}]}));
    for purpose in [WebhookType::Validate, WebhookType::Mutate] {
        let webhook = webhook("PostgresOpsRequest", purpose);
        let response = ask(webhook, &envelope(webhook, "CREATE", &object, &Value::Null)).await;
        assert_eq!(response["allowed"], purpose == WebhookType::Mutate);
        assert_eq!(response.get("patch"), None);
        if purpose == WebhookType::Validate {
            assert_eq!(
                response["status"]["details"]["causes"][0]["field"],
                "spec.tls.certificates[0].dnsNames[0]"
            );
        }
    }
}

#[tokio::test]
async fn an_update_that_leaves_the_spec_alone_passes_whatever_the_spec_is() {
    let mut old = request(&json!({}));
    old["spec"]["databaseRef"]["name"] = json!("gone");
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!([]);
    let webhook = webhook("PostgresOpsRequest", WebhookType::Validate);
    assert_eq!(
        ask(webhook, &envelope(webhook, "UPDATE", &new, &old)).await["allowed"],
        true
    );
    new["spec"]["apply"] = json!("Always");
    let response = ask(webhook, &envelope(webhook, "UPDATE", &new, &old)).await;
    assert_eq!(
        response["status"]["details"]["causes"][0]["field"],
        "spec.apply"
    );
    new["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(
        ask(webhook, &envelope(webhook, "UPDATE", &new, &old)).await["allowed"],
        true
    );
}

#[tokio::test]
async fn a_spec_that_is_only_written_otherwise_counts_as_left_alone() {
    let mut old = request(&json!({}));
    old["spec"]["databaseRef"]["name"] = json!("gone");
    let webhook = webhook("PostgresOpsRequest", WebhookType::Validate);
    let body = envelope(webhook, "UPDATE", &json!("@"), &old).to_string();
    let spec = r#"{"databaseRef": {"name": "gone"}, "tls": {}, "type": "ReconfigureTLS"}"#;
    let (status, answer) = send(
        webhook,
        body.replace(
            r#""@""#,
            &format!(r#"{{"metadata": {{}}, "spec": {spec}}}"#),
        ),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        String::from_utf8_lossy(&answer).contains(r#""allowed":true"#),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn an_object_of_more_values_than_any_has_is_refused_with_the_field_and_never_patched() {
    let tolerations = |n: usize| json!({"spec": {"tolerations": vec![json!({}); n]}});
    for (n, allowed) in [(4_900, true), (5_000, false)] {
        let mut object = database();
        object["spec"]["podTemplate"] = tolerations(n);
        let webhook_ = webhook("Postgres", WebhookType::Validate);
        let response = ask(
            webhook_,
            &envelope(webhook_, "CREATE", &object, &Value::Null),
        )
        .await;
        // The cluster lacks this version, so a finding shows that the rules ran.
        assert_eq!(
            response["auditAnnotations"]["refused-by"],
            if allowed { "version-exists" } else { "decodes" },
            "{n}"
        );
        if !allowed {
            let cause = &response["status"]["details"]["causes"][0];
            assert_eq!(cause["field"], "spec.podTemplate.spec.tolerations");
            assert!(
                cause["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("more than 10000 fields and list entries"))
            );
        }
        let webhook_ = webhook("Postgres", WebhookType::Mutate);
        let response = ask(
            webhook_,
            &envelope(webhook_, "CREATE", &object, &Value::Null),
        )
        .await;
        assert_eq!(
            (&response["allowed"], response.get("patch").is_some()),
            (&json!(true), allowed)
        );
        // An object that is already too large may be made smaller.
        let webhook_ = webhook("Postgres", WebhookType::Validate);
        let response = ask(
            webhook_,
            &envelope(webhook_, "UPDATE", &database(), &object),
        )
        .await;
        assert_ne!(response["auditAnnotations"]["refused-by"], "decodes", "{n}");
    }
}

#[tokio::test]
async fn a_deletion_is_judged_by_the_object_that_goes() {
    let webhook = webhook("Postgres", WebhookType::Validate);
    let mut old = database();
    assert_eq!(
        ask(webhook, &envelope(webhook, "DELETE", &Value::Null, &old)).await["allowed"],
        true
    );
    old["spec"]["deletionPolicy"] = json!("DoNotTerminate");
    let response = ask(webhook, &envelope(webhook, "DELETE", &Value::Null, &old)).await;
    let message = response["status"]["message"].as_str().expect("a message");
    assert!(
        message.contains(r#"postgres "demo/ha-postgres" can't be terminated"#),
        "{message}"
    );
    // A stored object of any size, decodable or not, can be deleted, or is kept by its policy.
    old["spec"]["podTemplate"] = json!({"spec": {"tolerations": vec![json!({}); 20_000]}});
    old["spec"]["replicas"] = json!("three");
    assert_eq!(
        ask(webhook, &envelope(webhook, "DELETE", &Value::Null, &old)).await["allowed"],
        false
    );
    old["spec"]["deletionPolicy"] = json!("Delete");
    assert_eq!(
        ask(webhook, &envelope(webhook, "DELETE", &Value::Null, &old)).await["allowed"],
        true
    );
}

#[tokio::test]
async fn a_request_for_another_webhook_says_that_the_registration_is_wrong() {
    let webhook = webhook("Postgres", WebhookType::Validate);
    let mut pod = envelope(webhook, "CREATE", &database(), &Value::Null);
    pod["request"]["kind"] = json!({"group": "", "version": "v1", "kind": "Pod"});
    let mut connect = envelope(webhook, "CONNECT", &database(), &Value::Null);
    connect["request"]["object"] = Value::Null;
    for request in [pod, connect] {
        let response = ask(webhook, &request).await;
        assert_eq!(
            (&response["allowed"], &response["status"]["code"]),
            (&json!(false), &json!(400))
        );
        assert!(
            response["status"]["message"]
                .as_str()
                .is_some_and(|m| m.contains("correct the registration"))
        );
    }
}

#[tokio::test]
async fn nothing_is_judged_before_the_facts_are_known() {
    let facts = Arc::new(Snapshot {
        unknown: vec!["Issuer"],
        ..Snapshot::default()
    });
    let admission = Arc::new(Admission {
        facts,
        installation: InstallationDefaults::default(),
        observe: Box::new(|_, _| {}),
    });
    let webhook = webhook("Postgres", WebhookType::Validate);
    let body = envelope(webhook, "CREATE", &database(), &Value::Null).to_string();
    let request = Request::post(webhook.path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body));
    let response = router(&admission)
        .oneshot(request.expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert_eq!(&body[..], b"not known yet: Issuer");
}

#[tokio::test]
async fn other_media_types_are_not_read() {
    let webhook = webhook("Postgres", WebhookType::Validate);
    let body = envelope(webhook, "CREATE", &database(), &Value::Null).to_string();
    for headers in [
        &[][..],
        &[(header::CONTENT_TYPE, "application/yaml")],
        &[
            (header::CONTENT_TYPE, "application/json"),
            (header::CONTENT_ENCODING, "gzip"),
        ],
    ] {
        assert_eq!(
            send_as(webhook, body.clone(), headers).await.0,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{headers:?}"
        );
    }
    let with_charset = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    assert_eq!(
        send_as(webhook, body, &with_charset).await.0,
        StatusCode::OK
    );
}

/// Hostile bodies, each with its name and the status that it gets.
fn hostile_bodies(webhook: &Webhook) -> Vec<(&'static str, Vec<u8>, StatusCode)> {
    let good = envelope(
        webhook,
        "CREATE",
        &request(&json!({"rotateCertificates": true})),
        &Value::Null,
    )
    .to_string();
    let with_object = |object: &str| {
        let mut body = envelope(webhook, "CREATE", &json!("@"), &Value::Null).to_string();
        body = body.replace(r#""@""#, object);
        body.into_bytes()
    };
    let names = |name: &str, n: usize| {
        let list = vec![format!("\"{name}\""); n].join(",");
        let object =
            request(&json!({"certificates": [{"alias": "server", "dnsNames": "@"}]})).to_string();
        with_object(&object.replace(r#""@""#, &format!("[{list}]")))
    };
    vec![
        (
            "truncated",
            good.as_bytes()[..good.len() / 2].to_vec(),
            StatusCode::BAD_REQUEST,
        ),
        (
            "not UTF-8",
            [b"{\"kind\": \"\xff\xfe\"}".as_slice()].concat(),
            StatusCode::BAD_REQUEST,
        ),
        (
            "a byte order mark",
            [b"\xef\xbb\xbf", good.as_bytes()].concat(),
            StatusCode::BAD_REQUEST,
        ),
        (
            "a key twice",
            good.replacen(r#""kind""#, r#""kind": "AdmissionReview", "kind""#, 1)
                .into_bytes(),
            StatusCode::BAD_REQUEST,
        ),
        (
            "a key of the object twice",
            with_object(r#"{"metadata": {}, "spec": {}, "spec": {}}"#),
            StatusCode::OK,
        ),
        (
            "10,000 levels",
            with_object(&format!(
                "{}{}",
                r#"{"spec":"#.repeat(10_000),
                "}".repeat(10_000).replacen('}', "1}", 1)
            )),
            StatusCode::OK,
        ),
        (
            "a million levels",
            with_object(&format!(
                "{}{}",
                "[".repeat(1_000_000),
                "]".repeat(1_000_000)
            )),
            StatusCode::OK,
        ),
        ("a million names", names("a", 1_000_000), StatusCode::OK),
        ("a thousand bad names", names("_", 1_000), StatusCode::OK),
        (
            "a number too big",
            with_object(
                r#"{"metadata": {}, "spec": {"type": "Restart", "databaseRef": {}, "maxRetries": 1e999}}"#,
            ),
            StatusCode::OK,
        ),
        (
            "7 MiB of spaces",
            [good.as_bytes(), " ".repeat(7 << 20).as_bytes()].concat(),
            StatusCode::OK,
        ),
        ("an empty body", vec![], StatusCode::BAD_REQUEST),
        (
            "a long name",
            with_object(&request(&json!({"issuerRef": {"name": "x".repeat(1 << 20)}})).to_string()),
            StatusCode::OK,
        ),
    ]
}

/// Each hostile body is answered quickly, and not with 500.
#[tokio::test]
async fn bad_bodies_are_answered_in_bounded_time() {
    let webhook = webhook("PostgresOpsRequest", WebhookType::Validate);
    for (what, body, expected) in hostile_bodies(webhook) {
        let started = Instant::now();
        let (status, answer) = send(webhook, body).await;
        let took = started.elapsed();
        assert_eq!(
            status,
            expected,
            "{what}: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(300)])
        );
        assert!(
            answer.len() < 64 * 1024,
            "{what}: an answer of {} bytes",
            answer.len()
        );
        // Far above the usual time and far below a harmful one: it catches anything that is not
        // linear.
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
    }
}
