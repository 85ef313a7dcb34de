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

/// Somebody wants it back.
pub fn keep(moves: &mut Moves<'_>) {
    let clerk = moves.from.keeper;
    let (last, free) = moves.from.last_decision();
    if clerk.slot > 0 {
        let slot = clerk.slot - 1;
        moves.step("create retired/<s>/<k> = keep", About::Number(slot), |s| {
            create(s, slot, Decision::Keep);
            s.keeper.slot = 0;
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
