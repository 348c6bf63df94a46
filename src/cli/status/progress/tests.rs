use serde_json::json;

use super::*;

/// A request that issues a certificate, in the midst of a roll.
pub(crate) fn request() -> PostgresOpsRequest {
    let step = |name: &str, from: u32, to: Option<u32>, message: &str| {
        let time = |second: u32| format!("2026-11-24T10:00:{second:02}Z");
        json!({"name": name, "attempts": 1, "startedAt": time(from), "finishedAt": to.map(time), "message": message})
    };
    let object = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "change-issuer", "namespace": "demo", "uid": "u"},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "ha-postgres"},
                 "tls": {"issuerRef": {"name": "pg-new-issuer"}}},
        "status": {
            "phase": "Progressing",
            "steps": [
                step("Begin", 0, Some(0), "take up the request"),
                step("Preflight", 0, Some(1), "ask for a trial certificate"),
                step("Pause", 1, Some(1), "pause the database"),
                step("Issue", 1, Some(3), "end the trial"),
                step("Expand", 3, Some(8), "load the new files"),
                step("Migrate", 8, Some(10), "go on to the next posture"),
                step("Restart ha-postgres-2", 10, None, "waits for ha-postgres-2 to be ready"),
            ],
            "pods": [
                {"name": "ha-postgres-0", "role": "primary", "servingSerial": "77a5a2a14d4796f8737f405a77af5ed416e84e2f",
                 "notAfter": "2027-02-22T10:00:00Z", "trusts": ["ca", "new-ca"], "restarted": false},
                {"name": "ha-postgres-1", "role": "standby", "lag": "0Mi", "servingSerial": "77a5a2a14d4796f8737f405a77af5ed416e84e2f",
                 "notAfter": "2027-02-22T10:00:00Z", "trusts": ["ca", "new-ca"], "restarted": false},
                {"name": "ha-postgres-2", "restarted": true},
            ],
        },
    });
    serde_json::from_value(object).expect("a request")
}

fn now() -> Timestamp {
    "2026-11-24T10:00:22Z".parse().expect("a time")
}

#[test]
fn a_request_in_the_midst_of_a_roll_is_readable_in_80_columns() {
    let screen = Screen::of_columns(80);
    let lines = lines(&request(), 3, now(), Detail::Short, screen);
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{lines:#?}"
    );
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_bar_grows_to_its_end_with_the_request() {
    let mut request = request();
    let half = percent(&request, 3);
    assert!((20..60).contains(&half), "{half}");
    let status = request.status.as_mut().expect("a status");
    status.phase = Some(OpsPhase::Successful);
    assert_eq!(percent(&request, 3), 100);
    request.status = None;
    assert_eq!(percent(&request, 3), 0);
    assert_eq!(
        lines(&request, 3, now(), Detail::Short, Screen::default())[2],
        UNSEEN
    );
}

fn event(second: u32, action: &str, note: &str) -> Event {
    let time = format!("2026-11-24T10:00:{second:02}.123456Z");
    let event = json!({"metadata": {}, "eventTime": time, "action": action, "note": note});
    serde_json::from_value(event).expect("an event")
}

#[test]
fn events_tell_of_the_steps_that_the_status_does_not_have_yet() {
    let events = [
        event(
            19,
            "SwitchOver #1",
            "SwitchOver: switch over from ha-postgres-0 to ha-postgres-2",
        ),
        event(
            15,
            "Restart ha-postgres-1 #1",
            "Restart ha-postgres-1: evict ha-postgres-1",
        ),
        event(
            18,
            "Restart ha-postgres-1 #2",
            "Restart ha-postgres-1 (try 2): waits for ha-postgres-1 to be ready",
        ),
        event(
            10,
            "Restart ha-postgres-2 #1",
            "Restart ha-postgres-2: evict ha-postgres-2",
        ),
        event(
            1,
            "PauseDatabase-0123456789abcdef",
            "Successfully paused Postgres demo/ha-postgres",
        ),
        event(2, "Issue", "Issue: no number"),
    ];
    let events: Vec<StepEvent> = events.iter().filter_map(StepEvent::parse).collect();
    assert_eq!(events.len(), 4);
    let shown = with_events(&request(), &events);
    let steps = shown
        .status
        .as_ref()
        .map(|status| &status.steps[6..])
        .expect("steps");
    let seen: Vec<_> = steps
        .iter()
        .map(|step| {
            (
                step.name.as_str(),
                step.attempts,
                step.finished_at.is_some(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("Restart ha-postgres-2", 1, true),
            ("Restart ha-postgres-1", 2, true),
            ("SwitchOver", 1, false)
        ]
    );
    assert_eq!(
        now_happens(&shown),
        "SwitchOver: switch over from ha-postgres-0 to ha-postgres-2"
    );
    let mut ended = request();
    ended.status.as_mut().expect("a status").phase = Some(OpsPhase::Successful);
    assert_eq!(with_events(&ended, &events), ended);
}

#[test]
fn a_pipe_gets_each_new_line_once() {
    let mut before = request();
    let all = news(None, &before, now());
    assert_eq!((all.len(), all[0].as_str()), (8, "10:00:22 Begin: done"));
    assert_eq!(
        all[7],
        "10:00:22 Progressing: Restart ha-postgres-2: waits for ha-postgres-2 to be ready"
    );
    assert_eq!(news(Some(&before), &before, now()), Vec::<String>::new());
    let after = before.clone();
    before.status.as_mut().expect("a status").steps.pop();
    assert_eq!(
        news(Some(&before), &after, now()),
        ["10:00:22 Restart ha-postgres-2: waits for ha-postgres-2 to be ready"]
    );
}

#[test]
fn a_request_that_was_given_up_says_why() {
    let mut request = request();
    let status = request.status.as_mut().expect("a status");
    let turned =
        json!({"name": "Rollback", "attempts": 1, "message": "the trial certificate: denied"});
    status
        .steps
        .push(serde_json::from_value(turned).expect("a step"));
    let lines = lines(&request, 3, now(), Detail::Short, Screen::default());
    assert_eq!(
        lines[3],
        "given up; rolled back: the trial certificate: denied"
    );
}
