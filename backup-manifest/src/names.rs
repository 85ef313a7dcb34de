use std::fmt;
use std::str::FromStr;

use backup_core::{PackId, SegmentId, SessionId, SlotId, SourceTag};
use thiserror::Error;

/// The key of the repository's configuration.
pub const CONFIG: &str = "config";
/// What the keys of all key slots start with.
pub const KEYS_PREFIX: &str = "keys/";
/// What the keys of all packs start with.
pub const PACKS_PREFIX: &str = "packs/";
/// What the keys of all index segments start with.
pub const INDEX_PREFIX: &str = "index/";
/// What the keys of all sessions start with.
pub const SESSIONS_PREFIX: &str = "sessions/";
/// What the keys of all snapshot cells start with.
pub const SNAPSHOTS_PREFIX: &str = "snapshots/";
/// What the keys of all decisions about snapshots start with.
pub const RETIRED_PREFIX: &str = "retired/";
/// What the keys of all marks on damaged packs start with.
pub const DAMAGED_PREFIX: &str = "damaged/";
/// What the keys of all rounds of collection start with.
pub const GC_PREFIX: &str = "gc/";

/// An object of a repository, by its key. `Display` is the key, `FromStr` accepts exactly what `Display` gives.
///
/// Keys are made of `[0-9a-z/-]` only. Numbers have 20 digits, so that listings come in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectName {
    /// `config`
    Config,
    /// `keys/<16 hex>`
    Slot(SlotId),
    /// `packs/<2 hex>/<64 hex>`
    Pack(PackId),
    /// `index/<64 hex>`
    Segment(SegmentId),
    /// `sessions/<id>/open`
    SessionOpen(SessionId),
    /// `sessions/<id>/ack/<round>`
    SessionAck(SessionId, u64),
    /// `sessions/<id>/beat/<number>`
    SessionBeat(SessionId, u64),
    /// `snapshots/<id>`
    Snapshot(SessionId),
    /// `retired/<id>/<number>`
    Decision(SessionId, u64),
    /// `retired/<id>/gone`
    Gone(SessionId),
    /// `damaged/<64 hex>`
    Damaged(PackId),
    /// `gc/<round>/plan`
    GcPlan(u64),
    /// `gc/<round>/final`
    GcFinal(u64),
    /// `gc/<round>/done`
    GcDone(u64),
}

/// The key is that of no object of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} is the name of no object of a repository", key.escape_debug())]
#[non_exhaustive]
pub struct NameError {
    /// The key.
    pub key: String,
}

/// `keys/<16 hex>`
pub fn slot_key(slot: &SlotId) -> String {
    ObjectName::Slot(*slot).to_string()
}

/// `packs/<2 hex>/<64 hex>`
pub fn pack_key(pack: &PackId) -> String {
    ObjectName::Pack(*pack).to_string()
}

/// `index/<64 hex>`
pub fn segment_key(segment: &SegmentId) -> String {
    ObjectName::Segment(*segment).to_string()
}

/// `sessions/<id>/open`
pub fn session_open_key(session: &SessionId) -> String {
    ObjectName::SessionOpen(*session).to_string()
}

/// `sessions/<id>/ack/<round>`
pub fn session_ack_key(session: &SessionId, round: u64) -> String {
    ObjectName::SessionAck(*session, round).to_string()
}

/// `sessions/<id>/beat/<number>`
pub fn session_beat_key(session: &SessionId, number: u64) -> String {
    ObjectName::SessionBeat(*session, number).to_string()
}

/// `snapshots/<id>`
pub fn snapshot_key(session: &SessionId) -> String {
    ObjectName::Snapshot(*session).to_string()
}

/// `retired/<id>/<number>`
pub fn decision_key(snapshot: &SessionId, number: u64) -> String {
    ObjectName::Decision(*snapshot, number).to_string()
}

/// `retired/<id>/gone`
pub fn gone_key(snapshot: &SessionId) -> String {
    ObjectName::Gone(*snapshot).to_string()
}

/// `damaged/<64 hex>`
pub fn damaged_key(pack: &PackId) -> String {
    ObjectName::Damaged(*pack).to_string()
}

/// `gc/<round>/plan`
pub fn gc_plan_key(round: u64) -> String {
    ObjectName::GcPlan(round).to_string()
}

/// `gc/<round>/final`
pub fn gc_final_key(round: u64) -> String {
    ObjectName::GcFinal(round).to_string()
}

/// `gc/<round>/done`
pub fn gc_done_key(round: u64) -> String {
    ObjectName::GcDone(round).to_string()
}

