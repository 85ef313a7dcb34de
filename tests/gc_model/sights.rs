use super::moves::{About, Step, Who};
use super::scope::{Model, Role};
use super::state::{Cell, Decision, State};

/// Whether a state shows something, or a step from one state to another.
#[derive(Debug)]
pub enum Sight {
    State(fn(&Model, &State) -> bool),
    Step(fn(&Model, &State, &Step, &State) -> bool),
}

impl Sight {
    pub fn unit(&self) -> &'static str {
        match self {
            Sight::State(_) => "states",
            Sight::Step(_) => "steps",
        }
    }
}

pub type Sights = [u64; SIGHTS.len()];

/// What a search should meet with, so that finding nothing says something.
pub const SIGHTS: [(&str, Sight); 13] = [
    (
        "commit",
        Sight::State(|model, state| backup_has(model, state, Cell::Commit)),
    ),
    (
        "abort",
        Sight::State(|model, state| backup_has(model, state, Cell::Aborted)),
    ),
    ("delete", Sight::State(|_, state| !state.packs.has(0))),
    (
        "drop",
        Sight::State(|model, state| {
            model.scope.first_decision != Decision::Drop && state.is_dropped()
        }),
    ),
    (
        "keep",
        Sight::State(|_, state| state.decisions.contains(&Decision::Keep)),
    ),
    (
        "claim rescues",
        Sight::Step(|_, _, step, _| {
            step.what == "reads sessions/<s>/ack/<n>"
                && matches!(step.about, About::Packs(packs) if !packs.is_empty())
        }),
    ),
    (
        "uncovered commit rescues",
        Sight::Step(|_, from, step, to| {
            step.what == "LIST snapshots/ again"
                && matches!(step.who, Who::Collector(number) if
                from.collectors[number].rescued != to.collectors[number].rescued)
        }),
    ),
    (
        "drop refused",
        Sight::Step(|_, from, step, to| {
            step.what == "create retired/<s>/<k> = drop" && from.decisions == to.decisions
        }),
    ),
    ("repacked pack chosen", Sight::Step(repacked_pack_chosen)),
    (
        "abort, all kept",
        Sight::Step(|_, _, step, to| {
            step.what == OPENS
                && matches!(step.who, Who::Agent(number) if
                to.agents[number].session > 0 && !to.agents[number].found.is_empty())
        }),
    ),
    (
        "abort, run starts over",
        Sight::Step(|_, from, step, to| {
            step.what == OPENS
                && matches!(step.who, Who::Agent(number) if
                !from.agents[number].found.is_empty() && to.agents[number].found.is_empty())
        }),
    ),
    (
        "plan refused",
        Sight::Step(|_, _, step, _| step.what == "create gc/<n>/plan, refused"),
    ),
    (
        "final refused",
        Sight::Step(|_, _, step, _| step.what == "create gc/<n>/final, refused"),
    ),
];

const OPENS: &str = "create sessions/<s>/ack/<n>, the first";

fn backup_has(model: &Model, state: &State, cell: Cell) -> bool {
    let mut sessions = state.sessions_where(|session| session.cell == cell);
    sessions.remove(0);
    sessions
        .iter()
        .any(|session| model.role(session) != Role::Repack)
}

/// P0 is condemned though S0 lives, since the mark chose the copy that a repack made.
fn repacked_pack_chosen(model: &Model, from: &State, step: &Step, to: &State) -> bool {
    if step.what != "create gc/<n>/plan" || from.is_dropped() {
        return false;
    }
    let condemned = to.round(to.newest()).condemned;
    let agents = 0..model.scope.agents.len();
    agents
        .filter(|&agent| model.scope.agents[agent] == Role::Repack)
        .any(|agent| condemned.has(0) && !model.names_of(agent).both(from.packs).within(condemned))
}
