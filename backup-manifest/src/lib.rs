//! Every document a backup repository keeps: the stream of items, lists of pages, snapshot cells, sessions, names; and
//! what follows from snapshots alone: which are kept, and whether a store shows an older state.
//!
//! ```
//! use backup_manifest::{Item, ItemKind, ItemPath, Metadata, PageParams, PageReader, PageWriter, RecordView};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut writer = PageWriter::new(PageParams::default());
//! let root = Item { path: ItemPath::root(), kind: ItemKind::Directory, meta: Metadata::default() };
//! let link = Item {
//!     path: ItemPath::from_bytes("latest")?,
//!     kind: ItemKind::Symlink { target: b"2026-11-21".to_vec() },
//!     meta: Metadata { mode: 0o777, ..Metadata::default() },
//! };
//! writer.push_item(&root)?;
//! writer.push_item(&link)?;
//! let page = writer.finish()?.ok_or("two items make a page")?;
//!
//! let mut reader = PageReader::new(&page.bytes)?;
//! while let Some(RecordView::Item(item)) = reader.next_record()? {
//!     println!("{}", item.path);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It reads and writes bytes in memory. It opens no file, reads no clock, draws no random number, and neither hashes,
//! compresses nor seals: that is `backup-core`. Documents are checked as they are decoded, so that holding one proves
//! it valid; bytes of an enemy give a typed error, never a panic, and no more memory than they are long allow.

mod decision;
mod item;
mod list;
mod names;
mod page;
mod path;
mod pins;
mod retention;
mod session;
mod snapshot;
mod tree;

mod cut;
mod wire;

pub use decision::{DECISION_LEN_MAX, Decision, Verdict};
pub use item::{
    Extent, Item, ItemKind, ItemView, KindView, MODE_MAX, Metadata, MetadataView, TARGET_LEN_MAX,
    XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX, Xattr, XattrsView,
};
pub use list::{LEVEL_MAX, ListError, ListWriter, TreeRef, decode_list};
pub use names::{
    CONFIG, DAMAGED_PREFIX, GC_PREFIX, INDEX_PREFIX, KEYS_PREFIX, NameError, ObjectName,
    PACKS_PREFIX, RETIRED_PREFIX, SESSIONS_PREFIX, SNAPSHOTS_PREFIX, damaged_key, decision_key,
    decisions_prefix, gc_done_key, gc_final_key, gc_plan_key, gone_key, pack_key, packs_prefix,
    segment_key, session_ack_key, session_beat_key, session_open_key, session_prefix, slot_key,
    snapshot_key, snapshots_of_source_prefix,
};
pub use page::{
    EXTENT_DATA_LEN_MAX, LEN_OPEN, PAGE_LEN_MAX, Page, PageError, PageParams, PageReader,
    PageWriter, Record, RecordView, StreamChecker, StreamError, WriteError,
};
pub use path::{ItemPath, NAME_LEN_MAX, PATH_LEN_MAX, PathError, PathView};
pub use pins::{
    ChainCell, PINS_LEN_MAX, PINS_PER_SOURCE_MAX, Pin, PinFinding, PinReport, Pins, PinsError,
};
pub use retention::{
    KeepReason, Kept, RetentionCounts, RetentionError, RetentionPlan, RetentionPolicy,
    RetentionRules, RetentionSnapshot, plan_retention,
};
pub use session::{Ack, GcPlan, PLAN_LEN_MAX, SESSION_OPEN_LEN_MAX, SessionError, SessionOpen};
pub use snapshot::{
    CELL_LEN_MAX, Cell, CellError, Previous, SKIPPED_MAX, SkippedItem, SnapshotKind,
    SnapshotManifest, SnapshotStats,
};
pub use tree::{TREE_ROOT_LEN_MAX, TreeBuilder, TreeRoot, TreeStep};
pub use wire::WireError;
