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

use model::scope::{Model, ONLY_X, Role, Rules, Scope, X_AND_Y};
use model::search::{Outcome, search, trace};
use model::sights::SIGHTS;
use model::state::{Decision, Set};

const BACKUP: Role = Role::Backup(ONLY_X);

/// Two copies of X, of which a mark chooses one, for a snapshot that lives.
const TWO_COPIES: Scope = Scope {
    first_packs: &[ONLY_X, ONLY_X],
    first_decision: Decision::Empty,
    ..Scope::LEAST
};

/// After an abort a backup goes on in a second session, with packs of new names.
const TWO_SESSIONS: Scope = Scope {
    sessions_each: 2,
    puts_each: 2,
    ..Scope::LEAST
};

/// X lives and shares P0 with Y, which does not, so that a repack makes sense.
const POOR_PACK: Scope = Scope {
    first_packs: &[X_AND_Y],
    first_decision: Decision::Empty,
    rounds: 2,
    ..Scope::LEAST
};

/// The snapshot of the first backup is decided on, and there is no other before it.
const OWN_SNAPSHOT: Scope = Scope {
    first_needs: Set::NONE,
    first_decision: Decision::Empty,
    subject: 1,
    forgets: 1,
    keeps: 1,
    rounds: 2,
    ..Scope::LEAST
};

