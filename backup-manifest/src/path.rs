use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest path of an item, in bytes.
pub const PATH_LEN_MAX: usize = 64 * 1024;
/// The longest single name of a path, in bytes: 255 characters of 4 bytes.
pub const NAME_LEN_MAX: usize = 255 * 4;

/// Where an item stands below the root of its snapshot.
///
/// Bytes, not text. Relative, separated by `/`; no component is empty, `.` or `..`, no byte is NUL. At most
/// [`PATH_LEN_MAX`] bytes, each component at most [`NAME_LEN_MAX`]. The empty path is the root.
///
/// Paths are ordered by their bytes with `/` as the lowest, which is the order of their components: what a
/// directory holds follows it directly, depth first.
///
/// `Display` writes control, invisible and non-UTF-8 bytes as `\xNN` and the backslash as `\\`; `FromStr` reads that
/// form back.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ItemPath(Vec<u8>);

/// A borrowed [`ItemPath`]: as valid, without the allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PathView<'a>(&'a [u8]);

/// Why bytes are no path of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is longer than [`PATH_LEN_MAX`].
    #[error("path of {len} bytes is longer than {PATH_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A name in the path is longer than [`NAME_LEN_MAX`].
    #[error("name of {len} bytes at offset {offset} is longer than {NAME_LEN_MAX}")]
    NameTooLong {
        /// Where the name starts.
        offset: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// A name is empty: the path starts or ends with `/`, or holds `//`.
    #[error("empty name at offset {offset}")]
    EmptyName {
        /// Where the name would start.
        offset: usize,
    },
    /// A name is `.` or `..`.
    #[error("name at offset {offset} is a dot or two")]
    DotName {
        /// Where the name starts.
        offset: usize,
    },
    /// The path holds a NUL byte.
    #[error("NUL byte at offset {offset}")]
    Nul {
        /// Where it is.
        offset: usize,
    },
    /// One name was wanted, but it holds a `/`.
    #[error("name holds a separator at offset {offset}")]
    Separator {
        /// Where it is.
        offset: usize,
    },
    /// An escape in the text form is neither `\\` nor `\x` and two lower-case hex digits.
    #[error("unknown escape at offset {offset}")]
    Escape {
        /// Where the backslash is.
        offset: usize,
    },
}

impl ItemPath {
    /// Takes bytes that are a valid path, see [`ItemPath`].
    ///
    /// # Errors
    /// [`PathError`] says what is wrong and where.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check_path(&bytes)?;
        Ok(Self(bytes))
    }

    /// The root: the empty path.
    pub fn root() -> Self {
        Self::default()
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Borrows the path.
    pub fn view(&self) -> PathView<'_> {
        PathView(&self.0)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this item; `None` for the root.
    pub fn parent(&self) -> Option<ItemPath> {
        self.view().parent().map(PathView::to_path)
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.view().name()
    }

    /// The path of `name` inside this directory.
    ///
    /// # Errors
    /// [`PathError`] when `name` is not a single valid component, or the path becomes too long.
    pub fn join(&self, name: &[u8]) -> Result<ItemPath, PathError> {
        let mut path = self.clone();
        path.push(name)?;
        Ok(path)
    }

    /// Appends `name` in place, so that a walk can keep one buffer.
    ///
    /// # Errors
    /// As [`ItemPath::join`]; the path is unchanged then.
    pub fn push(&mut self, name: &[u8]) -> Result<(), PathError> {
        check_name(name, 0)?;
        let len = self.0.len() + usize::from(!self.0.is_empty()) + name.len();
        if len > PATH_LEN_MAX {
            return Err(PathError::TooLong { len });
        }
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
        Ok(())
    }

    /// Removes the last component in place; false for the root.
    pub fn pop(&mut self) -> bool {
        match self.view().parent().map(|parent| parent.0.len()) {
            Some(len) => {
                self.0.truncate(len);
                true
            }
            None => false,
        }
    }

    /// Whether this is `dir` or lies beneath it.
    pub fn starts_with(&self, dir: &ItemPath) -> bool {
        self.view().starts_with(dir.view())
    }
}

