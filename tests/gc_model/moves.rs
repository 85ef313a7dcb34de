use std::fmt;

use super::scope::Model;
use super::state::{CollectorAt, Packs, State};
use super::{agent, clerk, collector};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Agent(usize),
    Collector(usize),
    Forgetter,
    Keeper,
    Network,
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Agent(number) => write!(formatter, "agent {number}"),
            Who::Collector(number) => write!(formatter, "collector {number}"),
            Who::Forgetter => write!(formatter, "forgetter"),
            Who::Keeper => write!(formatter, "keeper"),
            Who::Network => write!(formatter, "network"),
        }
    }
}

/// What a step is about: a pack, a session, a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    Nothing,
    Pack(u8),
    Packs(Packs),
    Session(u8),
    Round(u8),
    RoundAndPacks(u8, Packs),
    Number(u8),
}

impl fmt::Display for About {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            About::Nothing => Ok(()),
            About::Pack(pack) => write!(formatter, ": pack {pack}"),
            About::Packs(packs) => write!(formatter, ": packs {packs:?}"),
            About::Session(session) => write!(formatter, ": s = {session}"),
            About::Round(round) => write!(formatter, ": n = {round}"),
            About::RoundAndPacks(round, packs) => {
                write!(formatter, ": n = {round}, packs {packs:?}")
            }
            About::Number(number) => write!(formatter, ": k = {number}"),
        }
    }
}

/// One request, or one decision that takes none, by its name in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    pub who: Who,
    pub what: &'static str,
    pub about: About,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}{}", self.who, self.what, self.about)
    }
}

/// Collects the states that one step leads to.
#[derive(Debug)]
pub struct Moves<'a> {
    pub model: &'a Model,
    pub from: &'a State,
    /// The process whose turn it is.
    pub who: Who,
    pub list: &'a mut Vec<(Step, State)>,
}

impl Moves<'_> {
    /// The process takes a step that makes this `change`.
    pub fn step(&mut self, what: &'static str, about: About, change: impl FnOnce(&mut State)) {
        let mut state = *self.from;
        change(&mut state);
        let who = self.who;
        self.list.push((Step { who, what, about }, state));
    }
}

/// All states that any process can lead to by its next step. Any process may also stop for ever: it then takes none.
pub fn moves(model: &Model, from: &State, list: &mut Vec<(Step, State)>) {
    list.clear();
    let who = Who::Network;
    let mut moves = Moves {
        model,
        from,
        who,
        list,
    };
    late_requests(&mut moves);
    for number in 0..model.scope.agents.len() {
        moves.who = Who::Agent(number);
        agent::work(&mut moves, number);
        agent::heartbeat(&mut moves, number);
    }
    for number in 0..usize::from(model.scope.collectors) {
        moves.who = Who::Collector(number);
        collector::work(&mut moves, number);
        if model.scope.replaced && from.collectors[number].at != CollectorAt::Start {
            moves.step("stops, another starts", About::Nothing, |s| {
                s.collectors[number] = Default::default();
            });
        }
    }
    moves.who = Who::Forgetter;
    clerk::forget(&mut moves);
    moves.who = Who::Keeper;
    clerk::keep(&mut moves);
}

/// Requests whose sender no longer waits take effect.
fn late_requests(moves: &mut Moves<'_>) {
    for pack in moves.from.late_puts.iter() {
        moves.step("late put of packs/<p>", About::Pack(pack), |s| {
            s.late_puts.remove(pack);
            s.packs.add(pack);
        });
    }
    for pack in moves.from.late_deletes.iter() {
        moves.step("late DELETE packs/<p>", About::Pack(pack), |s| {
            s.late_deletes.remove(pack);
            s.packs.remove(pack);
        });
    }
}
