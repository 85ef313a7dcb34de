use super::mark::{honour, list_cells, list_decisions, list_packs, mark_gone, plan};
use super::moves::{About, Moves};
use super::round::{close, decide, delete, delete_plan, list_sessions, rewrite_index, settle};
use super::scope::{Model, Rules, Scope};
use super::state::{Cell, Collector, CollectorAt, Decision, Session, State};

/// What a collector does, in order.
pub fn order(scope: &Scope, rules: &Rules) -> Vec<CollectorAt> {
    use CollectorAt::*;
    // Where nobody decides on a snapshot meanwhile, LIST snapshots/ reads the decisions, too.
    let decided = scope.forgets + scope.keeps == 0 && scope.first_decision != Decision::Forget;
    let cells = if decided {
        &[ListCells][..]
    } else {
        &[ListCells, ListDecisions]
    };
    let rewrite = if scope.index {
        &[ReadIndex, WriteIndex, DeleteIndex][..]
    } else {
        &[]
    };

    let mut order = vec![Start];
    match rules.packs_listed_before_cells {
        true => order.extend([&[ListPacks], cells].concat()),
        false => order.extend([cells, &[ListPacks]].concat()),
    }
    if !rules.round_fixed_before_mark {
        order.push(FixRound);
    }
    match rules.sessions_listed_after_plan {
        true => order.extend([Plan, ListSessions, Settle, Final]),
        false => order.extend([ListSessions, Plan, Settle, Final]),
    }
    if !rules.index_rewritten_before_done {
        order.extend([&[Delete, Close], rewrite].concat());
    } else if !rules.packs_deleted_before_done {
        order.extend([rewrite, &[Close, Delete]].concat());
    } else {
        order.extend([rewrite, &[Delete, Close]].concat());
    }
    if !rules.plans_stay {
        order.push(DeletePlan);
    }
    order
}

/// The next step of a collector.
pub fn work(moves: &mut Moves<'_>, number: usize) {
    match moves.from.collectors[number].at {
        CollectorAt::Start => start(moves, number),
        CollectorAt::ListPacks => list_packs(moves, number),
        CollectorAt::ListCells => list_cells(moves, number),
        CollectorAt::ListDecisions => list_decisions(moves, number),
        CollectorAt::Honour(slot) => honour(moves, number, slot),
        CollectorAt::MarkGone => mark_gone(moves, number),
        CollectorAt::FixRound => fix_round(moves, number),
        CollectorAt::Plan => plan(moves, number),
        CollectorAt::ListSessions => list_sessions(moves, number),
        CollectorAt::Settle => settle(moves, number),
        CollectorAt::Final => decide(moves, number),
        CollectorAt::ReadIndex | CollectorAt::WriteIndex | CollectorAt::DeleteIndex => {
            rewrite_index(moves, number);
        }
        CollectorAt::Delete => delete(moves, number),
        CollectorAt::Close => close(moves, number),
        CollectorAt::DeletePlan => delete_plan(moves, number),
    }
}

/// Takes up the newest round, or fixes the number of a new one before the mark. While idle, tidies.
fn start(moves: &mut Moves<'_>, number: usize) {
    tidy(moves);
    if moves.model.rules.round_fixed_before_mark {
        fix_round(moves, number);
    } else {
        list_packs(moves, number);
    }
}

/// Deletes what sessions left that have ended, and the decisions on what is gone.
fn tidy(moves: &mut Moves<'_>) {
    for session in 0..moves.from.sessions.len() {
        let found = moves.from.sessions[session];
        let has_ended = found.cell != Cell::Empty || !moves.model.rules.tidied_after_cell;
        if found.open && has_ended {
            let about = About::Session(session as u8);
            moves.step("tidies: DELETE sessions/<s>/…", about, |s| {
                s.sessions[session] = Session {
                    cell: found.cell,
                    ..Session::default()
                };
            });
        }
    }
    for (slot, decision) in moves.from.decisions.iter().enumerate() {
        if *decision != Decision::Empty && moves.from.gone {
            let about = About::Number(slot as u8);
            moves.step("tidies: DELETE retired/<s>/<k>", about, |s| {
                s.decisions[slot] = Decision::Empty;
            });
        }
    }
}

/// LIST gc/. A round that is not done is helped with; else n is the next.
fn fix_round(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let newest = moves.from.newest();
    if newest > 0 && !moves.from.round(newest).done {
        moves.step(
            "LIST gc/, helps with the newest",
            About::Round(newest),
            |s| {
                follow(s, number, newest);
                s.collectors[number].at = CollectorAt::ListSessions;
            },
        );
    } else if newest < model.scope.rounds {
        moves.step(
            "LIST gc/, the next is free",
            About::Round(newest + 1),
            |s| {
                let collector = &mut s.collectors[number];
                collector.round = newest + 1;
                collector.at = after(model, collector.at);
            },
        );
    }
}

/// Goes on with a plan that is there, whoever created it.
pub fn follow(state: &mut State, number: usize, round: u8) {
    let plan = *state.round(round);
    let collector = &mut state.collectors[number];
    *collector = Collector {
        at: collector.at,
        round,
        condemned: plan.condemned,
        commits: plan.covered,
        todo: collector.todo,
        ..Collector::default()
    };
}

pub fn after(model: &Model, at: CollectorAt) -> CollectorAt {
    let place = model.order.iter().position(|&other| other == at);
    let next = place.and_then(|place| model.order.get(place + 1));
    next.copied().unwrap_or_default()
}

/// Goes on to the second request of a LIST, or to what follows it.
pub fn turn(model: &Model, collector: &mut Collector, continues: bool) {
    collector.page = continues;
    if !continues {
        collector.at = after(model, collector.at);
    }
}
