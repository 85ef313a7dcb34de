use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not a well-formed identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text is longer or shorter than this kind of id is.
    #[error("not a {kind}: {got} characters instead of {expected}")]
    Length {
        /// What was expected, in words.
        kind: &'static str,
        /// Length of the text, in bytes.
        got: usize,
        /// Length of every id of this kind, in bytes.
        expected: usize,
    },
    /// The text holds something else than lower-case hex digits.
    #[error("not a {kind}: only the digits 0-9 and a-f are allowed")]
    Digit {
        /// What was expected, in words.
        kind: &'static str,
    },
}

/// Fixed-length ids: bytes inside, lower-case hex outside.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(&self.0[..4], f)?;
                f.write_str("..)")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex($kind, text).map(Self)
            }
        }

        string_serde!($name);
    };
}

/// Serde as the `Display` string, since that is what people grep for.
macro_rules! string_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// The name of a chunk: the first 20 bytes of the keyed BLAKE3 of its plaintext. Only in sealed lists, never visible
    /// to the store.
    ///
    /// 160 bits: finding a second content for an id takes 2^160 hashes, and two contents with one id take 2^80, to
    /// whoever holds the key; without the key neither can be tried. Ids are most of what a small file costs.
    ChunkId, 20, "chunk id"
);
hex_id!(
    /// The first 16 bytes of a [`ChunkId`], as pack directories and index segments hold it.
    ///
    /// 128 bits: two of 2^40 chunks share one with a probability of 2^-49, and the full id decides on every read.
    ShortId, 16, "short chunk id"
);
hex_id!(
    /// The identity of a repository: 16 random bytes, bound into everything that is sealed in it.
    RepositoryId, 16, "repository id"
);
hex_id!(
    /// The name of a pack: plain BLAKE3 of its bytes, 32 bytes, so that anyone can scrub it without a key.
    PackId, 32, "pack id"
);
hex_id!(
    /// The name of an index segment: keyed BLAKE3 of its plaintext, 32 bytes.
    SegmentId, 32, "segment id"
);
hex_id!(
    /// A short keyed hash of a source's name, 8 bytes: it groups the sessions of one source without telling which.
    SourceTag, 8, "source tag"
);
hex_id!(
    /// The name of a key slot: 8 random bytes.
    SlotId, 8, "slot id"
);

impl ChunkId {
    /// The first 16 bytes.
    #[must_use]
    pub fn short(&self) -> ShortId {
        let (short, _) = split_array::<16>(&self.0);
        ShortId(short)
    }
}

/// The name of one writer's run: `<16 hex of the source tag>-<32 hex of the stamp>`.
///
/// The stamp begins with the time, big-endian, so that names of one source sort by time. The time orders names and
/// nothing else: no decision of safety rests on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    tag: SourceTag,
    stamp: [u8; 16],
}

impl SessionId {
    /// Length in bytes: tag (8) and stamp (16).
    pub const LEN: usize = 24;

    /// Builds the stamp as `unix_ms` (milliseconds since 1970, the low 48 bits, big-endian) ‖ `random` (10 B).
    #[must_use]
    pub fn new(tag: SourceTag, unix_ms: u64, random: [u8; 10]) -> Self {
        let mut stamp = [0; 16];
        stamp[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        stamp[6..].copy_from_slice(&random);
        Self { tag, stamp }
    }

    /// Takes tag and stamp as they are.
    #[must_use]
    pub const fn from_parts(tag: SourceTag, stamp: [u8; 16]) -> Self {
        Self { tag, stamp }
    }

    /// Takes tag (8 B) ‖ stamp (16 B), as in the header of a pack.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let (tag, rest) = split_array::<8>(&bytes);
        let (stamp, _) = split_array::<16>(rest);
        Self {
            tag: SourceTag(tag),
            stamp,
        }
    }

    /// Tag (8 B) ‖ stamp (16 B).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.tag.0);
        bytes[8..].copy_from_slice(&self.stamp);
        bytes
    }

    /// The tag of the source that this session writes for.
    #[must_use]
    pub const fn tag(&self) -> SourceTag {
        self.tag
    }

    /// The 16 bytes that tell this session from others of its source.
    #[must_use]
    pub const fn stamp(&self) -> &[u8; 16] {
        &self.stamp
    }

    /// The time that the writer claimed, in milliseconds since 1970. A hint for people.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&self.stamp[..6]);
        u64::from_be_bytes(wide)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.tag.0, f)?;
        f.write_str("-")?;
        write_hex(&self.stamp, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(")?;
        write_hex(&self.tag.0[..4], f)?;
        f.write_str("..-")?;
        write_hex(&self.stamp[..6], f)?;
        f.write_str("..)")
    }
}

impl FromStr for SessionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const KIND: &str = "session id";
        const LEN: usize = 16 + 1 + 32;
        if text.len() != LEN {
            return Err(ParseIdError::Length {
                kind: KIND,
                got: text.len(),
                expected: LEN,
            });
        }
        let (tag, stamp) = text
            .split_once('-')
            .ok_or(ParseIdError::Digit { kind: KIND })?;
        Ok(Self {
            tag: SourceTag(parse_hex(KIND, tag)?),
            stamp: parse_hex(KIND, stamp)?,
        })
    }
}

string_serde!(SessionId);

/// Decodes exactly `N` bytes of lower-case hex.
pub(crate) fn parse_hex<const N: usize>(
    kind: &'static str,
    text: &str,
) -> Result<[u8; N], ParseIdError> {
    if text.len() != 2 * N {
        return Err(ParseIdError::Length {
            kind,
            got: text.len(),
            expected: 2 * N,
        });
    }
    let mut bytes = [0; N];
    HEXLOWER
        .decode_mut(text.as_bytes(), &mut bytes)
        .map_err(|_| ParseIdError::Digit { kind })?;
    Ok(bytes)
}

/// Copies the first `N` bytes out; bytes that are missing read as zero (callers pass enough).
pub(crate) fn split_array<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    match bytes.split_first_chunk::<N>() {
        Some((head, tail)) => (*head, tail),
        None => ([0; N], &[]),
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 64];
    for part in bytes.chunks(32) {
        let text = &mut text[..2 * part.len()];
        HEXLOWER.encode_mut(part, text);
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}
