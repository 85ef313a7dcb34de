use super::scope::{ONLY_X, Role, Scope, X_AND_Y};
use super::state::{Decision, Set};

pub const BACKUP: Role = Role::Backup(ONLY_X);

/// Two copies of X, of which a mark chooses one, for a snapshot that lives.
pub const TWO_COPIES: Scope = Scope {
    first_packs: &[ONLY_X, ONLY_X],
    first_decision: Decision::Empty,
    ..Scope::LEAST
};

/// After an abort a backup goes on in a second session, with packs of new names.
pub const TWO_SESSIONS: Scope = Scope {
    sessions_each: 2,
    puts_each: 2,
    ..Scope::LEAST
};

/// X lives and shares P0 with Y, which does not, so that a repack makes sense.
pub const POOR_PACK: Scope = Scope {
    first_packs: &[X_AND_Y],
    first_decision: Decision::Empty,
    rounds: 2,
    ..Scope::LEAST
};

/// The snapshot of the first backup is decided on, and there is no other before it.
pub const OWN_SNAPSHOT: Scope = Scope {
    first_needs: Set::NONE,
    first_decision: Decision::Empty,
    subject: 1,
    forgets: 1,
    keeps: 1,
    rounds: 2,
    ..Scope::LEAST
};

/// Marks at work with a copy to choose, and nobody else.
pub const MARKS: Scope = Scope {
    agents: &[],
    collectors: 2,
    rounds: 2,
    ..TWO_COPIES
};
pub const DECISIONS: Scope = Scope {
    agents: &[],
    first_decision: Decision::Empty,
    forgets: 1,
    keeps: 1,
    ..Scope::LEAST
};
pub const WITH_INDEX: Scope = Scope {
    index: true,
    ..Scope::LEAST
};
pub const STALE_INDEX: Scope = Scope {
    index: true,
    ..TWO_SESSIONS
};
pub const STALE_CHOICE: Scope = Scope {
    index: true,
    rounds: 2,
    ..TWO_COPIES
};
pub const SECOND_ROUND: Scope = Scope {
    rounds: 2,
    ..TWO_SESSIONS
};
pub const HELPER: Scope = Scope {
    collectors: 2,
    ..TWO_SESSIONS
};
pub const LATE_DELETES: Scope = Scope {
    late_deletes: true,
    ..TWO_SESSIONS
};
pub const LEAST: Scope = Scope::LEAST;

/// Every feature and every fault is in one of these.
pub const SCOPES: &[(&str, Scope)] = &[
    (
        "1 backup, 2 rounds, index, late requests",
        Scope {
            rounds: 2,
            index: true,
            late_puts: true,
            late_deletes: true,
            lost_replies: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 rounds, collectors replaced",
        Scope {
            rounds: 2,
            replaced: true,
            late_deletes: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds",
        Scope {
            collectors: 2,
            rounds: 2,
            lost_replies: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, two copies",
        Scope {
            collectors: 2,
            rounds: 2,
            sessions_each: 2,
            puts_each: 2,
            ..TWO_COPIES
        },
    ),
    (
        "1 backup of two chunks, 2 collectors, 2 rounds",
        Scope {
            agents: &[Role::Backup(X_AND_Y)],
            first_packs: &[X_AND_Y],
            collectors: 2,
            rounds: 2,
            ..TWO_SESSIONS
        },
    ),
    (
        "2 backups, 2 rounds",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 2,
            ..Scope::LEAST
        },
    ),
    (
        "2 backups, 2 rounds, collectors replaced",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 2,
            replaced: true,
            ..Scope::LEAST
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds",
        Scope {
            agents: &[BACKUP, Role::Repack],
            ..POOR_PACK
        },
    ),
    (
        "1 repack, 2 collectors, 2 rounds, decisions",
        Scope {
            agents: &[Role::Repack],
            collectors: 2,
            forgets: 1,
            keeps: 1,
            ..POOR_PACK
        },
    ),
    (
        "1 backup, 2 rounds, decisions",
        Scope {
            rounds: 2,
            first_decision: Decision::Empty,
            forgets: 2,
            keeps: 1,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, decisions on it",
        Scope {
            collectors: 2,
            ..OWN_SNAPSHOT
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, two copies, LISTs of two pages",
        Scope {
            collectors: 2,
            rounds: 2,
            first_page: Set::of(&[0, 2]),
            ..TWO_COPIES
        },
    ),
    (
        "2 backups, 1 round, LISTs of two pages",
        Scope {
            agents: &[BACKUP, BACKUP],
            first_page: Set::of(&[0, 2, 4]),
            ..Scope::LEAST
        },
    ),
];

/// What takes longer.
pub const LARGER_SCOPES: &[(&str, Scope)] = &[
    (
        "1 backup, 3 rounds, index, late requests",
        Scope {
            rounds: 3,
            index: true,
            late_puts: true,
            late_deletes: true,
            lost_replies: true,
            ..TWO_SESSIONS
        },
    ),
    (
        "2 backups, 2 collectors, 2 rounds",
        Scope {
            agents: &[BACKUP, BACKUP],
            collectors: 2,
            rounds: 2,
            ..Scope::LEAST
        },
    ),
    (
        "2 backups, 2 rounds, 2 sessions each",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 2,
            ..TWO_SESSIONS
        },
    ),
    (
        "2 backups, 3 rounds",
        Scope {
            agents: &[BACKUP, BACKUP],
            rounds: 3,
            late_deletes: true,
            ..Scope::LEAST
        },
    ),
    (
        "1 backup, 2 collectors, 2 rounds, two copies, decisions",
        Scope {
            collectors: 2,
            rounds: 2,
            forgets: 1,
            keeps: 1,
            ..TWO_COPIES
        },
    ),
    (
        "1 backup, 2 collectors, 3 rounds, two copies",
        Scope {
            collectors: 2,
            rounds: 3,
            first_packs: &[ONLY_X, ONLY_X],
            first_decision: Decision::Empty,
            ..TWO_SESSIONS
        },
    ),
    (
        "1 backup, 1 repack, 2 collectors, 2 rounds",
        Scope {
            agents: &[BACKUP, Role::Repack],
            collectors: 2,
            ..POOR_PACK
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds, decisions",
        Scope {
            agents: &[BACKUP, Role::Repack],
            forgets: 1,
            keeps: 1,
            ..POOR_PACK
        },
    ),
    (
        "2 backups, 2 rounds, decisions on the first",
        Scope {
            agents: &[BACKUP, BACKUP],
            ..OWN_SNAPSHOT
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds, decisions on the backup",
        Scope {
            agents: &[BACKUP, Role::Repack],
            ..OWN_SNAPSHOT
        },
    ),
    (
        "1 backup, 1 repack, 2 rounds, LISTs of two pages",
        Scope {
            agents: &[BACKUP, Role::Repack],
            first_page: Set::of(&[0, 2]),
            ..POOR_PACK
        },
    ),
];
