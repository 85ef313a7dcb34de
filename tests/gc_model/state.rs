use std::fmt;

/// Sessions: number 0 committed snapshot S0 long ago; then those of the agents, in order.
pub const SESSIONS: usize = 7;
pub const AGENTS: usize = 3;
pub const COLLECTORS: usize = 2;
pub const ROUNDS: usize = 3;
/// Decisions on one snapshot that find room: forget, keep, forget, drop.
pub const DECISIONS: usize = 4;

/// A set of at most eight packs, sessions or chunks, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Set(pub u8);

pub type Packs = Set;
pub type Sessions = Set;
pub type Chunks = Set;

impl Set {
    pub const NONE: Set = Set(0);

    pub const fn of(numbers: &[u8]) -> Set {
        let (mut set, mut at) = (0, 0);
        while at < numbers.len() {
            set |= 1 << numbers[at];
            at += 1;
        }
        Set(set)
    }

    pub fn has(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn and(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    pub fn both(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    pub fn within(self, other: Set) -> bool {
        self.without(other).is_empty()
    }

    pub fn add(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    pub fn remove(&mut self, number: u8) {
        self.0 &= !(1 << number);
    }

    pub fn first(self) -> Option<u8> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as u8)
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut left = self;
        std::iter::from_fn(move || {
            let number = left.first()?;
            left.remove(number);
            Some(number)
        })
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

/// `snapshots/<s>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Cell {
    #[default]
    Empty,
    Commit,
    Aborted,
}

/// `retired/<s>/<k>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Decision {
    #[default]
    Empty,
    Forget,
    Keep,
    Drop,
}

/// What the store holds of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Session {
    /// `sessions/<s>/open` is there.
    pub open: bool,
    pub cell: Cell,
    /// One more than the highest n of `sessions/<s>/ack/<n>`; 0: there is none.
    pub acked: u8,
    /// The packs in `sessions/<s>/ack/<n>`, at n - 1.
    pub claims: [Packs; ROUNDS],
}

/// What the store holds below `gc/<n>/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Round {
    /// `plan` is there, with `condemned` and `covered`.
    pub planned: bool,
    pub condemned: Packs,
    pub covered: Sessions,
    /// `final` is there, with `doomed`.
    pub decided: bool,
    pub doomed: Packs,
    pub done: bool,
}

/// Where an agent is: what it does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AgentAt {
    /// The request with this number of the opening's order.
    Opening(u8),
    /// Looks a chunk up, or commits when all are found.
    Running,
    /// Only without the rule `hits_atomic`: found this pack usable, has not noted it yet.
    Checked(u8),
    /// The put of this pack is under way.
    Uploading(u8),
    /// The pack is stored; its index segment is next.
    Naming(u8),
    /// Settled, or stopped.
    Ended,
}

/// A process that writes: a backup, or a repack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Agent {
    pub at: AgentAt,
    /// The second request of a LIST is next.
    pub page: bool,
    /// How many sessions it had before this one.
    pub session: u8,
    /// The newest round it knows of.
    pub known: u8,
    /// While it opens: what LIST packs/ showed.
    pub usable: Packs,
    /// While it opens: the packs of rounds that are not done (C).
    pub shunned: Packs,
    /// Packs that a hit relied on.
    pub relied: Packs,
    /// Packs of its own, in flight included.
    pub own: Packs,
    /// Names that were used up.
    pub spent: Packs,
    /// Chunks that are in a pack it relies on or put.
    pub found: Chunks,
    /// The round of the ack whose create is under way, or 0, and its claims.
    pub acking: u8,
    pub claims: Packs,
}

impl Default for Agent {
    fn default() -> Agent {
        Agent {
            at: AgentAt::Opening(0),
            page: false,
            session: 0,
            known: 0,
            usable: Set::NONE,
            shunned: Set::NONE,
            relied: Set::NONE,
            own: Set::NONE,
            spent: Set::NONE,
            found: Set::NONE,
            acking: 0,
            claims: Set::NONE,
        }
    }
}

