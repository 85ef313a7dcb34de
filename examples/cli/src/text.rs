//! Numbers, times, names and tables as people read them.

use std::fmt::Write;
use std::time::Duration;

use backup::SessionId;
use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `12,345`
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `12,345 files`, and `1 file`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", HumanCount(number))
}

/// `1.20 MiB`
pub(crate) fn bytes(number: u64) -> String {
    HumanBytes(number).to_string()
}

/// `3.25 s`
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// How many times `whole` is larger than `part`: `2.71`.
pub(crate) fn ratio(whole: u64, part: u64) -> f64 {
    if part == 0 {
        1.0
    } else {
        (whole as f64 / part as f64 * 100.0).round() / 100.0
    }
}

/// A time in UTC for machines: `2026-11-21T10:00:00.123Z`.
pub(crate) fn time_utc(ns: i64) -> String {
    Timestamp::from_nanosecond(ns.into())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// A time in the zone of this machine for people: `2026-11-21 11:00:00`.
pub(crate) fn time_local(ns: i64) -> String {
    match Timestamp::from_nanosecond(ns.into()) {
        Ok(time) => time
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// The beginning of a snapshot's time part, which names it among all but the most improbable neighbours.
pub(crate) fn short(id: &SessionId) -> String {
    let id = id.to_string();
    let time = id.split_once('-').map_or(&*id, |(_, time)| time);
    time.chars().take(16).collect()
}

/// Text from elsewhere, with everything escaped that a terminal would obey instead of showing.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for char in text.chars() {
        if is_hidden(char) {
            cleaned.extend(char.escape_unicode());
        } else {
            cleaned.push(char);
        }
    }
    cleaned
}

/// Control characters, and those that hide or reorder text.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Lines up rows of cells under their headings.
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let headings = columns
        .iter()
        .map(|(heading, _)| (*heading).to_owned())
        .collect();
    let rows: Vec<&Vec<String>> = std::iter::once(&headings).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, (_, align)), width) in row.iter().zip(columns).zip(&widths) {
            let padding = " ".repeat(width - cell.chars().count());
            match align {
                Align::Left => line.extend([cell, &padding, "  "]),
                Align::Right => line.extend([&padding, cell, "  "]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names with their values, one a line.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:width$}  {value}");
    }
    text
}
