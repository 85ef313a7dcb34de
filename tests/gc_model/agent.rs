use super::moves::{About, Moves};
use super::scope::{Model, ONLY_X, Role};
use super::state::{Agent, AgentAt, Cell, Packs, Set, State};

/// A request of the opening of a session. **Their order carries the proof.**
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opening {
    Open,
    ReadLog,
    ListPacks,
    Acknowledge,
}

fn opening(model: &Model, number: usize) -> &'static [Opening] {
    use Opening::*;
    if !has_session(model, number) {
        &[ListPacks]
    } else if !model.rules.packs_listed_after_open {
        &[ListPacks, Open, ReadLog, Acknowledge]
    } else if !model.rules.log_read_after_open {
        &[ReadLog, Open, ListPacks, Acknowledge]
    } else if !model.rules.log_read_before_packs {
        &[Open, ListPacks, ReadLog, Acknowledge]
    } else if !model.rules.acknowledged_last {
        &[Open, ReadLog, Acknowledge, ListPacks]
    } else {
        &[Open, ReadLog, ListPacks, Acknowledge]
    }
}

/// The next step of an agent but for its heartbeat.
pub fn work(moves: &mut Moves<'_>, number: usize) {
    let agent = moves.from.agents[number];
    let needs = chunks(moves.model, number);
    let held = |pack| moves.model.chunks(pack).both(needs);
    match agent.at {
        AgentAt::Opening(step) => open(moves, number, step),
        AgentAt::Running => match needs.without(agent.found).first() {
            Some(chunk) => look_up(moves, number, chunk),
            None if has_session(moves.model, number) => settle(moves, number),
            None => {}
        },
        AgentAt::Checked(pack) => {
            let held = held(pack);
            moves.step("notes the hit", About::Pack(pack), |s| {
                rely(&mut s.agents[number], pack, held);
            });
        }
        AgentAt::Uploading(pack) => upload(moves, number, pack),
        AgentAt::Naming(pack) => {
            let held = held(pack);
            moves.step("put index/<i>", About::Pack(pack), |s| {
                s.index.add(pack);
                stored(&mut s.agents[number], pack, held);
            });
        }
        AgentAt::Ended => {}
    }
}

fn has_session(model: &Model, number: usize) -> bool {
    model.scope.agents[number] != Role::Repack || model.rules.repack_in_session
}

/// What an agent looks up, one chunk after the other.
fn chunks(model: &Model, number: usize) -> Set {
    match model.scope.agents[number] {
        Role::Backup(chunks) => chunks,
        Role::Repack => ONLY_X,
    }
}

/// Steps 1 to 5 of a writer.
fn open(moves: &mut Moves<'_>, number: usize, step: u8) {
    let model = moves.model;
    let agent = moves.from.agents[number];
    let session = model.session(number, agent.session);
    match opening(model, number)[usize::from(step)] {
        Opening::Open => {
            moves.step("create sessions/<s>/open", About::Session(session), |s| {
                s.sessions[usize::from(session)].open = true;
                go_on(s, model, number);
            });
        }
        // One step: what LIST shows is written once, so that it does not matter when it is read.
        Opening::ReadLog => {
            let (newest, shunned) = (moves.from.newest(), shunned(model, moves.from));
            let about = About::RoundAndPacks(newest, shunned);
            moves.step("LIST gc/, read plan or final", about, |s| {
                s.agents[number].known = newest;
                s.agents[number].shunned = shunned;
                go_on(s, model, number);
            });
        }
        Opening::ListPacks => {
            let (what, listed) = if model.rules.index_is_hint {
                ("LIST packs/", moves.from.packs)
            } else {
                ("read the index", moves.from.index)
            };
            let (page, continues) = model.page(agent.page);
            let listed = listed.both(page);
            moves.step(what, About::Packs(listed), |s| {
                let agent = &mut s.agents[number];
                agent.usable = agent.usable.and(listed);
                agent.page = continues;
                if !continues {
                    go_on(s, model, number);
                }
            });
        }
        Opening::Acknowledge => {
            let about = About::Round(agent.known);
            moves.step("create sessions/<s>/ack/<n>, the first", about, |s| {
                let session = &mut s.sessions[usize::from(session)];
                session.acked = session.acked.max(agent.known + 1);
                go_on(s, model, number);
            });
        }
    }
}

