use std::io::{BufWriter, Write};

use backup::{Error, Item, ItemKind, ItemPath, find_snapshot, list};
use futures::stream::TryStreamExt;
use serde_json::{Value, json};

use crate::args::{GlobalArguments, LsArguments};
use crate::failure::Failure;
use crate::text;
use crate::ui::{self, Outcome, Ui};
use crate::{commands, place};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: LsArguments,
) -> Result<Outcome, Failure> {
    let below = arguments
        .path
        .as_deref()
        .map(commands::item_path)
        .transpose()?
        .filter(|path| !path.is_root());
    let repo = place::open(ui, global).await?;
    let snapshot = find_snapshot(&repo, &arguments.snapshot).await?;
    let mut items = Box::pin(list(&repo, &snapshot, below.clone()).await?);
    let mut out = BufWriter::new(std::io::stdout());
    let mut is_empty = true;
    while let Some(item) = items.try_next().await? {
        let line = if ui.json {
            ui::line(&document(&item))?
        } else if arguments.long {
            long(&item)
        } else {
            path_text(&item.path)
        };
        writeln!(out, "{line}").map_err(|source| Failure::Output { source })?;
        is_empty = false;
    }
    out.flush().map_err(|source| Failure::Output { source })?;
    match below {
        Some(path) if is_empty => Err(Error::PathNotFound {
            path: path.to_string(),
        }
        .into()),
        _ => Ok(Outcome::Complete),
    }
}

fn path_text(path: &ItemPath) -> String {
    if path.is_root() {
        ".".into()
    } else {
        path.to_string()
    }
}

/// Paths are in the form of `ItemPath`: what is not UTF-8 or not visible as `\xNN`, the backslash as `\\`.
fn document(item: &Item) -> Value {
    let meta = &item.meta;
    json!({
        "path": item.path.to_string(),
        "type": type_name(&item.kind),
        "mode": format!("{:04o}", meta.mode),
        "uid": meta.uid,
        "gid": meta.gid,
        "mtime": text::time_utc(meta.mtime_ns),
        "size": item.kind.has_content().then_some(meta.len),
        "target": target(&item.kind),
    })
}

fn type_name(kind: &ItemKind) -> &'static str {
    match kind {
        ItemKind::File => "file",
        ItemKind::Directory => "directory",
        ItemKind::Symlink { .. } => "symlink",
        ItemKind::Hardlink { .. } => "hardlink",
        ItemKind::Fifo => "fifo",
        ItemKind::Socket => "socket",
        ItemKind::CharDevice { .. } => "char_device",
        ItemKind::BlockDevice { .. } => "block_device",
        ItemKind::Volume => "volume",
        ItemKind::Stream => "stream",
    }
}

/// Where a link points, or which device it is.
fn target(kind: &ItemKind) -> Option<String> {
    match kind {
        ItemKind::Symlink { target } => Some(text::clean(&target.escape_ascii_if_needed())),
        ItemKind::Hardlink { target } => Some(target.to_string()),
        ItemKind::CharDevice { major, minor } | ItemKind::BlockDevice { major, minor } => {
            Some(format!("{major}:{minor}"))
        }
        _ => None,
    }
}

trait EscapeBytes {
    fn escape_ascii_if_needed(&self) -> String;
}

impl EscapeBytes for Vec<u8> {
    /// Text as it is, other bytes as `\xNN`.
    fn escape_ascii_if_needed(&self) -> String {
        let mut text = String::new();
        for chunk in self.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        }
        text
    }
}

/// As `ls -l` shows it, with numbers for owners: the names may be of another machine.
fn long(item: &Item) -> String {
    let meta = &item.meta;
    let arrow = match &item.kind {
        ItemKind::Symlink { .. } => " -> ",
        ItemKind::Hardlink { .. } => " = ",
        _ => "  ",
    };
    let shown = target(&item.kind)
        .map(|target| format!("{arrow}{target}"))
        .unwrap_or_default();
    format!(
        "{}{} {:>5} {:>5} {:>14} {} {}{shown}",
        type_letter(&item.kind),
        permissions(meta.mode),
        meta.uid,
        meta.gid,
        text::count(meta.len),
        text::time_local(meta.mtime_ns),
        path_text(&item.path),
    )
}

fn type_letter(kind: &ItemKind) -> char {
    match kind {
        ItemKind::Directory => 'd',
        ItemKind::Symlink { .. } => 'l',
        ItemKind::Hardlink { .. } => 'h',
        ItemKind::Fifo => 'p',
        ItemKind::Socket => 's',
        ItemKind::CharDevice { .. } => 'c',
        ItemKind::BlockDevice { .. } => 'b',
        ItemKind::File | ItemKind::Volume | ItemKind::Stream => '-',
    }
}

/// `rwxr-xr-x`, with `s` and `t` where they apply.
fn permissions(mode: u32) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::with_capacity(9);
    for (class, (bit, with, without)) in special.into_iter().enumerate() {
        let bits = mode >> (6 - 3 * class) & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & bit != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn permissions_read_as_in_ls() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o4711), "rws--x--x");
        assert_eq!(permissions(0o2644), "rw-r-Sr--");
        assert_eq!(permissions(0o1777), "rwxrwxrwt");
    }
}
