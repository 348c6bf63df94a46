use super::*;

const NOISY: Rule<usize> = Rule {
    id: "noisy",
    effect: Effect::Refuse,
    on: &[AdmissionOperation::Create],
    what: "",
    why: "",
    example: "",
    needs: Needs::Nothing,
    check: |review, _, findings| {
        (0..review.object).for_each(|i| findings.add(format!("spec[{i}]"), "is bad", "mend it"));
    },
};

fn create(object: usize) -> Review<usize> {
    Review::create(object, Arc::default())
}

#[test]
fn every_rule_runs_whatever_the_others_found() {
    let other = Rule {
        id: "other",
        ..NOISY
    };
    let found = judge(&[NOISY, other], &create(1), None);
    assert_eq!(
        found.iter().map(|f| f.rule).collect::<Vec<_>>(),
        ["noisy", "other"]
    );
}

#[test]
fn a_rule_judges_its_own_operations_only() {
    assert!(
        judge(
            &[NOISY],
            &Review {
                operation: AdmissionOperation::Delete,
                ..create(1)
            },
            None
        )
        .is_empty()
    );
}

#[test]
fn an_update_is_judged_by_its_changes() {
    let noisy = Rule {
        on: &[AdmissionOperation::Update],
        ..NOISY
    };
    let update = |old, object| Review {
        operation: AdmissionOperation::Update,
        old: Some(old),
        ..create(object)
    };
    assert!(judge(&[noisy], &update(3, 2), None).is_empty());
    let noisy = Rule {
        on: &[AdmissionOperation::Update],
        ..NOISY
    };
    let found = judge(&[noisy], &update(30, 32), None);
    assert_eq!(
        found.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(),
        ["spec[30]", "spec[31]"]
    );
}

#[test]
fn a_million_findings_become_twenty_and_a_count() {
    let found = judge(&[NOISY], &create(1_000_000), None);
    assert_eq!(found.len(), MAX_FINDINGS_PER_RULE);
    assert_eq!(found[19].remedy, "mend it (and 999980 more like this)");
}

#[test]
fn a_warning_has_no_more_characters_than_kubernetes_takes() {
    let mut finding = judge(&[NOISY], &create(1), None).remove(0);
    assert_eq!(finding.warning(), finding.to_string());
    finding.problem = "\u{e4}".repeat(200);
    let warning = finding.warning();
    assert_eq!(
        (warning.chars().count(), warning.ends_with("...")),
        (LONGEST_WARNING, true)
    );
}

#[test]
fn a_long_value_is_cut_in_messages() {
    assert_eq!(quoted("a\nb"), r#""a\nb""#);
    assert_eq!(quoted(&"\u{e4}".repeat(1000)).chars().count(), 85);
}