/// Every feature and every fault is in one of these.
const SCOPES: &[(&str, Scope)] = &[
    (
        "1 backup, 2 rounds, index, late requests",
        Scope {
            rounds: 2,
            index: true,
            late_puts: true,
            late_deletes: true,
            lost_replies: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 rounds, collectors replaced",
        Scope {
            rounds: 2,
            replaced: true,
            late_deletes: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds",
        Scope {
            collectors: 2,
            rounds: 2,
            lost_replies: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, two copies",
        Scope {
            collectors: 2,
            rounds: 2,
            ..TWO_COPIES
        },
    ),
    (
        "1 backup of two chunks, 2 rounds",
        Scope {
            agents: &[Role::Backup(X_AND_Y)],
            first_packs: &[X_AND_Y],
            rounds: 2,
            late_deletes: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "2 backups, 2 rounds",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 2,
            ..Scope::LEAST
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds",
        Scope {
            agents: &[BACKUP, Role::Repack],
            ..POOR_PACK
        },
    ),
    (
        "1 repack, 2 collectors, 2 rounds, decisions",
        Scope {
            agents: &[Role::Repack],
            collectors: 2,
            forgets: 1,
            keeps: 1,
            ..POOR_PACK
        },
    ),
    (
        "1 backup, 2 rounds, decisions",
        Scope {
            rounds: 2,
            first_decision: Decision::Empty,
            forgets: 2,
            keeps: 1,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, decisions on it",
        Scope {
            collectors: 2,
            ..OWN_SNAPSHOT
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, two copies, LISTs of two pages",
        Scope {
            collectors: 2,
            rounds: 2,
            first_page: Set::of(&[0, 2]),
            ..TWO_COPIES
        },
    ),
    (
        "2 backups, 1 round, LISTs of two pages",
        Scope {
            agents: &[BACKUP, BACKUP],
            first_page: Set::of(&[0, 2, 4]),
            ..Scope::LEAST
        },
    ),
];

/// What takes longer.
const LARGER_SCOPES: &[(&str, Scope)] = &[
    (
        "1 backup, 3 rounds, index, late requests",
        Scope {
            rounds: 3,
            index: true,
            late_puts: true,
            late_deletes: true,
            lost_replies: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "2 backups, 2 collectors, 2 rounds",
        Scope {
            agents: &[BACKUP, BACKUP],
            collectors: 2,
            rounds: 2,
            ..Scope::LEAST
        },
    ),
    (
        "2 backups, 2 rounds, 2 sessions each",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 2,
            ..TWO_SESSIONS
        },
    ),
    (
        "2 backups, 3 rounds",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 3,
            late_deletes: true,
            ..Scope::LEAST
        },
    ),
    (
        "2 backups, 2 rounds, collectors replaced",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 2,
            replaced: true,
            ..Scope::LEAST
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, two copies, decisions",
        Scope {
            collectors: 2,
            rounds: 2,
            forgets: 1,
            keeps: 1,
            ..TWO_COPIES
        },
    ),
    (
        "1 backup, 2 collectors, 3 rounds, two copies",
        Scope {
            collectors: 2,
            rounds: 3,
            first_packs: &[ONLY_X, ONLY_X],
            first_decision: Decision::Empty,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup of two chunks, 2 collectors, 2 rounds",
        Scope {
            agents: &[Role::Backup(X_AND_Y)],
            first_packs: &[X_AND_Y],
            collectors: 2,
            rounds: 2,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 1 repack, 2 collectors, 2 rounds",
        Scope {
            agents: &[BACKUP, Role::Repack],
            collectors: 2,
            ..POOR_PACK
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds, decisions",
        Scope {
            agents: &[BACKUP, Role::Repack],
            forgets: 1,
            keeps: 1,
            ..POOR_PACK
        },
    ),
    (
        "2 backups, 2 rounds, decisions on the first",
        Scope {
            agents: &[BACKUP, BACKUP],
            ..OWN_SNAPSHOT
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds, decisions on the backup",
        Scope {
            agents: &[BACKUP, Role::Repack],
            ..OWN_SNAPSHOT
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds, LISTs of two pages",
        Scope {
            agents: &[BACKUP, Role::Repack],
            first_page: Set::of(&[0, 2]),
            ..POOR_PACK
        },
    ),
];

/// Takes a rule out.
type Out = fn(&mut Rules);

/// Marks at work with a copy to choose, and nobody else.
const MARKS: Scope = Scope {
    agents: &[],
    collectors: 2,
    rounds: 2,
    ..TWO_COPIES
};
const DECISIONS: Scope = Scope {
    agents: &[],
    first_decision: Decision::Empty,
    forgets: 1,
    keeps: 1,
    ..Scope::LEAST
};
const WITH_INDEX: Scope = Scope {
    index: true,
    ..Scope::LEAST
};
const STALE_INDEX: Scope = Scope {
    index: true,
    ..TWO_SESSIONS
};
const STALE_CHOICE: Scope = Scope {
    index: true,
    rounds: 2,
    ..TWO_COPIES
};
const SECOND_ROUND: Scope = Scope {
    rounds: 2,
    ..TWO_SESSIONS
};
const HELPER: Scope = Scope {
    collectors: 2,
    ..TWO_SESSIONS
};
const LATE_DELETES: Scope = Scope {
    late_deletes: true,
    ..TWO_SESSIONS
};
const LEAST: Scope = Scope::LEAST;

/// Each rule that safety needs: without it a snapshot loses a chunk, in that many steps and no fewer.
const NEEDED: &[(&str, u32, Scope, Out)] = &[
    ("index_is_hint", 27, STALE_INDEX, |r| {
        r.index_is_hint = false
    }),
    ("acks_awaited", 14, LEAST, |r| r.acks_awaited = false),
    ("acks_claim", 17, LEAST, |r| r.acks_claim = false),
    ("names_fresh", 15, LEAST, |r| r.names_fresh = false),
    ("packs_listed_after_open", 15, LEAST, |r| {
        r.packs_listed_after_open = false
    }),
    ("log_read_after_open", 14, LEAST, |r| {
        r.log_read_after_open = false
    }),
    ("log_read_before_packs", 15, LEAST, |r| {
        r.log_read_before_packs = false
    }),
    ("commit_conditional", 15, LEAST, |r| {
        r.commit_conditional = false
    }),
    ("abort_binding", 15, LEAST, |r| r.abort_binding = false),
    ("sessions_listed_after_plan", 14, LEAST, |r| {
        r.sessions_listed_after_plan = false
    }),
    ("packs_deleted_before_done", 15, LEAST, |r| {
        r.packs_deleted_before_done = false
    }),
    ("cells_listed_again", 15, LEAST, |r| {
        r.cells_listed_again = false
    }),
    ("uncovered_rescued", 15, LEAST, |r| {
        r.uncovered_rescued = false
    }),
    ("plans_stay, for sessions", 26, LEAST, |r| {
        r.plans_stay = false
    }),
    ("plans_stay, for marks", 18, MARKS, |r| r.plans_stay = false),
    ("choices_listed", 33, STALE_CHOICE, |r| {
        r.choices_listed = false
    }),
    ("hits_atomic", 18, LEAST, |r| r.hits_atomic = false),
    ("puts_claimed_in_flight", 20, LEAST, |r| {
        r.puts_claimed_in_flight = false
    }),
    ("kept_packs_checked", 20, TWO_SESSIONS, |r| {
        r.kept_packs_checked = false
    }),
    ("kept_packs_claimed", 34, SECOND_ROUND, |r| {
        r.kept_packs_claimed = false
    }),
    ("forgets_contested", 13, DECISIONS, |r| {
        r.forgets_contested = false
    }),
    ("keep_looks_again", 17, DECISIONS, |r| {
        r.keep_looks_again = false
    }),
    ("tidied_after_cell", 15, LEAST, |r| {
        r.tidied_after_cell = false
    }),
    ("final_shared", 27, HELPER, |r| r.final_shared = false),
    ("round_fixed_before_mark", 17, MARKS, |r| {
        r.round_fixed_before_mark = false
    }),
    ("puts_sent_once, a helper deletes late", 30, HELPER, |r| {
        r.puts_sent_once = false
    }),
    ("puts_sent_once, a DELETE is late", 25, LATE_DELETES, |r| {
        r.puts_sent_once = false
    }),
    // Where the index is no hint, it has to be written anew before `done`. By itself this rule is not needed.
    (
        "index_rewritten_before_done, index_is_hint",
        15,
        WITH_INDEX,
        |r| {
            r.index_rewritten_before_done = false;
            r.index_is_hint = false;
        },
    ),
];

/// What safety does not need: without it nothing is lost, in any of `SCOPES`.
const NOT_NEEDED: &[(&str, Out)] = &[
    // A pack counts only if it is listed, whatever the index names.
    ("index_rewritten_before_done", |r| {
        r.index_rewritten_before_done = false
    }),
    // What is listed after the ack still lacks the packs of C, and the heartbeat has not begun.
    ("acknowledged_last", |r| r.acknowledged_last = false),
    // What is committed between the two is not covered, and so rescued.
    ("packs_listed_before_cells", |r| {
        r.packs_listed_before_cells = false
    }),
    // Nobody relies on the new pack before it is listed, and nothing is lost when the old one is gone too early.
    ("repack_in_session", |r| r.repack_in_session = false),
];

/// Without these nothing is lost either, but P0 is never deleted though nobody needs it.
const FOR_PROGRESS: &[(&str, Out)] = &[
    ("covered_not_rescued", |r| r.covered_not_rescued = false),
    ("dropped_covered", |r| r.dropped_covered = false),
];

fn without(out: Out) -> Rules {
    let mut rules = Rules::ALL;
    out(&mut rules);
    rules
}

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
    format!(
        "a committed snapshot has lost a chunk:{}",
        lines.collect::<String>()
    )
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
