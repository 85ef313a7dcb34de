use std::fmt;
use std::io::Cursor;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

use crate::probe;

/// Compression could not be set up, or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// The level is outside [`Compressor::LEVEL_MIN`] to [`Compressor::LEVEL_MAX`].
    #[error(
        "compression level {level} is not between {} and {}",
        Compressor::LEVEL_MIN,
        Compressor::LEVEL_MAX
    )]
    Level {
        /// The level asked for.
        level: i32,
    },
    /// zstd could not allocate its state.
    #[error("out of memory for compression")]
    OutOfMemory,
    /// zstd refused; with a buffer of the documented bound this does not happen.
    #[error("zstd cannot compress {len} bytes: {what}")]
    Zstd {
        /// Length of the input, in bytes.
        len: usize,
        /// zstd's own name of the error.
        what: &'static str,
    },
}

/// A zstd context that is made once per worker and reused: making one costs about as much as compressing a small block.
pub struct Compressor {
    /// `None`: store as it is.
    context: Option<CCtx<'static>>,
}

impl Compressor {
    /// The fastest level. Source: zstd manual; below -7 hardly anything is compressed.
    pub const LEVEL_MIN: i32 = -7;
    /// The strongest level. Source: `ZSTD_maxCLevel`.
    pub const LEVEL_MAX: i32 = 22;

    /// A context for `level`: -7 (fastest) to 22 (strongest); 0 stores without compression.
    ///
    /// # Errors
    /// [`CompressError::Level`], or [`CompressError::OutOfMemory`].
    pub fn new(level: i32) -> Result<Self, CompressError> {
        if !(Self::LEVEL_MIN..=Self::LEVEL_MAX).contains(&level) {
            return Err(CompressError::Level { level });
        }
        if level == 0 {
            return Ok(Self { context: None });
        }
        let mut context = CCtx::try_create().ok_or(CompressError::OutOfMemory)?;
        let parameters = [
            CParameter::CompressionLevel(level),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ];
        for parameter in parameters {
            context
                .set_parameter(parameter)
                .map_err(|code| CompressError::Zstd {
                    len: 0,
                    what: zstd_safe::get_error_name(code),
                })?;
        }
        Ok(Self {
            context: Some(context),
        })
    }

