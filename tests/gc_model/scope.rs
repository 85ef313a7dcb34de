use super::collector::order;
use super::state::{
    AGENTS, Agent, AgentAt, COLLECTORS, Cell, Chunks, CollectorAt, Decision, Packs, ROUNDS,
    SESSIONS, Sessions, Set, State,
};

const CHUNKS: usize = 2;

/// Chunks: X is what the agents need, Y shares a pack with it.
pub const X: u8 = 0;
pub const Y: u8 = 1;
pub const ONLY_X: Chunks = Set::of(&[X]);
pub const X_AND_Y: Chunks = Set::of(&[X, Y]);

/// The rules of the protocol, each of which can be taken out. `Rules::ALL` is the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A session dedups only against packs that LIST packs/ showed it. Out: against those that the index names.
    pub index_is_hint: bool,
    /// A collector waits for an ack or a cell of each session. Out: it waits for nobody.
    pub acks_awaited: bool,
    /// Acks claim what a session relies on. Out: they claim nothing.
    pub acks_claim: bool,
    /// A pack has a name of its own. Out: its name follows from its chunk, and returns.
    pub names_fresh: bool,
    /// Out: LIST packs/ comes before `open`.
    pub packs_listed_after_open: bool,
    /// Out: LIST gc/ comes before `open`.
    pub log_read_after_open: bool,
    /// Out: LIST gc/ comes after LIST packs/.
    pub log_read_before_packs: bool,
    /// The commit is created if absent. Out: it overwrites.
    pub commit_conditional: bool,
    /// Who stops waiting for a session creates its cell. Out: it just goes on.
    pub abort_binding: bool,
    /// Out: LIST sessions/ comes before the plan.
    pub sessions_listed_after_plan: bool,
    /// Out: `done` comes before the index is written anew.
    pub index_rewritten_before_done: bool,
    /// Out: `done` comes before the packs are deleted.
    pub packs_deleted_before_done: bool,
    /// Cells are listed again once all sessions are settled. Out: they are not, and nothing is rescued by it.
    pub cells_listed_again: bool,
    /// gc/<n>/ stays for ever. Out: it is deleted when done, and the number is used again.
    pub plans_stay: bool,
    /// What commits reference that the mark did not see is rescued. Out: all count as seen.
    pub uncovered_rescued: bool,
    /// The mark chooses among listed packs. Out: also among those that only the index names.
    pub choices_listed: bool,
    /// To find a pack usable and to note it is one step for the heartbeat. Out: two.
    pub hits_atomic: bool,
    /// A pack is the session's own before its put is sent. Out: once it is answered.
    pub puts_claimed_in_flight: bool,
    /// After an abort a session keeps only what its next session finds usable. Out: it keeps all.
    pub kept_packs_checked: bool,
    /// The next session relies on what it keeps, for its heartbeat too. Out: it claims only what it finds itself.
    pub kept_packs_claimed: bool,
    /// Out: a session acknowledges before LIST packs/.
    pub acknowledged_last: bool,
    /// Out: the mark's LIST snapshots/ comes before its LIST packs/.
    pub packs_listed_before_cells: bool,
    /// What covered commits reference is not rescued. Out: it is, dropped or not.
    pub covered_not_rescued: bool,
    /// A plan covers what is dropped, too. Out: only what lives.
    pub dropped_covered: bool,
    /// A forget is honoured by creating `drop`. Out: by reading it.
    pub forgets_contested: bool,
    /// Who created a `keep` looks whether the snapshot was dropped before, and the number free again. Out: is sure of it.
    pub keep_looks_again: bool,
    /// A repack opens a session, answers to rounds and ends it. Out: it lists the packs, copies, and that is all.
    pub repack_in_session: bool,
    /// Only sessions with a cell are tidied. Out: any session.
    pub tidied_after_cell: bool,
    /// A collector that finds `final` there follows it. Out: it follows its own.
    pub final_shared: bool,
    /// Out: LIST gc/ comes after the mark.
    pub round_fixed_before_mark: bool,
    /// No put of a pack is sent twice; if its outcome is unknown, its chunks get a pack of another name. Out: it is sent
    /// again. The first may then land after the pack was deleted, and whoever deletes late takes what others rely on.
    pub puts_sent_once: bool,
    /// No part of `ALL`, but puts may be sent twice with it: no session and no mark relies on what any `final` names.
    pub dead_names_shunned: bool,
}