/// C: the packs of rounds that are not done, by their final if there is one, else by their plan.
fn shunned(model: &Model, state: &State) -> Packs {
    let mut shunned = Set::NONE;
    for round in &state.rounds {
        if round.planned && (!round.done || model.rules.dead_names_shunned) {
            let packs = if round.decided {
                round.doomed
            } else {
                round.condemned
            };
            shunned = shunned.and(packs);
        }
    }
    shunned
}

/// To the next request of the opening, or to work.
fn go_on(state: &mut State, model: &Model, number: usize) {
    let agent = &mut state.agents[number];
    match agent.at {
        AgentAt::Opening(step) if usize::from(step) + 1 < opening(model, number).len() => {
            agent.at = AgentAt::Opening(step + 1);
        }
        _ => begin(agent, model),
    }
}

/// The session is open. After an abort the run goes on if all that it relies on is usable, and else starts over.
fn begin(agent: &mut Agent, model: &Model) {
    agent.usable = agent.usable.without(agent.shunned);
    agent.shunned = Set::NONE;
    agent.at = AgentAt::Running;
    let kept = agent.relied.and(agent.own).within(agent.usable);
    if !kept && model.rules.kept_packs_checked {
        agent.relied = Set::NONE;
        agent.own = Set::NONE;
        agent.found = Set::NONE;
    } else if !model.rules.kept_packs_claimed {
        agent.relied = Set::NONE;
        agent.own = Set::NONE;
    }
}

/// A hit in a usable pack, or a put. A hit is never a must: the index may not name the pack.
fn look_up(moves: &mut Moves<'_>, number: usize, chunk: u8) {
    let model = moves.model;
    let agent = moves.from.agents[number];
    let needs = chunks(model, number);
    let holding = agent.usable.both(model.holders(Set::of(&[chunk])));
    let repacks = model.scope.agents[number] == Role::Repack;
    let name = model.names(number, chunk).without(agent.spent).first();
    for pack in holding.iter() {
        if repacks {
            // Reads the pack, if it is still there, and puts what lives into a new one.
            if let Some(name) = name.filter(|_| moves.from.packs.has(pack)) {
                moves.step("GET packs/<p>, to copy it", About::Pack(pack), |s| {
                    s.agents[number].relied.add(pack);
                    start_put(&mut s.agents[number], name, model);
                });
            }
        } else if model.rules.hits_atomic {
            let held = model.chunks(pack).both(needs);
            moves.step("hit", About::Pack(pack), |s| {
                rely(&mut s.agents[number], pack, held);
            });
        } else {
            moves.step("finds usable", About::Pack(pack), |s| {
                s.agents[number].at = AgentAt::Checked(pack);
            });
        }
    }
    if let Some(name) = name.filter(|_| !repacks) {
        moves.step("starts put of packs/<p>", About::Pack(name), |s| {
            start_put(&mut s.agents[number], name, model);
        });
    }
}

fn rely(agent: &mut Agent, pack: u8, chunks: Set) {
    agent.relied.add(pack);
    agent.found = agent.found.and(chunks);
    agent.at = AgentAt::Running;
}

fn start_put(agent: &mut Agent, pack: u8, model: &Model) {
    agent.spent.add(pack);
    if model.rules.puts_claimed_in_flight {
        agent.own.add(pack);
    }
    agent.at = AgentAt::Uploading(pack);
}

