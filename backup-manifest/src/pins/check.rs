use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use backup_core::{RepositoryId, SessionId};

use super::{PINS_PER_SOURCE_MAX, Pin, Pins, PinsError};
use crate::snapshot::Previous;

/// The cell of a snapshot as a link in the chain of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; a caller has to think of each field"
)]
pub struct ChainCell {
    /// The snapshot.
    pub id: SessionId,
    /// The name of its source.
    pub source: String,
    /// The snapshot that it says was before it.
    pub previous: Option<Previous>,
    /// BLAKE3 of the cell as stored.
    pub hash: [u8; 32],
    /// Whether the snapshot is given up. Its cell stays, and so does its place in the chain.
    pub retired: bool,
}

/// What a check found: values, none of which stopped it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinReport {
    /// Sources that are as they were.
    pub unchanged: Vec<String>,
    /// Sources that have new snapshots, which go on from what was known.
    pub advanced: Vec<String>,
    /// What there is to tell, by source. A source with an alarm is in neither of the lists above.
    pub findings: Vec<PinFinding>,
    pins: Pins,
}

/// One thing that a check found. `Display` is for people, names are escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinFinding {
    /// Nothing was known of this source: newer snapshots may have been withheld. No alarm.
    Unpinned {
        /// The name of the source.
        source: String,
    },
    /// A snapshot that is remembered is not there, and none that is there was made after it.
    RollbackDetected {
        /// The name of the source.
        source: String,
        /// What is remembered.
        pinned: Pin,
    },
    /// There are two cells of one snapshot, though cells are written once.
    ForkDetected {
        /// The name of the source.
        source: String,
        /// The snapshot.
        snapshot: SessionId,
        /// The hash of the cell that is remembered, or that a later snapshot was made after.
        expected: [u8; 32],
        /// The hash of the cell that is there, or that another later snapshot was made after.
        found: [u8; 32],
    },
    /// A snapshot was made after one that is not there. Cells are kept even when snapshots are given up.
    ChainGap {
        /// The name of the source.
        source: String,
        /// The snapshot that is not there.
        missing: SessionId,
        /// The one that was made after it.
        named_by: SessionId,
    },
    /// Several snapshots, some of them new, were made after the same one: at the same time, by a wrong clock, or by a
    /// writer that was shown an old state. No alarm, since the first two are honest.
    TwoSuccessors {
        /// The name of the source.
        source: String,
        /// The snapshot before them; `None` when they say that there was none.
        predecessor: Option<SessionId>,
        /// Those that are not given up, at least two, by id.
        successors: Vec<SessionId>,
    },
}

impl Pins {
    /// Compares what is remembered with `cells`: those of **all** snapshots that the store shows, in any order, given
    /// up or not, but not the ones that say `aborted`.
    ///
    /// A cell that cannot be read is left out, and counts as missing. A snapshot before that is of another source counts
    /// as missing too. A source that is remembered and has no cells was rolled back.
    ///
    /// # Errors
    /// [`PinsError::OtherRepository`]: whoever asked meant this repository, and got another.
    pub fn check(
        &self,
        repository: RepositoryId,
        cells: &[ChainCell],
    ) -> Result<PinReport, PinsError> {
        if repository != self.repository {
            return Err(PinsError::OtherRepository {
                pinned: self.repository,
                found: repository,
            });
        }
        let known = self.sources.keys();
        let mut sources: BTreeMap<&str, Vec<&ChainCell>> =
            known.map(|source| (source.as_str(), vec![])).collect();
        for cell in cells {
            sources.entry(&cell.source).or_default().push(cell);
        }
        let mut report = PinReport {
            unchanged: Vec::new(),
            advanced: Vec::new(),
            findings: Vec::new(),
            pins: self.clone(),
        };
        let nothing = BTreeMap::new();
        for (source, cells) in sources {
            let pinned = self.sources.get(source).unwrap_or(&nothing);
            report.add_source(source, &Chain::new(cells, pinned));
        }
        Ok(report)
    }
}