impl<'a> PathView<'a> {
    /// Takes bytes that are a valid path.
    ///
    /// # Errors
    /// [`PathError`] says what is wrong and where.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, PathError> {
        check_path(bytes)?;
        Ok(Self(bytes))
    }

    /// For bytes that the caller has just checked.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes of the path.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Copies the path.
    pub fn to_path(self) -> ItemPath {
        ItemPath(self.0.to_vec())
    }

    /// Copies the path into `path`, keeping its buffer.
    pub fn copy_to(self, path: &mut ItemPath) {
        path.0.clear();
        path.0.extend_from_slice(self.0);
    }

    /// Whether this is the root.
    pub fn is_root(self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this item; `None` for the root.
    pub fn parent(self) -> Option<PathView<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let len = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(PathView(self.0.get(..len).unwrap_or_default()))
    }

    /// The last component; empty for the root.
    pub fn name(self) -> &'a [u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// The components from the root down; none for the root.
    pub fn components(self) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.0
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// Whether this is `dir` or lies beneath it.
    pub fn starts_with(self, dir: PathView<'_>) -> bool {
        match self.0.strip_prefix(dir.0) {
            Some(rest) => dir.0.is_empty() || rest.is_empty() || rest.first() == Some(&b'/'),
            None => false,
        }
    }
}

impl Ord for PathView<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let shared = shared_len(self.0, other.0);
        rank(self.0.get(shared)).cmp(&rank(other.0.get(shared)))
    }
}

impl PartialOrd for PathView<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ItemPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.view().cmp(&other.view())
    }
}

impl PartialOrd for ItemPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PathView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if char == '\\' {
                    f.write_str("\\\\")?;
                } else if is_hidden(char) {
                    for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                } else {
                    fmt::Write::write_char(f, char)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl fmt::Debug for PathView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Debug for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for ItemPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            let offset = text.len() - rest.len();
            rest = match (first, tail) {
                (b'\\', [b'\\', tail @ ..]) => {
                    bytes.push(b'\\');
                    tail
                }
                (b'\\', [b'x', high, low, tail @ ..]) => {
                    let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) else {
                        return Err(PathError::Escape { offset });
                    };
                    bytes.push(high << 4 | low);
                    tail
                }
                (b'\\', _) => return Err(PathError::Escape { offset }),
                (byte, tail) => {
                    bytes.push(byte);
                    tail
                }
            };
        }
        Self::from_bytes(bytes)
    }
}

impl<'a> From<&'a ItemPath> for PathView<'a> {
    fn from(path: &'a ItemPath) -> Self {
        path.view()
    }
}

impl From<PathView<'_>> for ItemPath {
    fn from(path: PathView<'_>) -> Self {
        path.to_path()
    }
}

/// A byte's place in the order of paths: the end first, then `/`, then all others (NUL cannot occur).
#[inline]
pub(crate) fn rank(byte: Option<&u8>) -> u16 {
    match byte {
        None => 0,
        Some(b'/') => 1,
        Some(&byte) => u16::from(byte) + 2,
    }
}

/// How many bytes the two share at their start.
#[inline]
pub(crate) fn shared_len(one: &[u8], other: &[u8]) -> usize {
    // Eight at a time: paths of neighbours share most of their bytes.
    let mut shared = 0;
    let words = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
    for (one, other) in words {
        let differ = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differ != 0 {
            return shared + differ.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    let one = one.get(shared..).unwrap_or_default();
    let other = other.get(shared..).unwrap_or_default();
    shared + one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Checks one component that starts at `offset` of its path.
#[inline]
pub(crate) fn check_name(name: &[u8], offset: usize) -> Result<(), PathError> {
    // Two passes without an early end, which the compiler turns into vector code.
    if name
        .iter()
        .fold(false, |bad, &b| bad | (b == 0) | (b == b'/'))
    {
        let at = name.iter().position(|&b| b == 0 || b == b'/').unwrap_or(0);
        let offset = offset + at;
        return Err(match name.get(at) {
            Some(0) => PathError::Nul { offset },
            _ => PathError::Separator { offset },
        });
    }
    match name {
        b"" => Err(PathError::EmptyName { offset }),
        b"." | b".." => Err(PathError::DotName { offset }),
        _ if name.len() > NAME_LEN_MAX => Err(PathError::NameTooLong {
            offset,
            len: name.len(),
        }),
        _ => Ok(()),
    }
}

fn check_path(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.len() > PATH_LEN_MAX {
        return Err(PathError::TooLong { len: bytes.len() });
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let mut offset = 0;
    for name in bytes.split(|&byte| byte == b'/') {
        check_name(name, offset)?;
        offset += name.len() + 1;
    }
    Ok(())
}

/// Characters that a terminal obeys instead of showing: control characters, and those that reorder or hide text.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}
