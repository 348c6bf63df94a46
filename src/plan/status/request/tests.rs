use super::*;

#[test]
fn the_message_of_a_step_is_found_in_its_event() {
    for attempt in [1, 2] {
        let step = StepId::restart("pg-0".to_owned());
        let event = RequestEvent::attempt(&StepAttempt { step, attempt }, "evict pg-0: now");
        let attempt = event.attempt.expect("an attempt");
        assert_eq!(
            message_of_attempt(&attempt, &event.message),
            "evict pg-0: now"
        );
    }
}

#[test]
fn the_guide_explains_each_condition() {
    let guide = include_str!("../../../../docs/operations.md");
    for announced in ANNOUNCED {
        assert!(
            guide.contains(&format!("`{}`", announced.type_)),
            "{}",
            announced.type_
        );
    }
}
