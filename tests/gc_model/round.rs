use super::collector::{after, turn};
use super::moves::{About, Moves};
use super::scope::Model;
use super::state::{Cell, Collector, CollectorAt, Set, State};

pub fn list_sessions(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let (page, continues) = model.page(moves.from.collectors[number].page);
    let open = moves.from.sessions_where(|session| session.open).both(page);
    moves.step("LIST sessions/", About::Nothing, |s| {
        let collector = &mut s.collectors[number];
        if model.rules.acks_awaited {
            collector.todo = collector.todo.and(open);
        }
        turn(model, collector, continues);
        if collector.at == CollectorAt::Plan && !collector.condemned.is_empty() {
            // Helps: the plan is there, though the sessions should have been listed before it.
            collector.at = CollectorAt::Settle;
        }
    });
}

/// Waits for each session: for its ack, or its cell, which it creates itself when the lease is over.
pub fn settle(moves: &mut Moves<'_>, number: usize) {
    let collector = moves.from.collectors[number];
    let binding = moves.model.rules.abort_binding;
    if collector.todo.is_empty() {
        list_cells_again(moves, number);
        return;
    }
    for session in collector.todo.iter() {
        let place = usize::from(session);
        let found = moves.from.sessions[place];
        if found.acked > collector.round {
            let claims = found.claims[usize::from(collector.round) - 1];
            let about = About::Packs(claims);
            moves.step("reads sessions/<s>/ack/<n>", about, |s| {
                let collector = &mut s.collectors[number];
                collector.todo.remove(session);
                collector.rescued = collector.rescued.and(claims);
            });
        }
        let what = match found.cell {
            Cell::Empty => "create snapshots/<s> = aborted",
            _ => "create snapshots/<s> = aborted, refused",
        };
        moves.step(what, About::Session(session), |s| {
            s.collectors[number].todo.remove(session);
            if s.sessions[place].cell == Cell::Empty && binding {
                s.sessions[place].cell = Cell::Aborted;
            }
        });
    }
}

/// LIST snapshots/ again: what commits reference that the plan does not cover is rescued.
fn list_cells_again(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let collector = moves.from.collectors[number];
    let (page, continues) = model.page(collector.page);
    let mut rescued = collector.rescued;
    if model.rules.cells_listed_again && model.rules.uncovered_rescued {
        let mut uncovered = moves.from.commits().both(page);
        if model.rules.covered_not_rescued {
            uncovered = uncovered.without(collector.commits);
        }
        let referenced = model.holders(model.needs(uncovered));
        rescued = rescued.and(collector.condemned.both(referenced));
    }
    moves.step("LIST snapshots/ again", About::Packs(rescued), |s| {
        let collector = &mut s.collectors[number];
        collector.rescued = rescued;
        turn(model, collector, continues);
        if !continues {
            collector.commits = Set::NONE;
        }
    });
}

pub fn decide(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let collector = moves.from.collectors[number];
    let round = collector.round;
    let mine = collector.condemned.without(collector.rescued);
    let found = *moves.from.round(round);
    let created = !found.decided;
    let doomed = if created || !model.rules.final_shared {
        mine
    } else {
        found.doomed
    };
    let what = if created {
        "create gc/<n>/final"
    } else {
        "create gc/<n>/final, refused"
    };
    moves.step(what, About::RoundAndPacks(round, doomed), |s| {
        if created {
            s.round_mut(round).decided = true;
            s.round_mut(round).doomed = doomed;
        }
        s.collectors[number] = Collector {
            at: after(model, CollectorAt::Final),
            round,
            doomed,
            ..Collector::default()
        };
    });
}

/// Goes on, without what is no longer needed.
fn advance(model: &Model, collector: &mut Collector) {
    collector.at = after(model, collector.at);
    if collector.at == CollectorAt::Start {
        *collector = Collector::default();
    }
}

/// Reads the segments, writes new ones without the packs of the final, and deletes those that were read.
pub fn rewrite_index(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let collector = moves.from.collectors[number];
    let doomed = moves.from.round(collector.round).doomed;
    let (what, packs) = match collector.at {
        CollectorAt::ReadIndex => ("LIST index/, reads it", moves.from.index),
        CollectorAt::WriteIndex => ("put index/<i>, anew", collector.index.without(doomed)),
        _ => ("DELETE index/<i>, what it read", doomed),
    };
    moves.step(what, About::Packs(packs), |s| {
        let collector = &mut s.collectors[number];
        match collector.at {
            CollectorAt::ReadIndex => collector.index = packs,
            CollectorAt::WriteIndex => s.index = s.index.and(packs),
            _ => {
                s.index = s.index.without(packs.both(collector.index));
                collector.index = Set::NONE;
            }
        }
        advance(model, collector);
    });
}

pub fn delete(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let collector = moves.from.collectors[number];
    for pack in collector.doomed.iter() {
        let remove = |s: &mut State| {
            s.packs.remove(pack);
            let collector = &mut s.collectors[number];
            collector.doomed.remove(pack);
            if collector.doomed.is_empty() {
                advance(model, collector);
            }
        };
        moves.step("DELETE packs/<p>", About::Pack(pack), remove);
        if model.scope.late_deletes {
            moves.step("DELETE packs/<p>, sent twice", About::Pack(pack), |s| {
                s.late_deletes.add(pack);
                remove(s);
            });
        }
    }
    if collector.doomed.is_empty() {
        moves.step("has nothing to delete", About::Nothing, |s| {
            advance(model, &mut s.collectors[number]);
        });
    }
}

pub fn close(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let round = moves.from.collectors[number].round;
    moves.step("create gc/<n>/done", About::Round(round), |s| {
        s.round_mut(round).done = true;
        advance(model, &mut s.collectors[number]);
    });
}

pub fn delete_plan(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let round = moves.from.collectors[number].round;
    moves.step("DELETE gc/<n>/…", About::Round(round), |s| {
        *s.round_mut(round) = Default::default();
        advance(model, &mut s.collectors[number]);
    });
}