impl PinReport {
    /// Whether there is no alarm.
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(PinFinding::is_alarm)
    }

    /// The pins to remember after this check.
    ///
    /// They never go back: what was remembered is in them, or has something after it that is. This holds after an alarm
    /// as well: what is missing stays, and raises the alarm again until it is back or [forgotten](Pins::forget).
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    fn add_source(&mut self, source: &str, chain: &Chain<'_>) {
        let findings = chain.findings(source);
        let alarm = findings.iter().any(PinFinding::is_alarm);
        self.findings.extend(findings);
        let newest = chain.newest();
        match (alarm || chain.pinned.is_empty(), newest == *chain.pinned) {
            (true, _) => {}
            (false, true) => self.unchanged.push(source.to_owned()),
            (false, false) => self.advanced.push(source.to_owned()),
        }
        if !newest.is_empty() {
            self.pins.sources.insert(source.to_owned(), newest);
        }
    }
}

impl PinFinding {
    /// Whether the store, or a writer, did what no honest one does.
    pub fn is_alarm(&self) -> bool {
        !matches!(self, Self::Unpinned { .. } | Self::TwoSuccessors { .. })
    }

    /// The name of the source.
    pub fn source(&self) -> &str {
        match self {
            Self::Unpinned { source }
            | Self::RollbackDetected { source, .. }
            | Self::ForkDetected { source, .. }
            | Self::ChainGap { source, .. }
            | Self::TwoSuccessors { source, .. } => source,
        }
    }
}

impl fmt::Display for PinFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source();
        match self {
            Self::Unpinned { .. } => write!(
                f,
                "source {source:?} is seen for the first time: newer snapshots may have been withheld"
            ),
            Self::RollbackDetected { pinned, .. } => {
                write!(
                    f,
                    "source {source:?} was rolled back: snapshot {} is gone",
                    pinned.id
                )
            }
            Self::ForkDetected { snapshot, .. } => write!(
                f,
                "snapshot {snapshot} of source {source:?} is not the one that was there"
            ),
            Self::ChainGap {
                missing, named_by, ..
            } => write!(
                f,
                "snapshot {missing} of source {source:?} is missing: {named_by} was made after it"
            ),
            Self::TwoSuccessors {
                predecessor,
                successors,
                ..
            } => {
                let count = successors.len();
                match predecessor {
                    Some(id) => write!(f, "{count} snapshots of {source:?} were made after {id}")?,
                    None => write!(
                        f,
                        "{count} snapshots of {source:?} say that they are the first"
                    )?,
                }
                f.write_str(": at the same time, or a writer was shown an old state")
            }
        }
    }
}

/// The cells of one source, and how they hang together.
struct Chain<'a> {
    /// What is remembered; empty when nothing is.
    pinned: &'a BTreeMap<SessionId, [u8; 32]>,
    cells: BTreeMap<SessionId, &'a ChainCell>,
    /// Who was made after what, as far as the hash is right as well.
    successors: BTreeMap<Option<SessionId>, Vec<&'a ChainCell>>,
    /// Of each snapshot that is remembered, listed or named as the one before: the hash met first, and another one.
    hashes: BTreeMap<SessionId, ([u8; 32], Option<[u8; 32]>)>,
}

impl<'a> Chain<'a> {
    fn new(mut listed: Vec<&'a ChainCell>, pinned: &'a BTreeMap<SessionId, [u8; 32]>) -> Self {
        // In one order, so that the same cells give the same report however they were listed.
        listed.sort_by_key(|cell| {
            let previous = cell.previous.map(|previous| (previous.id, previous.hash));
            (cell.id, cell.hash, previous, cell.retired)
        });
        let mut chain = Self {
            pinned,
            cells: listed.iter().rev().map(|cell| (cell.id, *cell)).collect(),
            successors: BTreeMap::new(),
            hashes: BTreeMap::new(),
        };
        // Memory has the first word, then later snapshots, then what the store shows.
        let links = listed.iter().filter_map(|cell| cell.previous);
        let remembered = pinned.iter().map(|(id, hash)| (*id, *hash));
        let seen = remembered
            .chain(links.map(|previous| (previous.id, previous.hash)))
            .chain(listed.iter().map(|cell| (cell.id, cell.hash)));
        for (id, hash) in seen {
            let (first, other) = chain.hashes.entry(id).or_insert((hash, None));
            if *first != hash {
                other.get_or_insert(hash);
            }
        }
        for cell in chain.cells.values() {
            let before = chain.before(cell).map(|before| before.id);
            if before.is_some() || cell.previous.is_none() {
                chain.successors.entry(before).or_default().push(cell);
            }
        }
        chain
    }

