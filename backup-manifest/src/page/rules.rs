//! What holds for items on both ways: the writer refuses what breaks it, the reader and the checker do not believe it.

use crate::item::{
    TARGET_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX, XattrsView,
};
use crate::wire::{Cursor, WireError, put_varint};

/// Whether the directory of `path` is one that the stream is in, given the item `before` it, of which it shares the
/// first `shared` bytes and after which it is ordered.
pub(super) fn follows(
    before: &[u8],
    before_is_directory: bool,
    path: &[u8],
    shared: usize,
    top_len: usize,
) -> bool {
    let parent_len = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    if parent_len == before.len() && shared == parent_len {
        return before_is_directory;
    }
    let boundary = parent_len == 0 || before.get(parent_len) == Some(&b'/');
    parent_len >= top_len && parent_len <= shared && boundary
}

/// Whether a symbolic link can point there.
pub(super) fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= TARGET_LEN_MAX && !target.contains(&0)
}

/// Encodes attributes; `None` when they are not valid.
pub(super) fn encode_xattrs(out: &mut Vec<u8>, xattrs: XattrsView<'_>) -> Option<()> {
    let mut before: &[u8] = &[];
    let mut len = 0;
    for (name, value) in xattrs.iter() {
        len += name.len() + value.len();
        if !is_xattr(before, name, value) || len > XATTRS_LEN_MAX {
            return None;
        }
        put_varint(out, name.len() as u64);
        out.extend_from_slice(name);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
        before = name;
    }
    Some(())
}

/// Whether encoded attributes are valid throughout.
pub(super) fn are_xattrs(encoded: &[u8]) -> bool {
    let mut cursor = Cursor::new(encoded, "xattrs");
    let mut before: &[u8] = &[];
    let mut len = 0;
    while cursor.remaining() > 0 {
        let Ok((name, value)) = read_xattr(&mut cursor) else {
            return false;
        };
        len += name.len() + value.len();
        if !is_xattr(before, name, value) || len > XATTRS_LEN_MAX {
            return false;
        }
        before = name;
    }
    true
}

fn read_xattr<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], &'a [u8]), WireError> {
    let len = cursor.len()?;
    let name = cursor.bytes(len)?;
    let len = cursor.len()?;
    Ok((name, cursor.bytes(len)?))
}

/// Whether an attribute is valid and may follow that named `before` (empty for none).
fn is_xattr(before: &[u8], name: &[u8], value: &[u8]) -> bool {
    name > before
        && name.len() <= XATTR_NAME_LEN_MAX
        && !name.contains(&0)
        && value.len() <= XATTR_VALUE_LEN_MAX
}
