//! Bytes to back up, the same for the same seed, and readers that give them in pieces.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// SplitMix64: enough for test data, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// Bytes that do not compress and hold no run of zeros.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress like text.
pub(crate) fn text(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        bytes.extend_from_slice(format!("{} words and ", random.below(1000)).as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stretch {
    Noise(usize),
    /// Zeros that are written.
    Zeros(usize),
    /// Zeros that are not.
    Hole(usize),
}

impl Stretch {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Noise(len) | Self::Zeros(len) | Self::Hole(len) => len,
        }
    }
}

/// The bytes of a file made of stretches.
pub(crate) fn content(stretches: &[Stretch], seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, stretch) in stretches.iter().enumerate() {
        match *stretch {
            Stretch::Noise(len) => bytes.extend(noise(len, seed * 1000 + number as u64)),
            Stretch::Zeros(len) | Stretch::Hole(len) => bytes.resize(bytes.len() + len, 0),
        }
    }
    bytes
}

/// Writes a file of stretches, its holes as holes. Returns its bytes.
pub(crate) fn write_stretches(path: &Path, stretches: &[Stretch], seed: u64) -> Vec<u8> {
    let bytes = content(stretches, seed);
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let mut at = 0;
    for stretch in stretches {
        let end = at + stretch.len();
        if !matches!(stretch, Stretch::Hole(_)) {
            file.write_all_at(&bytes[at..end], at as u64).unwrap();
        }
        at = end;
    }
    bytes
}

/// A layout that is likely to hit a boundary: of pages, of the shortest hole, of windows.
pub(crate) fn random_stretches(random: &mut Random) -> Vec<Stretch> {
    const LENS: [usize; 12] = [
        1,
        4095,
        4096,
        4097,
        61_440,
        65_535,
        65_536,
        65_537,
        100_000,
        262_144,
        1 << 20,
        3 << 20,
    ];
    let count = 1 + random.below(14);
    let one = |random: &mut Random| {
        let len = match random.below(3) {
            0 => 1 + random.below(400_000) as usize,
            _ => *random.one_of(&LENS),
        };
        match random.below(5) {
            0 | 1 => Stretch::Noise(len),
            2 => Stretch::Zeros(len),
            _ => Stretch::Hole(len),
        }
    };
    (0..count).map(|_| one(random)).collect()
}

/// Gives bytes in pieces of odd lengths.
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    lens: Vec<usize>,
    reads: usize,
}

impl Pieces {
    /// Reads give at most each of `lens` bytes in turn, for ever.
    pub(crate) fn new(bytes: Vec<u8>, lens: impl Into<Vec<usize>>) -> Self {
        let lens = lens.into();
        Self {
            bytes,
            at: 0,
            lens,
            reads: 0,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        let len = self.lens[self.reads % self.lens.len()];
        self.reads += 1;
        let len = len.min(space.len()).min(self.bytes.len() - self.at);
        space[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        // A signal now and then is no end and no error.
        if len > 0 && self.reads.is_multiple_of(1000) {
            self.at -= len;
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        Ok(len)
    }
}
