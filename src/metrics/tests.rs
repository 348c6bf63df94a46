use super::*;

#[test]
fn every_metric_has_our_prefix_and_a_help_text() {
    let metrics = Metrics::new();
    metrics.webhook_server.shed(Shed::InFlight);
    let text = metrics.text().expect("text");
    assert!(
        text.lines()
            .filter(|l| !l.starts_with('#'))
            .all(|l| l.starts_with("pgrekey_")),
        "{text}"
    );
    assert!(
        text.contains("pgrekey_requests_shed_total{reason=\"InFlight\"} 1\n"),
        "{text}"
    );
    let names = |word: &str| text.lines().filter(|l| l.starts_with(word)).count();
    assert_eq!(names("# TYPE"), names("# HELP"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_first_failure_is_an_increase() {
    let text = Metrics::new().text().expect("text");
    let zero = "pgrekey_operations_total{operation=\"RotateTls\",outcome=\"Failed\"} 0";
    assert!(text.lines().any(|line| line == zero), "{text}");
}

#[test]
fn a_replica_that_does_not_lead_has_no_metrics_of_databases() {
    let metrics = Metrics::new();
    let has = |line: &str| metrics.text().expect("text").lines().any(|l| l == line);
    metrics.controllers.leads(true);
    metrics.controllers.running(2);
    metrics.controllers.certificates(Some(1_900_000_000), 1);
    assert!(has("pgrekey_leader 1") && has("pgrekey_operations_running 2"));
    assert!(
        has("pgrekey_database_certificate_expiry_seconds 1900000000")
            && has("pgrekey_databases_drifted 1")
    );
    metrics.controllers.leads(false);
    assert!(has("pgrekey_leader 0") && has("pgrekey_operations_running 0"));
    assert!(
        has("pgrekey_database_certificate_expiry_seconds 0") && has("pgrekey_databases_drifted 0")
    );
}

#[test]
fn operations_are_counted_by_outcome_and_steps_by_kind() {
    let metrics = Metrics::new();
    metrics
        .controllers
        .ended(OperationKind::ChangeTls, OperationOutcome::Successful);
    metrics
        .controllers
        .step(StepKind::Restart, Duration::from_millis(1500));
    let text = metrics.text().expect("text");
    for line in [
        "pgrekey_operations_total{operation=\"ChangeTls\",outcome=\"Successful\"} 1",
        "pgrekey_step_duration_seconds_sum{step=\"Restart\"} 1.5",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
}