impl Rules {
    pub const ALL: Rules = Rules {
        index_is_hint: true,
        acks_awaited: true,
        acks_claim: true,
        names_fresh: true,
        packs_listed_after_open: true,
        log_read_after_open: true,
        log_read_before_packs: true,
        commit_conditional: true,
        abort_binding: true,
        sessions_listed_after_plan: true,
        index_rewritten_before_done: true,
        packs_deleted_before_done: true,
        cells_listed_again: true,
        plans_stay: true,
        uncovered_rescued: true,
        choices_listed: true,
        hits_atomic: true,
        puts_claimed_in_flight: true,
        kept_packs_checked: true,
        kept_packs_claimed: true,
        acknowledged_last: true,
        packs_listed_before_cells: true,
        covered_not_rescued: true,
        dropped_covered: true,
        forgets_contested: true,
        keep_looks_again: true,
        repack_in_session: true,
        tidied_after_cell: true,
        final_shared: true,
        round_fixed_before_mark: true,
        puts_sent_once: true,
        dead_names_shunned: false,
    };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Commits a snapshot of these chunks.
    Backup(Chunks),
    /// Copies X into a new pack, and settles without a snapshot.
    Repack,
}

/// How much is searched: who takes part, how often, and which faults there are besides that any process may stop.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub agents: &'static [Role],
    /// Sessions that each agent may open, one after the other, when it is aborted.
    pub sessions_each: u8,
    /// Packs that each agent may put for each chunk.
    pub puts_each: u8,
    pub collectors: u8,
    pub rounds: u8,
    /// What each of the first packs holds.
    pub first_packs: &'static [Chunks],
    /// What snapshot S0 needs.
    pub first_needs: Chunks,
    /// The session whose snapshot is decided on.
    pub subject: u8,
    /// How the decisions start: `Empty`, `Forget`, `Drop`.
    pub first_decision: Decision,
    pub forgets: u8,
    pub keeps: u8,
    /// Index segments take part. They are hints: it matters only where a rule is out.
    pub index: bool,
    /// A collector may stop anywhere and another start in its place. Two collectors are that, too, but cost more.
    pub replaced: bool,
    /// Puts of packs whose sender gave up may still take effect.
    pub late_puts: bool,
    /// Deletes of packs may take effect twice.
    pub late_deletes: bool,
    /// The reply to the create of a commit may be lost: the retry finds its own nonce.
    pub lost_replies: bool,
    /// A LIST takes two requests: first these packs or sessions, by number, then the others. None: it takes one.
    pub first_page: Set,
}

impl Scope {
    /// One backup and one collector with one round; S0 was dropped, and X is in P0 alone.
    pub const LEAST: Scope = Scope {
        agents: &[Role::Backup(ONLY_X)],
        sessions_each: 1,
        puts_each: 1,
        collectors: 1,
        rounds: 1,
        first_packs: &[ONLY_X],
        first_needs: ONLY_X,
        subject: 0,
        first_decision: Decision::Drop,
        forgets: 0,
        keeps: 0,
        index: false,
        replaced: false,
        late_puts: false,
        late_deletes: false,
        lost_replies: false,
        first_page: Set::NONE,
    };

    pub fn start(&self) -> State {
        let mut state = State::default();
        for pack in 0..self.first_packs.len() as u8 {
            state.packs.add(pack);
            state.index.add(pack);
        }
        state.sessions[0].cell = Cell::Commit;
        state.decisions[0] = self.first_decision;
        for number in self.agents.len()..AGENTS {
            state.agents[number] = Agent {
                at: AgentAt::Ended,
                ..Agent::default()
            };
        }
        assert!(usize::from(self.collectors) <= COLLECTORS && usize::from(self.rounds) <= ROUNDS);
        state.forgetter.left = self.forgets;
        state.keeper.left = self.keeps;
        state
    }

    /// What the packs of an agent can hold.
    fn chunks_of(&self, agent: usize) -> Chunks {
        match self.agents[agent] {
            Role::Backup(chunks) => chunks,
            Role::Repack => ONLY_X,
        }
    }
}

