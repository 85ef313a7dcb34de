use std::fmt;
use std::str::FromStr;

/// The longest key, in bytes. Source: S3 allows 1,024 bytes of UTF-8.
pub const KEY_LEN_MAX: usize = 1024;
/// The longest segment between two slashes, in bytes: what every file system takes as a name.
pub const SEGMENT_LEN_MAX: usize = 254;

/// The name of an object: 1 to 1,024 bytes of UTF-8, `/` between segments.
///
/// A segment is never empty, never longer than 254 bytes and never begins with a dot (so `.` and `..` cannot
/// be said, and a backend may keep its own files under hidden names). Control characters and backslashes are
/// refused. Keys order by their bytes, as listings do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks `text` once; holding a key proves that it is legal.
    ///
    /// # Errors
    /// [KeyError] that says which rule is broken.
    pub fn parse(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        check_len(&text)?;
        text.split('/')
            .try_for_each(|segment| check_segment(&text, segment))?;
        Ok(Self(text))
    }

    /// The key as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder (without its slash, empty at the top) and the last segment.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

/// The beginning of keys: empty, or a text that some legal key begins with. It may end within a segment
/// (`snapshots/ab12-`) or after a slash (`packs/`).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// The prefix of every key.
    pub const fn all() -> Self {
        Self(String::new())
    }

    /// Checks `text` once; holding a prefix proves that a legal key may begin with it.
    ///
    /// # Errors
    /// [KeyError] that says which rule is broken.
    pub fn parse(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        check_len(&text)?;
        let (folders, rest) = text
            .rsplit_once('/')
            .map_or((None, text.as_str()), |(a, b)| (Some(a), b));
        if let Some(folders) = folders {
            folders
                .split('/')
                .try_for_each(|segment| check_segment(&text, segment))?;
        }
        if !rest.is_empty() {
            check_segment(&text, rest)?;
        }
        Ok(Self(text))
    }

    /// The prefix as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` begins with this prefix.
    pub fn matches(&self, key: &ObjectKey) -> bool {
        key.0.starts_with(&self.0)
    }
}

/// Why a text is no key or no prefix. The text is shown shortened and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("an object key is empty")]
    Empty,
    /// More than [`KEY_LEN_MAX`] bytes.
    #[error("object key {key:?} is {len} bytes long, more than {KEY_LEN_MAX}")]
    TooLong {
        /// The beginning of the text.
        key: String,
        /// Its length in bytes.
        len: usize,
    },
    /// Two slashes in a row, or one at the beginning or at the end of a key.
    #[error("object key {key:?} has an empty segment")]
    EmptySegment {
        /// The beginning of the text.
        key: String,
    },
    /// A segment that begins with a dot: `.`, `..`, or a name kept for the backend's own files.
    #[error("object key {key:?} has a segment that begins with a dot")]
    DotSegment {
        /// The beginning of the text.
        key: String,
    },
    /// A segment of more than [`SEGMENT_LEN_MAX`] bytes.
    #[error("object key {key:?} has a segment of {len} bytes, more than {SEGMENT_LEN_MAX}")]
    SegmentTooLong {
        /// The beginning of the text.
        key: String,
        /// The segment's length in bytes.
        len: usize,
    },
    /// A control character or a backslash.
    #[error("object key {key:?} has the character {character:?}, which keys may not hold")]
    Character {
        /// The beginning of the text.
        key: String,
        /// What is refused.
        character: char,
    },
}

fn check_len(text: &str) -> Result<(), KeyError> {
    if text.len() > KEY_LEN_MAX {
        return Err(KeyError::TooLong {
            key: excerpt(text),
            len: text.len(),
        });
    }
    Ok(())
}

fn check_segment(text: &str, segment: &str) -> Result<(), KeyError> {
    if segment.is_empty() {
        return Err(KeyError::EmptySegment { key: excerpt(text) });
    }
    if segment.starts_with('.') {
        return Err(KeyError::DotSegment { key: excerpt(text) });
    }
    if segment.len() > SEGMENT_LEN_MAX {
        return Err(KeyError::SegmentTooLong {
            key: excerpt(text),
            len: segment.len(),
        });
    }
    match segment.chars().find(|c| c.is_control() || *c == '\\') {
        Some(character) => Err(KeyError::Character {
            key: excerpt(text),
            character,
        }),
        None => Ok(()),
    }
}

// A message stays readable, whatever came in: the first 80 characters name the culprit well enough.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({:?})", self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl std::borrow::Borrow<str> for ObjectKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPrefix({:?})", self.0)
    }
}

impl FromStr for KeyPrefix {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl AsRef<str> for KeyPrefix {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<ObjectKey> for KeyPrefix {
    fn from(key: ObjectKey) -> Self {
        Self(key.0)
    }
}
