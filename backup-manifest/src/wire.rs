//! Reading and writing the numbers and byte strings all binary formats here are made of.

use thiserror::Error;

/// Why a part of a binary document could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The part ends in the middle of a value, or says that more follows than there is.
    #[error("{part} ends too early")]
    Truncated {
        /// The part of the document.
        part: &'static str,
    },
    /// A varint is longer than needed, longer than 10 bytes, or past 2^64.
    #[error("{part} holds a number that is not encoded minimally")]
    Number {
        /// The part of the document.
        part: &'static str,
    },
    /// A number is larger than its meaning allows.
    #[error("{part} holds {value}, more than {max}")]
    Range {
        /// The part of the document.
        part: &'static str,
        /// The number found.
        value: u64,
        /// The largest one allowed.
        max: u64,
    },
    /// Bytes are left behind the last value.
    #[error("{part} holds {len} bytes too many")]
    Trailing {
        /// The part of the document.
        part: &'static str,
        /// How many bytes are left.
        len: usize,
    },
}

/// Appends `value` as unsigned LEB128, at most 10 bytes.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps small numbers of either sign to small unsigned ones: 0, -1, 1, -2 … to 0, 1, 2, 3 …
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A position in one part of a binary document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    part: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(rest: &'a [u8], part: &'static str) -> Self {
        Self { rest, part }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next byte, left where it is.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        match self.rest.split_first() {
            Some((&first, rest)) => {
                self.rest = rest;
                Ok(first)
            }
            None => Err(WireError::Truncated { part: self.part }),
        }
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(len) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(WireError::Truncated { part: self.part }),
        }
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(WireError::Truncated { part: self.part }),
        }
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest.split_first() {
            Some((&first, rest)) if first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(first))
            }
            _ => self.varint_long(),
        }
    }

    fn varint_long(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (position, &byte) in self.rest.iter().enumerate().take(10) {
            // The tenth byte holds the top bit alone.
            if position == 9 && byte > 1 {
                return Err(WireError::Number { part: self.part });
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                if byte == 0 && position > 0 {
                    return Err(WireError::Number { part: self.part });
                }
                self.rest = self.rest.get(position + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        if self.rest.len() >= 10 {
            Err(WireError::Number { part: self.part })
        } else {
            Err(WireError::Truncated { part: self.part })
        }
    }

    /// A varint that may not pass `max`.
    #[inline]
    pub(crate) fn varint_max(&mut self, max: u64) -> Result<u64, WireError> {
        let value = self.varint()?;
        if value > max {
            return Err(WireError::Range {
                part: self.part,
                value,
                max,
            });
        }
        Ok(value)
    }

    /// A byte count, no larger than what is left.
    #[inline]
    pub(crate) fn len(&mut self) -> Result<usize, WireError> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(len) if len <= self.rest.len() => Ok(len),
            _ => Err(WireError::Truncated { part: self.part }),
        }
    }

    /// A varint that fits `u32`.
    #[inline]
    pub(crate) fn varint_u32(&mut self) -> Result<u32, WireError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| WireError::Range {
            part: self.part,
            value,
            max: u64::from(u32::MAX),
        })
    }

    /// A count of things that take at least `each_min` bytes, so no larger than what is left can hold.
    pub(crate) fn count(&mut self, each_min: usize) -> Result<usize, WireError> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(count) if count <= self.rest.len() / each_min => Ok(count),
            _ => Err(WireError::Truncated { part: self.part }),
        }
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing {
                part: self.part,
                len: self.rest.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), (value.max(1).ilog2() as usize) / 7 + 1);
                let mut cursor = Cursor::new(&out, "test");
                assert_eq!(cursor.varint(), Ok(value));
                assert_eq!(cursor.finish(), Ok(()));
                assert_eq!(unzigzag(zigzag(value as i64)), value as i64);
            }
        }
    }

    #[test]
    fn varints_longer_than_needed_are_refused() {
        let part = "test";
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x80; 11],
        ] {
            let found = Cursor::new(bytes, part).varint();
            assert_eq!(found, Err(WireError::Number { part }), "{bytes:x?}");
        }
        let found = Cursor::new(&[0x80; 9], part).varint();
        assert_eq!(found, Err(WireError::Truncated { part }));
    }
}
