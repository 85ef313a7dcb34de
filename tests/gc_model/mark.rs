use super::clerk::create;
use super::collector::{after, follow, turn};
use super::moves::{About, Moves};
use super::scope::Model;
use super::state::{Collector, CollectorAt, Decision, Packs, Set, State};

pub fn list_packs(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let (page, continues) = model.page(moves.from.collectors[number].page);
    let packs = moves.from.packs.both(page);
    moves.step("LIST packs/", About::Packs(packs), |s| {
        let collector = &mut s.collectors[number];
        collector.at = CollectorAt::ListPacks;
        collector.listed = collector.listed.and(packs);
        turn(model, collector, continues);
    });
}

/// LIST snapshots/: what the mark starts from.
pub fn list_cells(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let (page, continues) = model.page(moves.from.collectors[number].page);
    let commits = moves.from.commits().both(page);
    let dropped = moves.from.is_dropped();
    moves.step("LIST snapshots/", About::Nothing, |s| {
        let collector = &mut s.collectors[number];
        collector.commits = collector.commits.and(commits);
        // If LIST retired/ comes next, it says so again.
        collector.dropped = dropped && !model.order.contains(&CollectorAt::ListDecisions);
        turn(model, collector, continues);
    });
}

/// LIST retired/. The window of a forget may be over or not: it is a clock.
pub fn list_decisions(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let contested = model.rules.forgets_contested;
    let next = after(model, CollectorAt::ListDecisions);
    let (last, free) = moves.from.last_decision();
    let is_new = last == Decision::Drop && !moves.from.gone;
    let sees_commit = moves.from.collectors[number]
        .commits
        .has(model.scope.subject);
    moves.step(
        "LIST retired/, honours nothing new",
        About::Number(free),
        |s| {
            s.collectors[number].dropped = last == Decision::Drop;
            s.collectors[number].at = if is_new { CollectorAt::MarkGone } else { next };
        },
    );
    if last == Decision::Forget && sees_commit {
        moves.step(
            "LIST retired/, the window is over",
            About::Number(free),
            |s| {
                let collector = &mut s.collectors[number];
                collector.dropped = !contested;
                collector.at = if contested {
                    CollectorAt::Honour(free)
                } else {
                    next
                };
            },
        );
    }
}

/// Creates `drop`; where something else is there by now, looks again.
pub fn honour(moves: &mut Moves<'_>, number: usize, slot: u8) {
    moves.step("create retired/<s>/<k> = drop", About::Number(slot), |s| {
        let created = create(s, slot, Decision::Drop);
        let collector = &mut s.collectors[number];
        collector.dropped = created;
        collector.at = match created {
            true => CollectorAt::MarkGone,
            false => CollectorAt::ListDecisions,
        };
    });
}

/// So that a LIST alone tells it, and the decisions may be tidied away.
pub fn mark_gone(moves: &mut Moves<'_>, number: usize) {
    let next = after(moves.model, CollectorAt::ListDecisions);
    moves.step("create retired/<s>/gone", About::Nothing, |s| {
        s.gone = true;
        s.collectors[number].at = next;
    });
}

/// The sets of packs that a mark may leave unchosen: for each live chunk it chooses any pack that holds it.
fn candidates(model: &Model, state: &State, collector: &Collector) -> Vec<Packs> {
    let mut live = collector.commits;
    if collector.dropped {
        live.remove(model.scope.subject);
    }
    let mut choices = collector.listed;
    if !model.rules.choices_listed {
        choices = choices.and(state.index);
    }
    if model.rules.dead_names_shunned {
        let dead = state.rounds.iter().map(|round| round.doomed);
        choices = choices.without(dead.fold(Set::NONE, Set::and));
    }
    let mut found = vec![collector.listed];
    for chunk in model.needs(live).iter() {
        let holding = choices.both(model.holders(Set::of(&[chunk])));
        // A chunk that no listed pack holds was put after the LIST: no pack of it is a candidate.
        if !holding.is_empty() {
            let left = |pack| {
                found
                    .iter()
                    .map(move |left: &Packs| left.without(Set::of(&[pack])))
            };
            found = holding.iter().flat_map(left).collect();
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Creates the plan. A mark that leaves nothing makes no round; a refused create helps with what is there.
pub fn plan(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let collector = moves.from.collectors[number];
    let round = collector.round;
    let next = after(model, CollectorAt::Plan);
    let mut covered = collector.commits;
    if collector.dropped && !model.rules.dropped_covered {
        covered.remove(model.scope.subject);
    }
    if moves.from.round(round).planned {
        moves.step("create gc/<n>/plan, refused", About::Round(round), |s| {
            follow(s, number, round);
            s.collectors[number].at = next;
        });
        return;
    }
    for condemned in candidates(model, moves.from, &collector) {
        let about = About::RoundAndPacks(round, condemned);
        if condemned.is_empty() {
            moves.step("finds nothing to condemn", about, |s| {
                s.collectors[number] = Collector::default();
            });
            continue;
        }
        moves.step("create gc/<n>/plan", about, |s| {
            let plan = s.round_mut(round);
            plan.planned = true;
            plan.condemned = condemned;
            plan.covered = covered;
            follow(s, number, round);
            s.collectors[number].at = next;
        });
    }
}