fn upload(moves: &mut Moves<'_>, number: usize, pack: u8) {
    let model = moves.model;
    let held = model.chunks(pack).both(chunks(model, number));
    let answered_later = model.scope.index || !model.rules.puts_claimed_in_flight;
    let land = |s: &mut State| {
        s.packs.add(pack);
        if answered_later {
            s.agents[number].at = AgentAt::Naming(pack);
        } else {
            stored(&mut s.agents[number], pack, held);
        }
    };
    moves.step("put packs/<p>", About::Pack(pack), land);
    if !model.rules.puts_sent_once {
        moves.step("put packs/<p>, sent twice", About::Pack(pack), |s| {
            s.late_puts.add(pack);
            land(s);
        });
    }
    if model.scope.late_puts {
        // Its outcome stays unknown: the chunk gets a pack of another name.
        moves.step("gives up put of packs/<p>", About::Pack(pack), |s| {
            s.late_puts.add(pack);
            s.agents[number].at = AgentAt::Running;
        });
    }
}

fn stored(agent: &mut Agent, pack: u8, chunks: Set) {
    agent.own.add(pack);
    agent.found = agent.found.and(chunks);
    agent.at = AgentAt::Running;
}

/// Step 8 of a writer; a repack settles its session without a snapshot.
fn settle(moves: &mut Moves<'_>, number: usize) {
    let model = moves.model;
    let agent = moves.from.agents[number];
    let session = model.session(number, agent.session);
    let repacks = model.scope.agents[number] == Role::Repack;
    let cell = moves.from.sessions[usize::from(session)].cell;
    let (what, word) = if repacks {
        ("create snapshots/<s> = aborted", Cell::Aborted)
    } else {
        ("create snapshots/<s> = commit", Cell::Commit)
    };
    // A commit that is there can only be its own: the reply to an earlier try was lost.
    let created = cell != Cell::Aborted || !model.rules.commit_conditional;
    if model.scope.lost_replies && cell == Cell::Empty {
        moves.step(
            "create snapshots/<s>, reply lost",
            About::Session(session),
            |s| {
                s.sessions[usize::from(session)].cell = word;
            },
        );
    }
    moves.step(what, About::Session(session), |s| {
        let agent = &mut s.agents[number];
        if created {
            s.sessions[usize::from(session)].cell = word;
        }
        if created || repacks || agent.session + 1 == model.scope.sessions_each {
            // An ack whose create is under way may still land.
            *agent = Agent {
                at: AgentAt::Ended,
                session: agent.session,
                acking: agent.acking,
                claims: agent.claims,
                ..Agent::default()
            };
        } else {
            agent.session += 1;
            agent.known = 0;
            agent.usable = Set::NONE;
            agent.acking = 0;
            agent.claims = Set::NONE;
            agent.at = AgentAt::Opening(0);
        }
    });
}

/// Runs beside the work from the opening until the cell is decided: learns of rounds, and claims.
pub fn heartbeat(moves: &mut Moves<'_>, number: usize) {
    let agent = moves.from.agents[number];
    let session = usize::from(moves.model.session(number, agent.session));
    let claims_allowed = moves.model.rules.acks_claim;
    if agent.acking != 0 {
        let about = About::RoundAndPacks(agent.acking, agent.claims);
        moves.step("create sessions/<s>/ack/<n>", about, |s| {
            let session = &mut s.sessions[session];
            session.acked = session.acked.max(agent.acking + 1);
            session.claims[usize::from(agent.acking) - 1] = agent.claims;
            s.agents[number].acking = 0;
            s.agents[number].claims = Set::NONE;
        });
        return;
    }
    let is_opening = matches!(agent.at, AgentAt::Opening(_));
    if is_opening || agent.at == AgentAt::Ended || !has_session(moves.model, number) {
        return;
    }
    let round = agent.known + 1;
    if moves.from.newest() >= round {
        let condemned = moves.from.round(round).condemned;
        let about = About::RoundAndPacks(round, condemned);
        moves.step("reads gc/<n>/plan", about, |s| {
            let agent = &mut s.agents[number];
            agent.usable = agent.usable.without(condemned);
            agent.known = round;
            agent.acking = round;
            if claims_allowed {
                agent.claims = agent.relied.and(agent.own).both(condemned);
            }
        });
    }
}
