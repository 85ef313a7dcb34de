//! Which snapshots a policy keeps, against hand-written cases, a naive second opinion, and forged snapshots.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::field_reassign_with_default,
    reason = "a test fails by panicking; options are non-exhaustive"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backup_core::{SessionId, SourceTag};
use backup_manifest::{
    KeepReason, RetentionError, RetentionPlan, RetentionPolicy, RetentionRules, RetentionSnapshot,
    plan_retention,
};
use proptest::prelude::*;

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
/// 2026-11-21 12:00 UTC, a Saturday.
const NOW_NS: i64 = 20_778 * DAY_NS + 12 * HOUR_NS;

fn id(number: u64) -> SessionId {
    let mut stamp = [0; 16];
    stamp[8..].copy_from_slice(&number.to_be_bytes());
    SessionId::from_parts(SourceTag::from_bytes([1; 8]), stamp)
}

fn snapshot(number: u64, received_ns: i64) -> RetentionSnapshot {
    RetentionSnapshot {
        id: id(number),
        source: "home".to_owned(),
        tags: Vec::new(),
        complete: true,
        received_ns,
        held: false,
    }
}

fn partial(number: u64, received_ns: i64) -> RetentionSnapshot {
    RetentionSnapshot {
        complete: false,
        ..snapshot(number, received_ns)
    }
}

fn policy(set: impl FnOnce(&mut RetentionPolicy)) -> RetentionPolicy {
    let mut policy = RetentionPolicy::default();
    set(&mut policy);
    policy
}

fn rules(default: RetentionPolicy) -> RetentionRules {
    let mut rules = RetentionRules::default();
    rules.default = default;
    rules
}

fn plan(policy: &RetentionPolicy, snapshots: &[RetentionSnapshot]) -> RetentionPlan {
    plan_retention(&rules(policy.clone()), snapshots, NOW_NS).expect("a plan")
}

fn kept(plan: &RetentionPlan) -> BTreeSet<SessionId> {
    plan.keep.iter().map(|kept| kept.id).collect()
}

/// Which of `snapshots` stay, by their place in the list.
#[track_caller]
fn check(policy: &RetentionPolicy, snapshots: &[RetentionSnapshot], expected: &[usize]) {
    let kept = kept(&plan(policy, snapshots));
    let places: Vec<usize> = (0..snapshots.len())
        .filter(|place| kept.contains(&snapshots[*place].id))
        .collect();
    assert_eq!(places, expected);
}

#[test]
fn the_newest_complete_ones_stay_by_count() {
    let snapshots: Vec<_> = (0..5).map(|n| snapshot(n, n as i64)).collect();
    check(&policy(|p| p.keep_last = 2), &snapshots, &[3, 4]);
    check(
        &policy(|p| p.keep_last = u32::MAX),
        &snapshots,
        &[0, 1, 2, 3, 4],
    );
}

#[test]
fn the_newest_of_each_stretch_that_has_one_stays() {
    let snapshots = [
        snapshot(0, -1),
        snapshot(1, 0),
        snapshot(2, 5 * HOUR_NS),
        snapshot(3, 5 * HOUR_NS + 1),
        snapshot(4, 100 * DAY_NS),
        snapshot(5, 101 * DAY_NS - 1),
    ];
    check(&policy(|p| p.hourly = 2), &snapshots, &[4, 5]);
    check(&policy(|p| p.hourly = 4), &snapshots, &[1, 3, 4, 5]);
    check(&policy(|p| p.daily = 2), &snapshots, &[3, 5]);
    check(&policy(|p| p.daily = 9), &snapshots, &[0, 3, 5]);
    // 1969-12-31 and 1970-01-01 are of one week.
    check(&policy(|p| p.weekly = 9), &snapshots, &[3, 5]);
    check(&policy(|p| p.monthly = 9), &snapshots, &[0, 3, 5]);
    check(&policy(|p| p.yearly = 9), &snapshots, &[0, 5]);
}

