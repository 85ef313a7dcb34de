use backup_core::{PackId, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::wire::{Cursor, WireError, put_varint};

/// The longest encoded [`SessionOpen`], in bytes.
pub const SESSION_OPEN_LEN_MAX: usize = 64 * 1024;
/// The longest encoded [`Ack`] or [`GcPlan`], in bytes: two million packs.
pub const PLAN_LEN_MAX: usize = 64 * 1024 * 1024;

const VERSION: u8 = 1;

/// What a session says of itself when it starts; only for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; a further field is a further version"
)]
pub struct SessionOpen {
    /// Where it runs.
    pub host: String,
    /// When it started, in nanoseconds since 1970, by its own clock.
    pub started_ns: i64,
    /// What it does: `backup`, `repack`, `restore` …
    pub purpose: String,
}

/// A session's answer to a round of collection: it knows the plan, and these condemned packs it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; a further field is a further version"
)]
pub struct Ack {
    /// The round.
    pub round: u64,
    /// A set; encoding sorts it.
    pub claims: Vec<PackId>,
}

/// What a round of collection wants to delete (`plan`), or deletes (`final`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; a further field is a further version"
)]
pub struct GcPlan {
    /// The round.
    pub round: u64,
    /// The packs; a set, encoding sorts it.
    pub condemned: Vec<PackId>,
    /// The commits that the mark saw; a set, encoding sorts it.
    pub covered: Vec<SessionId>,
}

/// Why a session's or a collector's document cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The document is longer than allowed.
    #[error("{what} of {len} bytes is longer than {len_max}")]
    TooLong {
        /// Which document.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest allowed.
        len_max: usize,
    },
    /// The document has a version that this program does not know.
    #[error("{what} has version {got}, this program knows version {expected}")]
    UnsupportedVersion {
        /// Which document.
        what: &'static str,
        /// The version found.
        got: u64,
        /// The version known.
        expected: u64,
    },
    /// The document is not what it should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// The reason, which quotes nothing of the document.
        reason: String,
    },
    /// The bytes do not add up.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A set is not strictly ascending.
    #[error("{part} is not sorted or holds an entry twice")]
    Unsorted {
        /// Which set.
        part: &'static str,
    },
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct OpenWire {
    host: String,
    started_ns: i64,
    purpose: String,
}

impl SessionOpen {
    /// Returns the JSON form.
    ///
    /// # Errors
    /// [`SessionError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let mut fields = Map::new();
        fields.insert("version".to_owned(), VERSION.into());
        fields.insert("host".to_owned(), self.host.as_str().into());
        fields.insert("started_ns".to_owned(), self.started_ns.into());
        fields.insert("purpose".to_owned(), self.purpose.as_str().into());
        let bytes = Value::Object(fields).to_string().into_bytes();
        check_len("session", &bytes, SESSION_OPEN_LEN_MAX)?;
        Ok(bytes)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`SessionError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        let what = "session";
        check_len(what, bytes, SESSION_OPEN_LEN_MAX)?;
        let Version { version } = serde_json::from_slice(bytes).map_err(malformed(what))?;
        if version != u64::from(VERSION) {
            return Err(unsupported(what, version));
        }
        let wire: OpenWire = serde_json::from_slice(bytes).map_err(malformed(what))?;
        Ok(Self {
            host: wire.host,
            started_ns: wire.started_ns,
            purpose: wire.purpose,
        })
    }
}

impl Ack {
    /// Returns `version u8 ‖ round varint ‖ count varint ‖ pack ids`.
    ///
    /// # Errors
    /// [`SessionError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let mut bytes = vec![VERSION];
        put_varint(&mut bytes, self.round);
        put_packs(&mut bytes, &self.claims);
        check_len("ack", &bytes, PLAN_LEN_MAX)?;
        Ok(bytes)
    }

    /// Reads what [`Ack::encode`] returns.
    ///
    /// # Errors
    /// [`SessionError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        let mut cursor = start("ack", bytes)?;
        let ack = Self {
            round: cursor.varint()?,
            claims: read_set(&mut cursor, "claims", |id| PackId::from_bytes(*id))?,
        };
        cursor.finish()?;
        Ok(ack)
    }
}

impl GcPlan {
    /// Returns `version u8 ‖ round varint ‖ count varint ‖ pack ids ‖ count varint ‖ session ids (24 B each)`.
    ///
    /// # Errors
    /// [`SessionError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let mut bytes = vec![VERSION];
        put_varint(&mut bytes, self.round);
        put_packs(&mut bytes, &self.condemned);
        let mut covered = self.covered.clone();
        covered.sort_unstable();
        covered.dedup();
        put_varint(&mut bytes, covered.len() as u64);
        for session in &covered {
            bytes.extend_from_slice(&session.to_bytes());
        }
        check_len("gc plan", &bytes, PLAN_LEN_MAX)?;
        Ok(bytes)
    }

    /// Reads what [`GcPlan::encode`] returns.
    ///
    /// # Errors
    /// [`SessionError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        let mut cursor = start("gc plan", bytes)?;
        let plan = Self {
            round: cursor.varint()?,
            condemned: read_set(&mut cursor, "condemned", |id| PackId::from_bytes(*id))?,
            covered: read_set(&mut cursor, "covered", |id| SessionId::from_bytes(*id))?,
        };
        cursor.finish()?;
        Ok(plan)
    }
}

fn start<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Cursor<'a>, SessionError> {
    check_len(what, bytes, PLAN_LEN_MAX)?;
    let mut cursor = Cursor::new(bytes, what);
    match cursor.byte()? {
        VERSION => Ok(cursor),
        version => Err(unsupported(what, u64::from(version))),
    }
}

fn put_packs(bytes: &mut Vec<u8>, packs: &[PackId]) {
    let mut packs = packs.to_vec();
    packs.sort_unstable();
    packs.dedup();
    put_varint(bytes, packs.len() as u64);
    for pack in &packs {
        bytes.extend_from_slice(pack.as_bytes());
    }
}

/// Reads a count and so many ids of `N` bytes, strictly ascending.
fn read_set<T: Ord, const N: usize>(
    cursor: &mut Cursor<'_>,
    part: &'static str,
    from_bytes: impl Fn(&[u8; N]) -> T,
) -> Result<Vec<T>, SessionError> {
    let count = cursor.count(N)?;
    let mut set = Vec::with_capacity(count);
    for _ in 0..count {
        let id = from_bytes(cursor.array()?);
        if set.last().is_some_and(|before| *before >= id) {
            return Err(SessionError::Unsorted { part });
        }
        set.push(id);
    }
    Ok(set)
}

pub(crate) fn check_len(
    what: &'static str,
    bytes: &[u8],
    len_max: usize,
) -> Result<(), SessionError> {
    if bytes.len() > len_max {
        return Err(SessionError::TooLong {
            what,
            len: bytes.len(),
            len_max,
        });
    }
    Ok(())
}

pub(crate) fn malformed(what: &'static str) -> impl Fn(serde_json::Error) -> SessionError {
    move |error| SessionError::Malformed {
        what,
        reason: position(&error),
    }
}

pub(crate) fn unsupported(what: &'static str, got: u64) -> SessionError {
    SessionError::UnsupportedVersion {
        what,
        got,
        expected: u64::from(VERSION),
    }
}

/// What serde says may quote the document; where it happened does not.
pub(crate) fn position(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Io => "reading failed",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => "missing or unexpected field",
        serde_json::error::Category::Eof => "ends too early",
    };
    format!("{kind} at line {} column {}", error.line(), error.column())
}
