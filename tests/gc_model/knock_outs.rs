use super::scope::{Rules, Scope};
use super::scopes::{
    DECISIONS, HELPER, LATE_DELETES, LEAST, MARKS, SECOND_ROUND, STALE_CHOICE, STALE_INDEX,
    TWO_SESSIONS, WITH_INDEX,
};

/// Takes a rule out.
pub type Out = fn(&mut Rules);

/// Each rule that safety needs: without it a snapshot loses a chunk, in that many steps and no fewer.
pub const NEEDED: &[(&str, u32, Scope, Out)] = &[
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
pub const NOT_NEEDED: &[(&str, Out)] = &[
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
pub const FOR_PROGRESS: &[(&str, Out)] = &[
    ("covered_not_rescued", |r| r.covered_not_rescued = false),
    ("dropped_covered", |r| r.dropped_covered = false),
];

pub fn without(out: Out) -> Rules {
    let mut rules = Rules::ALL;
    out(&mut rules);
    rules
}