/// Where a collector is: what it does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum CollectorAt {
    #[default]
    Start,
    ListPacks,
    ListCells,
    ListDecisions,
    /// Creates `drop` with this number.
    Honour(u8),
    /// Creates `gone`.
    MarkGone,
    /// Only without the rule `round_fixed_before_mark`.
    FixRound,
    Plan,
    ListSessions,
    /// Waits for the sessions, then LISTs snapshots/ again.
    Settle,
    Final,
    ReadIndex,
    WriteIndex,
    DeleteIndex,
    Delete,
    Close,
    /// Only without the rule `plans_stay`.
    DeletePlan,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Collector {
    pub at: CollectorAt,
    /// The second request of a LIST is next.
    pub page: bool,
    pub round: u8,
    pub listed: Packs,
    /// Commits that the mark saw, then those that the plan covers.
    pub commits: Sessions,
    /// Whether the subject's snapshot is dropped, as far as it saw.
    pub dropped: bool,
    pub condemned: Packs,
    /// Sessions that are not settled yet.
    pub todo: Sessions,
    pub rescued: Packs,
    pub doomed: Packs,
    /// What it read from the index and writes again.
    pub index: Packs,
}

/// A process that decides on the subject's snapshot: LISTs retired/<s>/, then creates the next number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Clerk {
    /// One more than the number it is about to create; 0: it LISTs next.
    pub slot: u8,
    /// Decisions it will still make.
    pub left: u8,
    /// It created a `keep`, and looks whether a drop was tidied away before.
    pub looks_again: bool,
    /// Not known to it: one was.
    pub in_vain: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct State {
    pub packs: Packs,
    /// Packs that index segments name.
    pub index: Packs,
    /// Packs with a put on its way that its sender no longer waits for.
    pub late_puts: Packs,
    /// Likewise a delete.
    pub late_deletes: Packs,
    pub sessions: [Session; SESSIONS],
    pub decisions: [Decision; DECISIONS],
    /// `retired/<s>/gone`: there was a `drop`, and the decisions may be tidied away.
    pub gone: bool,
    /// Somebody was told that a snapshot is back which had been dropped before.
    pub told_wrongly: bool,
    /// Round n is at n - 1.
    pub rounds: [Round; ROUNDS],
    pub agents: [Agent; AGENTS],
    pub collectors: [Collector; COLLECTORS],
    pub forgetter: Clerk,
    pub keeper: Clerk,
}

impl State {
    /// LIST gc/: the number of the newest round, 0 if there is none.
    pub fn newest(&self) -> u8 {
        let newest = self.rounds.iter().rposition(|round| round.planned);
        newest.map_or(0, |at| at as u8 + 1)
    }

    pub fn round(&self, number: u8) -> &Round {
        &self.rounds[usize::from(number) - 1]
    }

    pub fn round_mut(&mut self, number: u8) -> &mut Round {
        &mut self.rounds[usize::from(number) - 1]
    }

    /// What `condition` holds for, of all sessions.
    pub fn sessions_where(&self, condition: impl Fn(&Session) -> bool) -> Sessions {
        let mut found = Set::NONE;
        for (number, session) in self.sessions.iter().enumerate() {
            if condition(session) {
                found.add(number as u8);
            }
        }
        found
    }

    pub fn commits(&self) -> Sessions {
        self.sessions_where(|session| session.cell == Cell::Commit)
    }

    /// LIST retired/<s>/: the last decision, and the next free number.
    pub fn last_decision(&self) -> (Decision, u8) {
        let is_made = |decision: &Decision| *decision != Decision::Empty;
        match self.decisions.iter().rposition(is_made) {
            _ if self.gone => (Decision::Drop, DECISIONS as u8),
            Some(last) => (self.decisions[last], last as u8 + 1),
            None => (Decision::Empty, 0),
        }
    }

    pub fn is_dropped(&self) -> bool {
        self.gone || self.decisions.contains(&Decision::Drop)
    }
}