    /// The cell that `cell` was made after, when it is there and the same one.
    fn before(&self, cell: &ChainCell) -> Option<&'a ChainCell> {
        let previous = cell.previous?;
        self.listed(previous.id, previous.hash)
    }

    fn listed(&self, id: SessionId, hash: [u8; 32]) -> Option<&'a ChainCell> {
        self.cells
            .get(&id)
            .copied()
            .filter(|cell| cell.hash == hash)
    }

    /// What to remember: the ends of the chain, and what was remembered and is not there.
    fn newest(&self) -> BTreeMap<SessionId, [u8; 32]> {
        let missing = self.pinned.iter().map(|(id, hash)| (*id, *hash));
        let mut newest: BTreeMap<_, _> = missing
            .filter(|(id, hash)| self.listed(*id, *hash).is_none())
            .collect();
        let room = PINS_PER_SOURCE_MAX.saturating_sub(newest.len());
        let ends = self.cells.values().rev();
        let ends = ends.filter(|cell| !self.successors.contains_key(&Some(cell.id)));
        // Of too many ends those with the greatest names: it decides what can be noticed later, not what is believed.
        for cell in ends.take(room) {
            newest.entry(cell.id).or_insert(cell.hash);
        }
        newest
    }

    fn findings(&self, source: &str) -> Vec<PinFinding> {
        let source = || source.to_owned();
        let mut findings = Vec::new();
        if self.pinned.is_empty() {
            findings.push(PinFinding::Unpinned { source: source() });
        }
        let links = || {
            let cells = self.cells.values();
            cells.filter_map(|cell| cell.previous.map(|previous| (previous.id, cell.id)))
        };
        let named: BTreeSet<SessionId> = links().map(|(named, _)| named).collect();
        let is_gone = |id| !self.cells.contains_key(id) && !named.contains(id);
        for (&id, &hash) in self.pinned.iter().filter(|(id, _)| is_gone(id)) {
            findings.push(PinFinding::RollbackDetected {
                source: source(),
                pinned: Pin { id, hash },
            });
        }
        for (&snapshot, &(expected, other)) in &self.hashes {
            findings.extend(other.map(|found| PinFinding::ForkDetected {
                source: source(),
                snapshot,
                expected,
                found,
            }));
        }
        for (missing, named_by) in links().filter(|(named, _)| !self.cells.contains_key(named)) {
            findings.push(PinFinding::ChainGap {
                source: source(),
                missing,
                named_by,
            });
        }
        let known = self.known();
        for (&predecessor, cells) in &self.successors {
            let live = cells.iter().filter(|cell| !cell.retired);
            let successors: Vec<SessionId> = live.map(|cell| cell.id).collect();
            if successors.len() > 1 && successors.iter().any(|id| !known.contains(id)) {
                findings.push(PinFinding::TwoSuccessors {
                    source: source(),
                    predecessor,
                    successors,
                });
            }
        }
        findings
    }

    /// What is remembered and there, and everything before it: forks among these were told when they were new.
    fn known(&self) -> BTreeSet<SessionId> {
        let mut known = BTreeSet::new();
        for (id, hash) in self.pinned {
            let mut next = self.listed(*id, *hash);
            // Stops where another pin was already, and would stop in a ring.
            while let Some(cell) = next.filter(|cell| known.insert(cell.id)) {
                next = self.before(cell);
            }
        }
        known
    }
}