#[test]
fn what_is_recent_labelled_or_held_stays_complete_or_not() {
    let hour = NOW_NS - HOUR_NS;
    let mut labelled = partial(2, 5);
    labelled.tags = vec!["other".to_owned(), "release".to_owned()];
    let mut held = partial(3, 6);
    held.held = true;
    let snapshots = [
        partial(0, 3),
        snapshot(1, 4),
        labelled,
        held,
        partial(4, hour - 1),
        partial(5, hour),
        snapshot(6, hour + 1),
        snapshot(7, i64::MAX),
    ];
    let only_tags = policy(|p| p.tags = vec!["release".to_owned()]);
    check(&only_tags, &snapshots, &[2, 3, 7]);
    let only_within = policy(|p| p.within = Some(Duration::from_secs(3600)));
    check(&only_within, &snapshots, &[3, 5, 6, 7]);
    let for_ever = policy(|p| p.within = Some(Duration::MAX));
    check(&for_ever, &snapshots, &[0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn partial_ones_stand_for_nothing_but_stay_while_they_are_the_newest() {
    let last = policy(|p| {
        p.keep_last = 1;
        p.daily = 1;
    });
    let (second, first) = (DAY_NS, 0);
    check(
        &last,
        &[
            snapshot(0, first),
            partial(1, first + 1),
            snapshot(2, first + 2),
            partial(3, second),
        ],
        &[2, 3],
    );
    check(&last, &[partial(0, first), partial(1, second)], &[1]);
    let plan = plan(&last, &[partial(0, first), partial(1, second)]);
    assert_eq!(plan.keep[0].reasons, [KeepReason::NewestPartial]);
}

#[test]
fn a_plan_says_why_and_comes_in_order() {
    let policy = policy(|p| {
        p.keep_last = 1;
        p.yearly = 2;
    });
    let mut other = snapshot(9, 7);
    other.source = "a".to_owned();
    let snapshots = [
        partial(6, 2 * DAY_NS),
        snapshot(5, DAY_NS),
        snapshot(3, -7),
        snapshot(2, -7),
        other,
    ];
    let plan = plan(&policy, &snapshots);
    let told: Vec<_> = plan
        .keep
        .iter()
        .map(|kept| {
            let reasons: Vec<_> = kept.reasons.iter().map(ToString::to_string).collect();
            (kept.source.as_str(), kept.id, reasons.join(", "))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", id(9), "newest complete, last, yearly".to_owned()),
            ("home", id(3), "yearly".to_owned()),
            ("home", id(5), "newest complete, last, yearly".to_owned()),
            ("home", id(6), "newer than complete".to_owned()),
        ]
    );
    assert_eq!(plan.drop, [id(2)]);
    assert_eq!((plan.sources["a"].kept, plan.sources["a"].dropped), (1, 0));
    let home = plan.sources["home"];
    assert_eq!((home.kept, home.dropped, home.drop_percent()), (3, 1, 25));
    assert_eq!(plan.drop_percent(), 20);
}

#[test]
fn the_part_that_goes_is_rounded_up() {
    let last = policy(|p| p.keep_last = 1);
    let snapshots: Vec<_> = (0..1001).map(|n| snapshot(n, n as i64)).collect();
    assert_eq!(plan(&last, &snapshots).drop_percent(), 100);
    let all_but_one = policy(|p| p.keep_last = 1000);
    assert_eq!(plan(&all_but_one, &snapshots).drop_percent(), 1);
    assert_eq!(plan(&all_but_one, &snapshots[1..]).drop_percent(), 0);
    assert_eq!(plan(&all_but_one, &[]).drop_percent(), 0);
}

#[test]
fn policies_that_keep_nothing_are_refused_where_they_are_used() {
    let mut rules = RetentionRules::default();
    let snapshots = [snapshot(0, 0)];
    let refused = Err(RetentionError::EmptyPolicy {
        source_name: "home".to_owned(),
    });
    assert_eq!(plan_retention(&rules, &snapshots, NOW_NS), refused);
    rules.default.within = Some(Duration::ZERO);
    assert_eq!(plan_retention(&rules, &snapshots, NOW_NS), refused);
    assert!(plan_retention(&rules, &[], NOW_NS).is_ok());

    let own = policy(|p| p.yearly = 1);
    rules.per_source.insert("home".to_owned(), own);
    assert!(plan_retention(&rules, &snapshots, NOW_NS).is_ok());
    rules.default.keep_last = 1;
    let none = RetentionPolicy::default();
    rules.per_source.insert("home".to_owned(), none);
    assert_eq!(plan_retention(&rules, &snapshots, NOW_NS), refused);
}

#[test]
fn a_snapshot_that_is_there_twice_is_refused() {
    let mut again = snapshot(1, 9);
    again.source = "other".to_owned();
    let snapshots = [snapshot(1, 0), again];
    assert_eq!(
        plan_retention(&rules(policy(|p| p.keep_last = 1)), &snapshots, NOW_NS),
        Err(RetentionError::DuplicateSnapshot { id: id(1) })
    );
}

#[test]
fn rules_are_read_from_a_configuration() {
    let text = r#"{
        "default": { "keep_last": 3, "within": "1w2d12h90min5s", "tags": ["release"] },
        "per_source": { "db": { "daily": 7 } }
    }"#;
    let rules: RetentionRules = serde_json::from_str(text).expect("valid rules");
    let within = Duration::from_secs((9 * 24 + 12) * 3600 + 90 * 60 + 5);
    let default = policy(|p| {
        p.keep_last = 3;
        p.within = Some(within);
        p.tags = vec!["release".to_owned()];
    });
    assert_eq!(*rules.policy("home"), default);
    assert_eq!(*rules.policy("db"), policy(|p| p.daily = 7));
    let written = serde_json::to_string(&rules).expect("rules can be written");
    assert!(written.contains("\"1w2d13h30min5s\""), "{written}");
    assert_eq!(
        serde_json::from_str::<RetentionRules>(&written).expect("valid rules"),
        rules
    );
}

#[test]
fn rules_with_a_slip_are_refused() {
    for text in [
        r#"{ "defaults": {} }"#,
        r#"{ "default": { "keep-last": 3 } }"#,
        r#"{ "default": { "daily": -1 } }"#,
        r#"{ "default": { "daily": 4294967296 } }"#,
        r#"{ "default": { "within": 30 } }"#,
        r#"{ "default": { "within": "30" } }"#,
        r#"{ "default": { "within": "" } }"#,
        r#"{ "default": { "within": "d" } }"#,
        r#"{ "default": { "within": "5m" } }"#,
        r#"{ "default": { "within": "1h1d" } }"#,
        r#"{ "default": { "within": "1d1d" } }"#,
        r#"{ "default": { "within": "-1d" } }"#,
        r#"{ "default": { "within": "1 d" } }"#,
        r#"{ "default": { "within": "1d " } }"#,
        r#"{ "default": { "within": "18446744073709551615w" } }"#,
        r#"{ "default": { "within": "18446744073709551616ns" } }"#,
    ] {
        assert!(
            serde_json::from_str::<RetentionRules>(text).is_err(),
            "{text}"
        );
    }
}

/// Attack 13 of SECURITY.md.
#[test]
fn a_thousand_forged_snapshots_leave_the_honest_ones_of_earlier_days() {
    let policy = policy(|p| {
        p.daily = 7;
        p.weekly = 4;
        p.monthly = 12;
        p.yearly = 3;
    });
    // Half a year, one a night; the agent's time is the first part of an id.
    let tag = SourceTag::from_bytes([1; 8]);
    let honest: Vec<_> = (1..=180)
        .map(|day| {
            let received_ns = NOW_NS - day * DAY_NS;
            let unix_ms = received_ns as u64 / 1_000_000;
            RetentionSnapshot {
                id: SessionId::new(tag, unix_ms, [7; 10]),
                ..snapshot(0, received_ns)
            }
        })
        .collect();
    let before = kept(&plan(&policy, &honest));
    let forged = (0..1_000_u64).map(|n| RetentionSnapshot {
        // Half of them say that they are of the past, half that they are of the next centuries.
        id: SessionId::new(
            tag,
            n * 3_600_000_000,
            n.to_be_bytes()
                .repeat(2)
                .first_chunk()
                .copied()
                .expect("long"),
        ),
        ..snapshot(0, NOW_NS + n as i64)
    });
    let all: Vec<_> = honest.iter().cloned().chain(forged).collect();
    let plan = plan(&policy, &all);
    let after = kept(&plan);

    // A forged one takes the place of today, this week, month and year, as an honest one of tonight would have.
    let tonight = snapshot(u64::MAX, NOW_NS);
    let expected: Vec<_> = honest.iter().cloned().chain([tonight.clone()]).collect();
    let mut expected = kept(&self::plan(&policy, &expected));
    expected.remove(&tonight.id);
    let honest_after: BTreeSet<_> = honest
        .iter()
        .map(|snapshot| snapshot.id)
        .filter(|id| after.contains(id))
        .collect();
    assert_eq!(honest_after, expected);
    assert_eq!(after.len(), honest_after.len() + 1);
    assert!(before.difference(&after).count() <= 2, "{before:?}");
    for day in 1..=6 {
        assert!(after.contains(&honest[day - 1].id), "{day} days ago");
    }
}

/// Attack 13 of SECURITY.md: by count alone honest ones do go, and the caller can see it coming.
#[test]
fn a_plan_that_gives_up_more_than_usual_shows_it() {
    let policy = policy(|p| p.keep_last = 30);
    let honest: Vec<_> = (0..31).map(|n| snapshot(n, n as i64)).collect();
    assert_eq!(plan(&policy, &honest).drop_percent(), 4);
    let forged = (0..1_000).map(|n| snapshot(1_000 + n, NOW_NS));
    let all: Vec<_> = honest.into_iter().chain(forged).collect();
    assert_eq!(plan(&policy, &all).drop_percent(), 98);
}

/// What a bucket is, said in another way: walking the calendar day by day.
fn naive_bucket(rule: usize, received_ns: i64) -> (i64, i64) {
    let days = received_ns.div_euclid(DAY_NS);
    if rule == 0 {
        return (0, received_ns.div_euclid(HOUR_NS));
    }
    if rule == 1 {
        return (0, days);
    }
    if rule == 2 {
        // Monday of that week: 1970-01-05 was one.
        return (0, days - (days - 4).rem_euclid(7));
    }
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let (mut year, mut first) = (1600, -135_140);
    while days >= first + 365 + i64::from(leap(year)) {
        first += 365 + i64::from(leap(year));
        year += 1;
    }
    if rule == 4 {
        return (year, 0);
    }
    let mut month = 0;
    for len in [
        31,
        28 + i64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if days < first + len {
            break;
        }
        first += len;
        month += 1;
    }
    (year, month)
}

/// The whole of retention for one snapshot, asked of all others each time.
fn naive_keeps(
    policy: &RetentionPolicy,
    all: &[RetentionSnapshot],
    one: &RetentionSnapshot,
) -> bool {
    let order = |snapshot: &RetentionSnapshot| (snapshot.received_ns, snapshot.id);
    let source: Vec<_> = all.iter().filter(|s| s.source == one.source).collect();
    let newer: Vec<_> = source.iter().filter(|s| order(s) > order(one)).collect();
    let newer_complete: Vec<_> = newer.iter().filter(|s| s.complete).collect();
    let any_complete = source.iter().any(|s| s.complete);
    let age = i128::from(NOW_NS) - i128::from(one.received_ns);
    let within = policy
        .within
        .is_some_and(|within| age <= within.as_nanos() as i128);
    if one.held || within || one.tags.iter().any(|tag| policy.tags.contains(tag)) {
        return true;
    }
    if !one.complete {
        return newer_complete.is_empty() && (any_complete || newer.is_empty());
    }
    let counts = [
        policy.hourly,
        policy.daily,
        policy.weekly,
        policy.monthly,
        policy.yearly,
    ];
    let in_bucket = counts.iter().enumerate().any(|(rule, count)| {
        let own = naive_bucket(rule, one.received_ns);
        let newer: BTreeSet<_> = newer_complete
            .iter()
            .map(|s| naive_bucket(rule, s.received_ns))
            .collect();
        !newer.contains(&own) && newer.len() < *count as usize
    });
    newer_complete.is_empty() || newer_complete.len() < policy.keep_last as usize || in_bucket
}

fn any_policy() -> impl Strategy<Value = RetentionPolicy> {
    let within = prop_oneof![
        Just(None),
        (0..2_000_000_u64).prop_map(|s| Some(Duration::from_secs(s))),
        any::<Duration>().prop_map(Some),
    ];
    let tags = prop::collection::vec("[ab]", 0..2);
    (prop::array::uniform6(0..4_u32), within, tags).prop_map(|(counts, within, tags)| {
        policy(|p| {
            [
                p.keep_last,
                p.hourly,
                p.daily,
                p.weekly,
                p.monthly,
                p.yearly,
            ] = counts;
            (p.within, p.tags) = (within, tags);
        })
    })
}

/// Times that lie close together as well as at the ends of what there is.
fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        (0..60_i64).prop_map(|hours| NOW_NS - hours * HOUR_NS),
        (-30..800_i64).prop_map(|days| NOW_NS - days * DAY_NS),
        (-5..5_i64).prop_map(|n| n * HOUR_NS),
        any::<i64>(),
    ]
}

