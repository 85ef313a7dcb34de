//! Writers against garbage collection: a model of the protocol by which backups, repacks and collectors share a repository
//! without locks, and a search through all states that it can reach. It must find no snapshot that has lost a chunk; and it
//! must find one as soon as any single rule is taken out, or else the model would prove nothing.
//!
//! Each step is one request to the store, or one decision of a process. Any process may stop for ever between two steps, so
//! that a lease, a window or a time limit may be over at any moment: no clock takes part. A request whose sender has
//! stopped may take effect at any later time; that is a process which goes on late. Names, nonces and numbers are unique.
//!
//! `cargo test --test gc_model` takes some seconds; `scripts/gc-model` searches further.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "gc_model/mod.rs"]
mod model;

use std::time::Instant;

use model::knock_outs::{FOR_PROGRESS, NEEDED, NOT_NEEDED, without};
use model::scope::{Model, Role, Rules, Scope};
use model::scopes::{
    BACKUP, HELPER, LARGER_SCOPES, LATE_DELETES, MARKS, POOR_PACK, SCOPES, SECOND_ROUND,
};
use model::search::{Outcome, search, trace};
use model::sights::SIGHTS;

fn check(name: &str, scope: Scope, rules: Rules) -> Outcome {
    #[expect(clippy::disallowed_methods, reason = "a test tells how long it took")]
    let started = Instant::now();
    let model = Model::new(scope, rules);
    let outcome = search(&model);
    let seconds = started.elapsed().as_secs_f64();
    let verdict = if outcome.is_safe { "safe" } else { "unsafe" };
    let (states, depth) = (outcome.states, outcome.depth);
    println!("{states:>9} states, depth {depth:>2}, {seconds:>5.1} s, {verdict:6} {name}");
    outcome
}

/// All of these are safe, and together they show everything that there is to see.
fn check_safe(scopes: &[(&str, Scope)]) {
    let mut sights = [0; SIGHTS.len()];
    let mut states = 0;
    for &(name, scope) in scopes {
        let outcome = check(name, scope, Rules::ALL);
        assert!(outcome.is_safe, "{name}: {}", told(scope, Rules::ALL));
        states += outcome.states;
        for (all, one) in sights.iter_mut().zip(outcome.sights) {
            *all += one;
        }
    }
    println!("{states} states in all");
    for ((name, sight), count) in SIGHTS.iter().zip(sights) {
        println!("{count:>12} {} with: {name}", sight.unit());
        assert!(count > 0, "no scope shows: {name}");
    }
}

fn check_not_needed(scopes: &[(&str, Scope)]) {
    for &(rule, out) in NOT_NEEDED {
        for &(scope_name, scope) in scopes {
            let name = format!("{rule}: {scope_name}");
            let outcome = check(&name, scope, without(out));
            assert!(outcome.is_safe, "{name}: {}", told(scope, without(out)));
        }
    }
}

fn told(scope: Scope, rules: Rules) -> String {
    let steps = trace(&Model::new(scope, rules));
    let lines = steps.iter().map(|step| format!("\n    {step}"));
    format!("unsafe after these steps:{}", lines.collect::<String>())
}

#[test]
fn no_committed_snapshot_loses_a_chunk() {
    check_safe(SCOPES);
}

#[test]
#[ignore = "takes minutes: scripts/gc-model runs it"]
fn no_committed_snapshot_loses_a_chunk_in_larger_scopes() {
    check_safe(LARGER_SCOPES);
}

#[test]
fn without_any_one_rule_a_snapshot_loses_a_chunk() {
    for &(name, depth, scope, out) in NEEDED {
        let outcome = check(name, scope, without(out));
        assert!(!outcome.is_safe, "{name}: nothing is lost without it");
        assert_eq!(
            outcome.depth,
            depth,
            "{name}: {}",
            told(scope, without(out))
        );
        assert!(check("    with it", scope, Rules::ALL).is_safe, "{name}");
    }
}

#[test]
fn without_some_rules_nothing_is_lost() {
    let with_index = Scope {
        index: true,
        ..SECOND_ROUND
    };
    let with_helper = Scope {
        agents: &[BACKUP],
        ..MARKS
    };
    let with_repack = Scope {
        agents: &[BACKUP, Role::Repack],
        ..POOR_PACK
    };
    let scopes = [
        ("with the index", with_index),
        ("with a helper", with_helper),
        ("with a repack", with_repack),
    ];
    check_not_needed(&scopes);
}

#[test]
#[ignore = "takes minutes: scripts/gc-model runs it"]
fn without_some_rules_nothing_is_lost_in_larger_scopes() {
    check_not_needed(SCOPES);
}

#[test]
fn without_some_rules_nothing_is_deleted() {
    let deletes = SIGHTS.iter().position(|(name, _)| *name == "delete");
    for &(rule, out) in FOR_PROGRESS {
        let outcome = check(rule, SECOND_ROUND, without(out));
        assert!(
            outcome.is_safe && outcome.sights[deletes.unwrap()] == 0,
            "{rule}"
        );
    }
}

#[test]
fn each_rule_is_taken_out_somewhere() {
    let others = NOT_NEEDED.iter().chain(FOR_PROGRESS).map(|(_, out)| *out);
    let outs = NEEDED.iter().map(|(.., out)| *out).chain(others);
    let taken: Vec<String> = outs.flat_map(|out| fields(without(out), "false")).collect();
    let mut forgotten = fields(Rules::ALL, "true");
    forgotten.retain(|rule| !taken.contains(rule));
    assert_eq!(forgotten, Vec::<String>::new());
}

/// The names of the rules that have this value.
fn fields(rules: Rules, value: &str) -> Vec<String> {
    let text = format!("{rules:?}");
    let words: Vec<&str> = text
        .split([' ', ',', ':'])
        .filter(|word| !word.is_empty())
        .collect();
    let pairs = words.windows(2).filter(|pair| pair[1] == value);
    pairs.map(|pair| pair[0].to_owned()).collect()
}

#[test]
fn a_put_may_be_sent_twice_if_dead_names_are_shunned() {
    let rules = without(|r| {
        r.puts_sent_once = false;
        r.dead_names_shunned = true;
    });
    let two_rounds = Scope {
        rounds: 2,
        ..LATE_DELETES
    };
    for scope in [HELPER, LATE_DELETES, two_rounds] {
        let outcome = check("dead names shunned", scope, rules);
        assert!(outcome.is_safe, "{}", told(scope, rules));
    }
}
