use super::moves::{About, Moves};
use super::state::{DECISIONS, Decision, State};

/// Somebody gives the snapshot up.
pub fn forget(moves: &mut Moves<'_>) {
    let clerk = moves.from.forgetter;
    let (last, free) = moves.from.last_decision();
    let is_there = moves.from.commits().has(moves.model.scope.subject);
    let wanted = matches!(last, Decision::Empty | Decision::Keep) && is_there;
    if clerk.slot > 0 {
        let slot = clerk.slot - 1;
        moves.step(
            "create retired/<s>/<k> = forget",
            About::Number(slot),
            |s| {
                create(s, slot, Decision::Forget);
                s.forgetter.slot = 0;
            },
        );
    } else if clerk.left > 0 && wanted && usize::from(free) < DECISIONS {
        moves.step("LIST retired/<s>/", About::Number(free), |s| {
            s.forgetter.slot = free + 1;
            s.forgetter.left -= 1;
        });
    }
}

/// Somebody wants it back, and is told whether it is.
pub fn keep(moves: &mut Moves<'_>) {
    let clerk = moves.from.keeper;
    let (last, free) = moves.from.last_decision();
    let looks_again = moves.model.rules.keep_looks_again;
    if clerk.looks_again {
        let is_gone = moves.from.gone;
        moves.step("LIST retired/<s>/, for a drop", About::Nothing, |s| {
            s.told_wrongly |= clerk.in_vain && !is_gone;
            s.keeper.looks_again = false;
            s.keeper.in_vain = false;
        });
    } else if clerk.slot > 0 {
        let slot = clerk.slot - 1;
        let in_vain = moves.from.is_dropped();
        moves.step("create retired/<s>/<k> = keep", About::Number(slot), |s| {
            s.keeper.slot = 0;
            if create(s, slot, Decision::Keep) {
                s.keeper.looks_again = looks_again;
                s.keeper.in_vain = in_vain && looks_again;
                s.told_wrongly |= in_vain && !looks_again;
            }
        });
    } else if clerk.left > 0 && last == Decision::Forget && usize::from(free) < DECISIONS {
        moves.step("LIST retired/<s>/", About::Number(free), |s| {
            s.keeper.slot = free + 1;
            s.keeper.left -= 1;
        });
    }
}

/// Create-if-absent; says whether it was.
pub fn create(state: &mut State, slot: u8, decision: Decision) -> bool {
    let place = &mut state.decisions[usize::from(slot)];
    let absent = *place == Decision::Empty;
    if absent {
        *place = decision;
    }
    absent
}