fn any_snapshots() -> impl Strategy<Value = Vec<RetentionSnapshot>> {
    let one = (
        any_time(),
        "[xy]",
        prop::collection::vec("[abc]", 0..2),
        0..8_u8,
    );
    prop::collection::vec(one, 0..40).prop_map(|parts| {
        let parts = parts.into_iter().enumerate();
        parts
            .map(
                |(number, (received_ns, source, tags, kind))| RetentionSnapshot {
                    // Ids that do not ascend with the place in the list.
                    id: id((number as u64 * 29) % 101),
                    source,
                    tags,
                    complete: kind > 2,
                    received_ns,
                    held: kind % 4 == 0 && received_ns % 3 == 0,
                },
            )
            .collect()
    })
}

proptest! {
    #[test]
    fn a_plan_is_what_a_naive_reading_of_the_rules_says(policy in any_policy(), all in any_snapshots()) {
        prop_assume!(!policy.is_empty());
        let plan = plan(&policy, &all);
        let kept = kept(&plan);
        for one in &all {
            prop_assert_eq!(kept.contains(&one.id), naive_keeps(&policy, &all, one), "{:?}", one);
        }
    }

    #[test]
    fn a_plan_names_each_snapshot_once(policy in any_policy(), all in any_snapshots()) {
        prop_assume!(!policy.is_empty());
        let plan = plan(&policy, &all);
        let mut named: Vec<_> = plan.keep.iter().map(|kept| kept.id).chain(plan.drop.iter().copied()).collect();
        let mut given: Vec<_> = all.iter().map(|snapshot| snapshot.id).collect();
        named.sort_unstable();
        given.sort_unstable();
        prop_assert_eq!(named, given);
        prop_assert!(plan.keep.iter().all(|kept| !kept.reasons.is_empty()));
        let dropped: u64 = plan.sources.values().map(|counts| counts.dropped).sum();
        prop_assert_eq!(dropped, plan.drop.len() as u64);
        prop_assert_eq!(plan.drop_percent() == 0, plan.drop.is_empty());
    }

    #[test]
    fn the_newest_complete_one_of_each_source_stays(policy in any_policy(), all in any_snapshots()) {
        prop_assume!(!policy.is_empty());
        let kept = kept(&plan(&policy, &all));
        let mut newest = BTreeMap::new();
        for one in all.iter().filter(|snapshot| snapshot.complete) {
            let order = (one.received_ns, one.id);
            let entry = newest.entry(&one.source).or_insert(order);
            *entry = order.max(*entry);
        }
        for (_, id) in newest.values() {
            prop_assert!(kept.contains(id));
        }
    }

    #[test]
    fn a_rule_more_never_gives_up_more(one in any_policy(), other in any_policy(), all in any_snapshots()) {
        prop_assume!(!one.is_empty());
        let both = policy(|p| {
            p.keep_last = one.keep_last.max(other.keep_last);
            p.hourly = one.hourly.max(other.hourly);
            p.daily = one.daily.max(other.daily);
            p.weekly = one.weekly.max(other.weekly);
            p.monthly = one.monthly.max(other.monthly);
            p.yearly = one.yearly.max(other.yearly);
            p.within = one.within.max(other.within);
            p.tags = [one.tags.clone(), other.tags].concat();
        });
        prop_assert!(kept(&plan(&one, &all)).is_subset(&kept(&plan(&both, &all))));
    }

    #[test]
    fn the_order_of_what_is_given_does_not_matter(policy in any_policy(), all in any_snapshots(), by in any::<u64>()) {
        prop_assume!(!policy.is_empty());
        let mut shuffled = all.clone();
        shuffled.sort_by_key(|snapshot| {
            let stamp = snapshot.id.stamp().last().copied().unwrap_or_default();
            by.rotate_left(u32::from(stamp)).wrapping_mul(u64::from(stamp) | 1)
        });
        prop_assert_eq!(plan(&policy, &all), plan(&policy, &shuffled));
    }

    #[test]
    fn policies_survive_being_written(policy in any_policy()) {
        let text = serde_json::to_string(&policy).expect("policies can be written");
        prop_assert_eq!(serde_json::from_str::<RetentionPolicy>(&text).expect("valid"), policy);
    }

    #[test]
    fn any_text_is_a_length_of_time_or_an_error(within in "[0-9wdhmins ]{0,12}|\\PC{0,8}") {
        let text = serde_json::json!({ "within": within }).to_string();
        if let Ok(policy) = serde_json::from_str::<RetentionPolicy>(&text) {
            prop_assert!(policy.within.is_some());
        }
    }
}