/// What the keys of the packs start with whose id starts with `first`: one of 256 parts to list in parallel.
pub fn packs_prefix(first: u8) -> String {
    format!("{PACKS_PREFIX}{first:02x}/")
}

/// What the keys of all decisions about one snapshot start with.
pub fn decisions_prefix(snapshot: &SessionId) -> String {
    format!("{RETIRED_PREFIX}{snapshot}/")
}

/// What the keys of one session's objects start with.
pub fn session_prefix(session: &SessionId) -> String {
    format!("{SESSIONS_PREFIX}{session}/")
}

/// What the keys of the snapshot cells of one source start with; they list from oldest to newest.
pub fn snapshots_of_source_prefix(source: SourceTag) -> String {
    format!("{SNAPSHOTS_PREFIX}{source}-")
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str(CONFIG),
            Self::Slot(slot) => write!(f, "{KEYS_PREFIX}{slot}"),
            Self::Pack(pack) => {
                let [first, ..] = pack.as_bytes();
                write!(f, "{PACKS_PREFIX}{first:02x}/{pack}")
            }
            Self::Segment(segment) => write!(f, "{INDEX_PREFIX}{segment}"),
            Self::SessionOpen(session) => write!(f, "{SESSIONS_PREFIX}{session}/open"),
            Self::SessionAck(session, round) => {
                write!(f, "{SESSIONS_PREFIX}{session}/ack/{round:020}")
            }
            Self::SessionBeat(session, number) => {
                write!(f, "{SESSIONS_PREFIX}{session}/beat/{number:020}")
            }
            Self::Snapshot(session) => write!(f, "{SNAPSHOTS_PREFIX}{session}"),
            Self::Decision(snapshot, number) => {
                write!(f, "{RETIRED_PREFIX}{snapshot}/{number:020}")
            }
            Self::Gone(snapshot) => write!(f, "{RETIRED_PREFIX}{snapshot}/gone"),
            Self::Damaged(pack) => write!(f, "{DAMAGED_PREFIX}{pack}"),
            Self::GcPlan(round) => write!(f, "{GC_PREFIX}{round:020}/plan"),
            Self::GcFinal(round) => write!(f, "{GC_PREFIX}{round:020}/final"),
            Self::GcDone(round) => write!(f, "{GC_PREFIX}{round:020}/done"),
        }
    }
}

impl FromStr for ObjectName {
    type Err = NameError;

    fn from_str(key: &str) -> Result<Self, NameError> {
        parse(key).ok_or_else(|| NameError {
            key: key.to_owned(),
        })
    }
}

fn parse(key: &str) -> Option<ObjectName> {
    let mut parts = key.split('/');
    let part = [parts.next(), parts.next(), parts.next(), parts.next()];
    if parts.next().is_some() {
        return None;
    }
    match part {
        [Some("config"), None, ..] => Some(ObjectName::Config),
        [Some("keys"), Some(slot), None, _] => slot.parse().ok().map(ObjectName::Slot),
        [Some("packs"), Some(first), Some(pack), None] if pack.get(..2) == Some(first) => {
            pack.parse().ok().map(ObjectName::Pack)
        }
        [Some("index"), Some(segment), None, _] => segment.parse().ok().map(ObjectName::Segment),
        [Some("snapshots"), Some(session), None, _] => {
            session.parse().ok().map(ObjectName::Snapshot)
        }
        [Some("retired"), Some(session), Some("gone"), None] => {
            session.parse().ok().map(ObjectName::Gone)
        }
        [Some("retired"), Some(session), Some(decision), None] => Some(ObjectName::Decision(
            session.parse().ok()?,
            number(decision)?,
        )),
        [Some("damaged"), Some(pack), None, _] => pack.parse().ok().map(ObjectName::Damaged),
        [Some("sessions"), Some(session), Some("open"), None] => {
            session.parse().ok().map(ObjectName::SessionOpen)
        }
        [Some("sessions"), Some(session), Some("ack"), Some(round)] => Some(
            ObjectName::SessionAck(session.parse().ok()?, number(round)?),
        ),
        [Some("sessions"), Some(session), Some("beat"), Some(beat)] => Some(
            ObjectName::SessionBeat(session.parse().ok()?, number(beat)?),
        ),
        [Some("gc"), Some(round), Some("plan"), None] => number(round).map(ObjectName::GcPlan),
        [Some("gc"), Some(round), Some("final"), None] => number(round).map(ObjectName::GcFinal),
        [Some("gc"), Some(round), Some("done"), None] => number(round).map(ObjectName::GcDone),
        _ => None,
    }
}

/// Exactly 20 digits.
fn number(digits: &str) -> Option<u64> {
    if digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}
