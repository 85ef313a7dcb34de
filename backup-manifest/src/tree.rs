use crate::list::{
    Entries, LEVEL_MAX, ListError, ListWriter, TreeRef, check_len, check_level, decode_entries,
};
use crate::page::{Page, PageParams};

/// The longest encoded [`TreeRoot`], in bytes.
pub const TREE_ROOT_LEN_MAX: usize = 64 * 1024;

/// The top list, which a snapshot manifest holds.
///
/// `level` 1: the entries are pages of items. `level` n: they are lists of level n - 1. No entries: no items.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a list and its level: written as a literal"
)]
pub struct TreeRoot {
    /// The level this list itself is of; 1 to [`LEVEL_MAX`].
    pub level: u8,
    /// Its entries, strictly ascending by first path and offset.
    pub refs: Vec<TreeRef>,
}

impl TreeRoot {
    /// The top list of a snapshot without items.
    pub fn empty() -> Self {
        Self {
            level: 1,
            refs: Vec::new(),
        }
    }

    /// Returns the list in its binary form, at most [`TREE_ROOT_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// [`ListError`] when it is too long, out of order or of no level.
    pub fn encode(&self) -> Result<Vec<u8>, ListError> {
        check_level(self.level, LEVEL_MAX)?;
        let mut entries = Entries::default();
        for entry in &self.refs {
            entries.push(entry)?;
        }
        let bytes = entries.take(self.level);
        check_len(&bytes, TREE_ROOT_LEN_MAX)?;
        Ok(bytes)
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// [`ListError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        check_len(bytes, TREE_ROOT_LEN_MAX)?;
        let level = bytes.first().copied().unwrap_or_default();
        check_level(level, LEVEL_MAX)?;
        let refs = decode_entries(bytes)?;
        if refs.is_empty() && level != 1 {
            return Err(ListError::Empty);
        }
        Ok(Self { level, refs })
    }
}

/// Builds the lists above the pages of items, level by level, up to the root.
///
/// ```text
/// for each page of items:  next = push(0, its reference);  while next is (level, list): next = push(level, reference to the stored list)
/// at the end:              loop { finish(): Store { level, list } => the same with push; Root(root) => done }
/// ```
#[derive(Debug)]
pub struct TreeBuilder {
    params: PageParams,
    /// The writer of the lists of level 1, of level 2, …
    writers: Vec<ListWriter>,
}

/// What [`TreeBuilder::finish`] asks for next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "two outcomes that every caller has to tell apart"
)]
pub enum TreeStep {
    /// Store this list, then push a reference to it with this level.
    Store {
        /// The level of the list.
        level: u8,
        /// The list.
        list: Page,
    },
    /// All is stored; the manifest takes this.
    Root(TreeRoot),
}

impl TreeBuilder {
    /// A tree without pages.
    pub fn new(params: PageParams) -> Self {
        Self {
            params,
            writers: Vec::new(),
        }
    }

    /// Adds the reference to a stored page of items (`level` 0) or list (the level it came with). Returns a list to
    /// store, with its level, when one became complete.
    ///
    /// # Errors
    /// [`ListError`] when the reference is out of order, or the tree would become too deep.
    pub fn push(&mut self, level: u8, entry: TreeRef) -> Result<Option<(u8, Page)>, ListError> {
        let index = usize::from(level);
        while self.writers.len() <= index {
            let above = self.writers.len() as u8 + 1;
            self.writers.push(ListWriter::new(above, self.params)?);
        }
        let Some(writer) = self.writers.get_mut(index) else {
            return Ok(None);
        };
        let list = writer.push(&entry)?;
        Ok(list.map(|list| (writer.level, list)))
    }

    /// Call after the last page, again and again until it returns the root.
    ///
    /// # Errors
    /// As [`TreeBuilder::push`].
    pub fn finish(&mut self) -> Result<TreeStep, ListError> {
        let Some(lowest) = self.writers.iter().position(ListWriter::is_pending) else {
            return Ok(TreeStep::Root(TreeRoot::empty()));
        };
        let is_top = !self
            .writers
            .iter()
            .skip(lowest + 1)
            .any(ListWriter::is_pending);
        let Some(writer) = self.writers.get_mut(lowest) else {
            return Ok(TreeStep::Root(TreeRoot::empty()));
        };
        if is_top && let Ok(root) = TreeRoot::decode(&writer.pending()) {
            return Ok(TreeStep::Root(root));
        }
        match writer.take() {
            Some(list) => Ok(TreeStep::Store {
                level: writer.level,
                list,
            }),
            None => Ok(TreeStep::Root(TreeRoot::empty())),
        }
    }
}
