use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use super::moves::{Step, moves};
use super::scope::{Model, Role};
use super::sights::{SIGHTS, Sight, Sights};
use super::state::{AgentAt, Packs, Sessions, Set, State};

/// What a search found. The search is breadth first: a violation is among the shortest.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// States that differ by more than a swap of equal processes.
    pub states: u64,
    /// Steps to the last state, or to the violation.
    pub depth: u32,
    pub is_safe: bool,
    /// How many states showed this, or how many steps between two states.
    pub sights: Sights,
}

/// Looks at all states that can be reached; stops at the first that is not safe.
pub fn search(model: &Model) -> Outcome {
    let start = model.scope.start();
    let symmetry = Symmetry::of(model);
    let mut seen = Fingerprints::new();
    seen.insert(symmetry.fingerprint(&start));
    let mut outcome = Outcome {
        states: 1,
        depth: 0,
        is_safe: model.is_safe(&start),
        sights: [0; SIGHTS.len()],
    };
    let (mut layer, mut next, mut list) = (vec![start], Vec::new(), Vec::new());
    while outcome.is_safe && !layer.is_empty() {
        outcome.depth += 1;
        for from in &layer {
            moves(model, from, &mut list);
            for (step, to) in &list {
                let is_new = seen.insert(symmetry.fingerprint(to));
                count(&mut outcome.sights, |sight| match sight {
                    Sight::State(shows) => is_new && shows(model, to),
                    Sight::Step(shows) => shows(model, from, step, to),
                });
                if !is_new {
                    continue;
                }
                outcome.states += 1;
                if !model.is_safe(to) {
                    outcome.is_safe = false;
                    return outcome;
                }
                next.push(*to);
            }
        }
        std::mem::swap(&mut layer, &mut next);
        next.clear();
    }
    outcome.depth -= 1;
    outcome
}

fn count(sights: &mut Sights, shows: impl Fn(&Sight) -> bool) {
    for (count, (_, sight)) in sights.iter_mut().zip(&SIGHTS) {
        *count += u64::from(shows(sight));
    }
}

/// The steps to the first violation: the same search, which remembers where each state came from.
pub fn trace(model: &Model) -> Vec<Step> {
    let start = model.scope.start();
    let symmetry = Symmetry::of(model);
    let first = symmetry.fingerprint(&start);
    let mut origins: HashMap<u64, (u64, Option<Step>)> = HashMap::from([(first, (first, None))]);
    let (mut layer, mut list) = (vec![start], Vec::new());
    while !layer.is_empty() {
        let mut next = Vec::new();
        for from in &layer {
            let origin = symmetry.fingerprint(from);
            moves(model, from, &mut list);
            for (step, to) in &list {
                let print = symmetry.fingerprint(to);
                if origins.contains_key(&print) {
                    continue;
                }
                origins.insert(print, (origin, Some(*step)));
                if !model.is_safe(to) {
                    return steps_to(&origins, print);
                }
                next.push(*to);
            }
        }
        layer = next;
    }
    Vec::new()
}

fn steps_to(origins: &HashMap<u64, (u64, Option<Step>)>, mut print: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (origin, Some(step)) = origins[&print] {
        steps.push(step);
        print = origin;
    }
    steps.reverse();
    steps
}

/// Which states are the same but for the names of equal processes.
struct Symmetry {
    /// The first two agents are equal: the packs of each, and how many sessions each has.
    agents: Option<([Packs; 2], u8)>,
}

impl Symmetry {
    fn of(model: &Model) -> Symmetry {
        let equal = match model.scope.agents {
            [Role::Backup(first), Role::Backup(second), ..] => {
                // What a LIST shows first, and whom decisions are about, tells one from the other.
                first == second && model.scope.first_page.is_empty() && model.scope.subject == 0
            }
            _ => false,
        };
        let packs = || [model.names_of(0), model.names_of(1)];
        Symmetry {
            agents: equal.then(|| (packs(), model.scope.sessions_each)),
        }
    }

    /// 64 bits for all states that are the same. Two that differ share them by chance once in some 10^19 pairs: among
    /// 10^8 states with probability 0.0003.
    fn fingerprint(&self, state: &State) -> u64 {
        let mut state = *state;
        state.collectors.sort_unstable();
        let print = fingerprint(&state);
        match self.agents {
            Some((packs, sessions)) => {
                swap(&mut state, packs, sessions);
                print.min(fingerprint(&state))
            }
            None => print,
        }
    }
}