/// A scope and rules, with what follows from them.
#[derive(Debug)]
pub struct Model {
    pub scope: Scope,
    pub rules: Rules,
    /// What the commit of each session references.
    needs: [Chunks; SESSIONS],
    /// The names that each agent may give to packs with each chunk.
    names: [[Packs; CHUNKS]; AGENTS],
    /// The packs, of all names, that hold each chunk.
    holders: [Packs; CHUNKS],
    /// What a collector does, in order.
    pub order: Vec<CollectorAt>,
}

impl Model {
    pub fn new(scope: Scope, rules: Rules) -> Model {
        let mut model = Model {
            scope,
            rules,
            needs: [scope.first_needs; SESSIONS],
            names: [[Set::NONE; CHUNKS]; AGENTS],
            holders: [Set::NONE; CHUNKS],
            order: order(&scope, &rules),
        };
        for (pack, chunks) in scope.first_packs.iter().enumerate() {
            chunks
                .iter()
                .for_each(|chunk| model.holders[usize::from(chunk)].add(pack as u8));
        }
        let mut pack = scope.first_packs.len() as u8;
        for agent in 0..scope.agents.len() {
            for chunk in scope.chunks_of(agent).iter().map(usize::from) {
                for _ in 0..scope.puts_each {
                    assert!(pack < 8, "a scope has at most eight packs");
                    model.names[agent][chunk].add(pack);
                    model.holders[chunk].add(pack);
                    pack += 1;
                }
            }
            for session in 0..scope.sessions_each {
                model.needs[usize::from(model.session(agent, session))] = match scope.agents[agent]
                {
                    Role::Backup(chunks) => chunks,
                    Role::Repack => Set::NONE,
                };
            }
        }
        model
    }

    pub fn session(&self, agent: usize, session: u8) -> u8 {
        1 + agent as u8 * self.scope.sessions_each + session
    }

    /// What the first or second request of a LIST shows, and whether another follows.
    pub fn page(&self, is_second: bool) -> (Set, bool) {
        let first = self.scope.first_page;
        if is_second || first.is_empty() {
            (Set(!first.0), false)
        } else {
            (first, true)
        }
    }

    /// What opened a session; not S0.
    pub fn role(&self, session: u8) -> Role {
        self.scope.agents[usize::from((session - 1) / self.scope.sessions_each)]
    }

    /// What the commits of these sessions reference.
    pub fn needs(&self, sessions: Sessions) -> Chunks {
        let needs = sessions
            .iter()
            .map(|session| self.needs[usize::from(session)]);
        needs.fold(Set::NONE, Set::and)
    }

    /// The packs, of all names, that hold any of these chunks.
    pub fn holders(&self, chunks: Chunks) -> Packs {
        let holders = chunks.iter().map(|chunk| self.holders[usize::from(chunk)]);
        holders.fold(Set::NONE, Set::and)
    }

    /// What a pack holds.
    pub fn chunks(&self, pack: u8) -> Chunks {
        let mut chunks = Set::NONE;
        for chunk in 0..CHUNKS {
            if self.holders[chunk].has(pack) {
                chunks.add(chunk as u8);
            }
        }
        chunks
    }

    /// The names that an agent may give to packs with this chunk.
    pub fn names(&self, agent: usize, chunk: u8) -> Packs {
        if self.rules.names_fresh {
            self.names[agent][usize::from(chunk)]
        } else {
            Set::of(&[chunk])
        }
    }

    /// All names of an agent.
    pub fn names_of(&self, agent: usize) -> Packs {
        let names = self.names[agent].iter();
        names.fold(Set::NONE, |all, &names| all.and(names))
    }

    /// The safety of the protocol: a snapshot that is committed and not dropped has all its chunks in packs that exist, and
    /// nobody is told otherwise.
    pub fn is_safe(&self, state: &State) -> bool {
        if state.told_wrongly {
            return false;
        }
        let mut commits = state.commits();
        // Without the contest nobody creates `drop`: a forget may then be honoured until a `keep` follows it.
        let forgotten =
            !self.rules.forgets_contested && state.last_decision().0 == Decision::Forget;
        if state.is_dropped() || forgotten {
            commits.remove(self.scope.subject);
        }
        let mut chunks = self.needs(commits).iter();
        chunks.all(|chunk| !self.holders(Set::of(&[chunk])).both(state.packs).is_empty())
    }
}