    /// Appends `codec u8 ‖ 3 zero ‖ plain_len u32 ‖ body` to `out`.
    pub(crate) fn encode_inner(
        &mut self,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CompressError> {
        // `seal` bounds the plaintext by far less than 4 GiB.
        let plain_len = u32::try_from(plaintext.len()).map_err(|_| CompressError::Zstd {
            len: plaintext.len(),
            what: "too long",
        })?;
        let start = out.len();
        // The whole bound, not what is hoped for: how zstd encodes may depend on the room it is given, and equal blocks
        // shall become equal bytes.
        out.reserve(INNER_HEADER_LEN + zstd_safe::compress_bound(plaintext.len()));
        out.extend_from_slice(&[CODEC_ZSTD, 0, 0, 0]);
        out.extend_from_slice(&plain_len.to_le_bytes());
        if self.compress_into(plaintext, out)? {
            return Ok(());
        }
        out.truncate(start + INNER_HEADER_LEN);
        if let Some(codec) = out.get_mut(start) {
            *codec = CODEC_RAW;
        }
        out.extend_from_slice(plaintext);
        Ok(())
    }

    /// Appends a zstd frame and returns true; false when it is not worth it (then `out` may hold a tail to cut off).
    fn compress_into(
        &mut self,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, CompressError> {
        let Some(context) = &mut self.context else {
            return Ok(false);
        };
        if probe::is_incompressible(plaintext) {
            return Ok(false);
        }
        let mut cursor = Cursor::new(std::mem::take(out));
        cursor.set_position(cursor.get_ref().len() as u64);
        let result = context.compress2(&mut cursor, plaintext);
        *out = cursor.into_inner();
        match result {
            Ok(len) => Ok(len < plaintext.len()),
            Err(code) => Err(CompressError::Zstd {
                len: plaintext.len(),
                what: zstd_safe::get_error_name(code),
            }),
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor(..)")
    }
}

/// A zstd context for decoding, reused.
pub(crate) struct Decompressor {
    /// `None`: made when the first frame is to be decoded.
    context: Option<DCtx<'static>>,
}

/// Why an authentic `inner` is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    OutOfMemory,
    LengthMismatch { stated: u32 },
    Malformed(&'static str),
}

impl Decompressor {
    pub(crate) fn new() -> Result<Self, DecodeError> {
        let mut new = Self::for_one();
        new.context()?;
        Ok(new)
    }

    /// For one small piece, which is most likely stored as it is: making a context would cost more than all the rest.
    pub(crate) fn for_one() -> Self {
        Self { context: None }
    }

    fn context(&mut self) -> Result<&mut DCtx<'static>, DecodeError> {
        if self.context.is_none() {
            self.context = DCtx::try_create();
        }
        self.context.as_mut().ok_or(DecodeError::OutOfMemory)
    }

    /// Decodes `inner` to exactly `expected` bytes, which take the place of what `plaintext` holds. Nothing is allocated
    /// before every length has been checked.
    pub(crate) fn decode_inner(
        &mut self,
        inner: &[u8],
        expected: u32,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        plaintext.clear();
        let (codec, stated, body) = split_inner(inner)?;
        if stated != expected {
            return Err(DecodeError::LengthMismatch { stated });
        }
        let len = expected as usize;
        match codec {
            CODEC_RAW if body.len() == len => {
                reserve(plaintext, len)?;
                plaintext.extend_from_slice(body);
                Ok(())
            }
            CODEC_RAW => Err(DecodeError::Malformed(
                "the raw body has another length than stated",
            )),
            CODEC_ZSTD => {
                check_frame(body, expected)?;
                reserve(plaintext, len)?;
                let got = self
                    .context()?
                    .decompress(plaintext, body)
                    .map_err(|_| DecodeError::Malformed("the zstd frame does not decode"))?;
                if got == len {
                    Ok(())
                } else {
                    Err(DecodeError::Malformed(
                        "the zstd frame decodes to another length",
                    ))
                }
            }
            _ => Err(DecodeError::Malformed("the codec is unknown")),
        }
    }
}

fn reserve(plaintext: &mut Vec<u8>, len: usize) -> Result<(), DecodeError> {
    plaintext
        .try_reserve_exact(len)
        .map_err(|_| DecodeError::OutOfMemory)
}

/// The `plain_len` that `inner` states, after its header has been checked.
pub(crate) fn stated_len(inner: &[u8]) -> Result<u32, DecodeError> {
    split_inner(inner).map(|(_, stated, _)| stated)
}

fn split_inner(inner: &[u8]) -> Result<(u8, u32, &[u8]), DecodeError> {
    match inner {
        [codec, 0, 0, 0, a, b, c, d, body @ ..] => {
            Ok((*codec, u32::from_le_bytes([*a, *b, *c, *d]), body))
        }
        [_, _, _, _, _, _, _, _, ..] => Err(DecodeError::Malformed("reserved bytes are not zero")),
        _ => Err(DecodeError::Malformed("it is shorter than its header")),
    }
}

/// Accepts exactly one zstd frame, made like ours: content size stated and right, window at most 16 MiB, no dictionary,
/// no checksum, shorter than what it decodes to, and nothing after it.
///
/// Source: RFC 8878, section 3.1.1. (`zstd::bulk::decompress` takes any number of frames, skippable ones between them,
/// and windows of 128 MiB: 16 KB become 512 MiB.)
fn check_frame(body: &[u8], expected: u32) -> Result<(), DecodeError> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    let refuse = |what| Err(DecodeError::Malformed(what));
    if body.len() >= expected as usize {
        return refuse("the zstd frame is no shorter than its content");
    }
    let Some((descriptor, rest)) = body.strip_prefix(&MAGIC).and_then(<[u8]>::split_first) else {
        return refuse("the body is not a zstd frame");
    };
    if descriptor & 0b0001_1111 != 0 {
        return refuse("the zstd frame has a checksum, a dictionary or reserved bits");
    }
    let single_segment = descriptor & 0b0010_0000 != 0;
    let rest = if single_segment {
        rest
    } else {
        let Some((window, rest)) = rest.split_first() else {
            return refuse("the zstd frame ends early");
        };
        let base = 1_u64 << (10 + (window >> 3));
        let window_len = base + base / 8 * u64::from(window & 7);
        if window_len > 1 << WINDOW_LOG_MAX {
            return refuse("the zstd window is too large");
        }
        rest
    };
    let content_len = match (descriptor >> 6, single_segment, rest) {
        (0, true, [a, ..]) => u64::from(*a),
        (1, _, [a, b, ..]) => u64::from(u16::from_le_bytes([*a, *b])) + 256,
        (2, _, [a, b, c, d, ..]) => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        (3, _, [a, b, c, d, e, f, g, h, ..]) => {
            u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
        }
        _ => return refuse("the zstd frame does not state its content size"),
    };
    if content_len != u64::from(expected) {
        return refuse("the zstd frame states another content size");
    }
    if single_segment && content_len > 1 << WINDOW_LOG_MAX {
        return refuse("the zstd window is too large");
    }
    match zstd_safe::find_frame_compressed_size(body) {
        Ok(len) if len == body.len() => Ok(()),
        Ok(_) => refuse("bytes follow the zstd frame"),
        Err(_) => refuse("the zstd frame ends early"),
    }
}

/// Length of what stands before the body: codec, three zero bytes, plain length.
pub(crate) const INNER_HEADER_LEN: usize = 8;

const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// 16 MiB: the longest block, and what level 22 asks for at that length.
const WINDOW_LOG_MAX: u32 = 24;