/// Gives each of the first two agents the other's name.
fn swap(state: &mut State, packs: [Packs; 2], sessions: u8) {
    let pack_shift = packs[1].0.trailing_zeros() - packs[0].0.trailing_zeros();
    let swap_packs = |set: &mut Packs| {
        let moved = (set.0 & packs[0].0) << pack_shift | (set.0 & packs[1].0) >> pack_shift;
        set.0 = set.0 & !(packs[0].0 | packs[1].0) | moved;
    };
    let first = ((1 << sessions) - 1) << 1;
    let swap_sessions = |set: &mut Sessions| {
        let moved = (set.0 & first) << sessions | (set.0 >> sessions) & first;
        set.0 = set.0 & !(first | first << sessions) | moved;
    };
    for at in 1..=usize::from(sessions) {
        state.sessions.swap(at, at + usize::from(sessions));
    }
    state.agents.swap(0, 1);
    for set in [
        &mut state.packs,
        &mut state.index,
        &mut state.late_puts,
        &mut state.late_deletes,
    ] {
        swap_packs(set);
    }
    for session in &mut state.sessions {
        session.claims.iter_mut().for_each(swap_packs);
    }
    for round in &mut state.rounds {
        swap_packs(&mut round.condemned);
        swap_packs(&mut round.doomed);
        swap_sessions(&mut round.covered);
    }
    for agent in &mut state.agents {
        for set in [
            &mut agent.usable,
            &mut agent.shunned,
            &mut agent.relied,
            &mut agent.own,
        ] {
            swap_packs(set);
        }
        swap_packs(&mut agent.spent);
        swap_packs(&mut agent.claims);
        if let AgentAt::Checked(pack) | AgentAt::Uploading(pack) | AgentAt::Naming(pack) =
            &mut agent.at
        {
            let mut set = Set::of(&[*pack]);
            swap_packs(&mut set);
            *pack = set.first().unwrap_or(*pack);
        }
    }
    for collector in &mut state.collectors {
        for set in [
            &mut collector.listed,
            &mut collector.condemned,
            &mut collector.rescued,
        ] {
            swap_packs(set);
        }
        swap_packs(&mut collector.doomed);
        swap_packs(&mut collector.index);
        swap_sessions(&mut collector.commits);
        swap_sessions(&mut collector.todo);
    }
    state.collectors.sort_unstable();
}

fn fingerprint(state: &State) -> u64 {
    let mut mixer = Mixer::default();
    state.hash(&mut mixer);
    mixer.finish()
}

/// Mixes bytes by multiplication to 128 bits, eight at a time. std's hasher takes five times as long.
#[derive(Default)]
struct Mixer {
    word: u64,
    len: u32,
    mixed: u64,
}

impl Mixer {
    fn mix(&mut self) {
        let left = u128::from(self.mixed ^ self.word ^ 0x9E37_79B9_7F4A_7C15);
        let right = u128::from(self.mixed.rotate_left(29) ^ 0xA076_1D64_78BD_642F);
        let product = left * right;
        let folded = product as u64 ^ (product >> 64) as u64;
        self.mixed = folded.wrapping_add(self.word.wrapping_mul(0xE703_7ED1_A0B4_28DB));
        self.word = 0;
        self.len = 0;
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mut last = Mixer { ..*self };
        last.mix();
        last.mix();
        last.mixed
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u8(byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        self.len += 1;
        if self.len == 8 {
            self.mix();
        }
    }

    fn write_usize(&mut self, _len: usize) {}

    fn write_isize(&mut self, variant: isize) {
        self.write_u8(variant as u8);
    }
}

/// A set of fingerprints: open addressing in one array, since a fingerprint is its own hash. 0 is a free place.
struct Fingerprints {
    places: Vec<u64>,
    len: usize,
}

impl Fingerprints {
    fn new() -> Fingerprints {
        Fingerprints {
            places: vec![0; 1 << 16],
            len: 0,
        }
    }

    /// Says whether it was not there.
    fn insert(&mut self, print: u64) -> bool {
        if self.len * 3 >= self.places.len() * 2 {
            let twice = vec![0; self.places.len() * 2];
            let before = std::mem::replace(&mut self.places, twice);
            for print in before.into_iter().filter(|&print| print != 0) {
                let place = self.place(print);
                self.places[place] = print;
            }
        }
        let print = print.max(1);
        let place = self.place(print);
        let is_new = self.places[place] == 0;
        self.places[place] = print;
        self.len += usize::from(is_new);
        is_new
    }

    fn place(&self, print: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut place = print as usize & mask;
        while self.places[place] != 0 && self.places[place] != print {
            place = (place + 1) & mask;
        }
        place
    }
}
