use std::collections::BTreeMap;

use backup_core::SessionId;
use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::list::ListError;
use crate::path::ItemPath;
use crate::session::position;
use crate::tree::TreeRoot;

/// The longest plaintext of a snapshot cell, in bytes.
pub const CELL_LEN_MAX: usize = 1024 * 1024;
/// How many skipped items a manifest names.
pub const SKIPPED_MAX: usize = 100;

/// The plaintext of a cell whose session was given up.
const ABORTED: &[u8] = b"aborted";
const VERSION: u64 = 1;
/// The longest all skipped items of a manifest may be together, in bytes of JSON.
const SKIPPED_LEN_MAX: usize = 256 * 1024;

/// The write-once outcome of a session.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a session ends one way or the other; both must be handled"
)]
#[expect(
    clippy::large_enum_variant,
    reason = "read one at a time, never kept in numbers"
)]
pub enum Cell {
    /// It committed this.
    Snapshot(SnapshotManifest),
    /// A collector gave it up; it can never commit.
    Aborted,
}

/// One finished backup of one source.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; what is added by later programs is in extras"
)]
pub struct SnapshotManifest {
    /// The session that made it; also its name.
    pub session: SessionId,
    /// Random, so that a session recognizes its own commit.
    pub nonce: [u8; 16],
    /// The name of the source.
    pub source: String,
    /// What was backed up.
    pub kind: SnapshotKind,
    /// The host that made it.
    pub host: String,
    /// The user it ran as, when known.
    pub user: Option<String>,
    /// Labels given by the user.
    pub tags: Vec<String>,
    /// When it started, in nanoseconds since 1970, by the host's clock.
    pub started_ns: i64,
    /// When it ended, in nanoseconds since 1970, by the host's clock.
    pub finished_ns: i64,
    /// The snapshot of the same source before this one, when there is one.
    pub previous: Option<Previous>,
    /// The top list of items.
    pub root: TreeRoot,
    /// Sums over its items.
    pub stats: SnapshotStats,
    /// Whether everything asked for is in it.
    pub complete: bool,
    /// How many items could not be read.
    pub skipped_count: u64,
    /// The first of them: at most [`SKIPPED_MAX`] are kept, fewer when their text is very long.
    pub skipped: Vec<SkippedItem>,
    /// The program that made it, with its version.
    pub program: String,
    /// Fields of later programs, kept when the manifest is written again.
    pub extras: BTreeMap<String, Value>,
}

/// What a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a further kind is a further version"
)]
pub enum SnapshotKind {
    /// A directory tree.
    Tree,
    /// One volume.
    Volume,
    /// One stream.
    Stream,
}

/// A link of the chain of a source's snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal")]
pub struct Previous {
    /// The snapshot before.
    pub id: SessionId,
    /// BLAKE3 of its cell as stored.
    pub hash: [u8; 32],
}

/// Sums over the items of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal")]
pub struct SnapshotStats {
    /// Items of any kind.
    pub items: u64,
    /// Items with content.
    pub files: u64,
    /// Bytes of content, holes included.
    pub bytes: u64,
}

/// An item of the source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal")]
pub struct SkippedItem {
    /// Where it stands.
    pub path: ItemPath,
    /// Why, for people to read.
    pub reason: String,
}

/// Why a cell cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CellError {
    /// The cell is longer than [`CELL_LEN_MAX`].
    #[error("snapshot manifest of {len} bytes is longer than {CELL_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The manifest has a version that this program does not know.
    #[error("snapshot manifest has version {got}, this program knows version {expected}")]
    UnsupportedVersion {
        /// The version found.
        got: u64,
        /// The version known.
        expected: u64,
    },
    /// The cell is neither a manifest nor `aborted`.
    #[error("snapshot manifest is malformed: {reason}")]
    Malformed {
        /// The reason, which quotes nothing of the manifest.
        reason: String,
    },
    /// A field does not have its form.
    #[error("snapshot manifest has a bad field {field}")]
    BadField {
        /// The field.
        field: &'static str,
    },
    /// The top list is not valid.
    #[error("snapshot manifest has a bad top list")]
    BadRoot {
        /// What is wrong with it.
        #[from]
        source: ListError,
    },
}

#[derive(Deserialize)]
struct VersionWire {
    version: u64,
}

#[derive(Deserialize)]
struct ManifestWire {
    #[serde(rename = "version")]
    _version: u64,
    session: String,
    nonce: String,
    source: String,
    kind: String,
    host: String,
    user: Option<String>,
    tags: Vec<String>,
    started_ns: i64,
    finished_ns: i64,
    previous: Option<PreviousWire>,
    root: String,
    items: u64,
    files: u64,
    bytes: u64,
    complete: bool,
    skipped_count: u64,
    skipped: Vec<SkippedWire>,
    program: String,
    #[serde(flatten)]
    extras: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct PreviousWire {
    id: String,
    hash: String,
}

#[derive(Deserialize)]
struct SkippedWire {
    path: String,
    reason: String,
}

impl Cell {
    /// Returns the plaintext of the cell: JSON, or the word `aborted`.
    ///
    /// # Errors
    /// [`CellError::TooLong`], or [`CellError::BadRoot`] when the top list has no valid form.
    pub fn encode(&self) -> Result<Vec<u8>, CellError> {
        match self {
            Self::Snapshot(manifest) => manifest.encode(),
            Self::Aborted => Ok(ABORTED.to_vec()),
        }
    }

