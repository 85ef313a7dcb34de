//! Sizes, ranges and times as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use backup::RetentionPolicy;
use serde_json::json;

/// Bytes from `start` to `end`, or to the end of what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteSpan {
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
}

/// A length of time, and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) time: Duration,
    text: String,
}

impl FromStr for Span {
    type Err = String;

    /// As in the policies of the library: `2w`, `1d12h`, `90min`. Minutes are not `m`, which elsewhere means months.
    fn from_str(text: &str) -> Result<Self, String> {
        let policy: Result<RetentionPolicy, _> = serde_json::from_value(json!({ "within": text }));
        let time = policy.map_err(|e| e.to_string())?.within;
        Ok(Self {
            time: time.unwrap_or_default(),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How long to wait between two requests: not so short that a store has nothing else to do.
pub(super) fn parse_pause(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.time < Duration::from_secs(1) {
        return Err("it must be a second at least".into());
    }
    Ok(span)
}

/// `4096`, `64K`, `1.5GiB` is not: whole numbers with K, M, G or T, which are powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("the unit is none of K, M, G, T".into()),
    };
    let number: u64 = digits.parse().map_err(|e| format!("{e}"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "it is too large".into())
}

pub(super) fn parse_range(text: &str) -> Result<ByteSpan, String> {
    let (start, end) = text.split_once("..").ok_or("write START..END")?;
    let start = if start.is_empty() {
        0
    } else {
        parse_size(start)?
    };
    let end = if end.is_empty() {
        None
    } else {
        Some(parse_size(end)?)
    };
    if end.is_some_and(|end| end < start) {
        return Err("it ends before it starts".into());
    }
    Ok(ByteSpan { start, end })
}

#[cfg(test)]
mod tests {
    use super::{ByteSpan, Span, parse_pause, parse_range, parse_size};

    #[test]
    fn sizes_and_ranges() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert!(parse_size("2X").is_err());
        assert!(parse_size("").is_err());
        assert!(parse_size("99999999T").is_err());
        assert_eq!(
            parse_range("1K..2K"),
            Ok(ByteSpan {
                start: 1024,
                end: Some(2048)
            })
        );
        assert_eq!(
            parse_range("5.."),
            Ok(ByteSpan {
                start: 5,
                end: None
            })
        );
        assert_eq!(
            parse_range("..5"),
            Ok(ByteSpan {
                start: 0,
                end: Some(5)
            })
        );
        assert!(parse_range("5").is_err());
        assert!(parse_range("5..4").is_err());
    }

    #[test]
    fn times_are_as_in_policies() {
        let seconds = |text: &str| text.parse::<Span>().map(|span| span.time.as_secs());
        assert_eq!(seconds("2w"), Ok(14 * 86_400));
        assert_eq!(seconds("1d12h"), Ok(36 * 3_600));
        assert_eq!(seconds("15min"), Ok(900));
        assert_eq!(seconds("0s"), Ok(0));
        for wrong in ["15m", "1", "", "-1d", "1h1d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pauses_are_no_shorter_than_a_second() {
        assert!(parse_pause("1s").is_ok());
        assert!(parse_pause("0s").is_err());
    }
}