    /// Reads the plaintext of a cell.
    ///
    /// # Errors
    /// [`CellError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CellError> {
        if bytes == ABORTED {
            return Ok(Self::Aborted);
        }
        check_len(bytes)?;
        let malformed = |error: serde_json::Error| CellError::Malformed {
            reason: position(&error),
        };
        let VersionWire { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            return Err(CellError::UnsupportedVersion {
                got: version,
                expected: VERSION,
            });
        }
        let wire: ManifestWire = serde_json::from_slice(bytes).map_err(malformed)?;
        SnapshotManifest::from_wire(wire).map(Self::Snapshot)
    }
}

impl SnapshotManifest {
    fn encode(&self) -> Result<Vec<u8>, CellError> {
        // What this version knows is written last: an extra cannot take the place of a field.
        let mut fields: Map<String, Value> = self.extras.clone().into_iter().collect();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("version", VERSION.into());
        put("session", self.session.to_string().into());
        put("nonce", HEXLOWER.encode(&self.nonce).into());
        put("source", self.source.as_str().into());
        put("kind", self.kind.name().into());
        put("host", self.host.as_str().into());
        put("user", self.user.as_deref().into());
        put("tags", self.tags.clone().into());
        put("started_ns", self.started_ns.into());
        put("finished_ns", self.finished_ns.into());
        put("previous", self.previous.map(Previous::into_value).into());
        put("root", BASE64.encode(&self.root.encode()?).into());
        put("items", self.stats.items.into());
        put("files", self.stats.files.into());
        put("bytes", self.stats.bytes.into());
        put("complete", self.complete.into());
        put("skipped_count", self.skipped_count.into());
        put("skipped", skipped_value(&self.skipped));
        put("program", self.program.as_str().into());
        let bytes = Value::Object(fields).to_string().into_bytes();
        check_len(&bytes)?;
        Ok(bytes)
    }

    fn from_wire(wire: ManifestWire) -> Result<Self, CellError> {
        let bad = |field| CellError::BadField { field };
        let previous = wire.previous.map(Previous::from_wire).transpose()?;
        let root = BASE64
            .decode(wire.root.as_bytes())
            .map_err(|_| bad("root"))?;
        if wire.skipped.len() > SKIPPED_MAX {
            return Err(bad("skipped"));
        }
        let skipped = wire
            .skipped
            .into_iter()
            .map(|skipped| {
                Ok(SkippedItem {
                    path: skipped.path.parse().map_err(|_| bad("skipped"))?,
                    reason: skipped.reason,
                })
            })
            .collect::<Result<_, CellError>>()?;
        Ok(Self {
            session: wire.session.parse().map_err(|_| bad("session"))?,
            nonce: hex(&wire.nonce).ok_or_else(|| bad("nonce"))?,
            source: wire.source,
            kind: SnapshotKind::from_name(&wire.kind).ok_or_else(|| bad("kind"))?,
            host: wire.host,
            user: wire.user,
            tags: wire.tags,
            started_ns: wire.started_ns,
            finished_ns: wire.finished_ns,
            previous,
            root: TreeRoot::decode(&root)?,
            stats: SnapshotStats {
                items: wire.items,
                files: wire.files,
                bytes: wire.bytes,
            },
            complete: wire.complete,
            skipped_count: wire.skipped_count,
            skipped,
            program: wire.program,
            extras: wire.extras,
        })
    }
}

impl SnapshotKind {
    /// `tree`, `volume` or `stream`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Volume => "volume",
            Self::Stream => "stream",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Tree, Self::Volume, Self::Stream]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl Previous {
    fn into_value(self) -> Value {
        let fields = [
            ("id".to_owned(), Value::from(self.id.to_string())),
            ("hash".to_owned(), Value::from(HEXLOWER.encode(&self.hash))),
        ];
        Value::Object(fields.into_iter().collect())
    }

    fn from_wire(wire: PreviousWire) -> Result<Self, CellError> {
        let field = "previous";
        Ok(Self {
            id: wire.id.parse().map_err(|_| CellError::BadField { field })?,
            hash: hex(&wire.hash).ok_or(CellError::BadField { field })?,
        })
    }
}

/// As many of the first [`SKIPPED_MAX`] as have room.
fn skipped_value(skipped: &[SkippedItem]) -> Value {
    let mut len = 0;
    let mut values = Vec::new();
    for item in skipped.iter().take(SKIPPED_MAX) {
        let fields = [
            ("path".to_owned(), Value::from(item.path.to_string())),
            ("reason".to_owned(), Value::from(item.reason.as_str())),
        ];
        let value = Value::Object(fields.into_iter().collect());
        // As written: escapes can make a reason six times as long.
        len += value.to_string().len();
        if len > SKIPPED_LEN_MAX {
            break;
        }
        values.push(value);
    }
    Value::Array(values)
}

pub(crate) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn check_len(bytes: &[u8]) -> Result<(), CellError> {
    if bytes.len() > CELL_LEN_MAX {
        return Err(CellError::TooLong { len: bytes.len() });
    }
    Ok(())
}
