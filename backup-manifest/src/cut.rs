//! Where a page ends: decided by the records themselves, so that a change in one place moves no cut elsewhere.

/// Turns an expected distance into a threshold: a uniform hash below it occurs once in `records` on average.
pub(crate) fn threshold(records: usize) -> u64 {
    u64::MAX / (records.max(1) as u64)
}

/// A hash of `bytes` whose value is part of no format, but must stay as it is: another one would cut all pages
/// anew, and store all lists once more.
///
/// Eight bytes a step, since paths are hashed for every item of every backup.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut hash = bytes.len() as u64;
    for word in words {
        hash = step(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0_u8; 8];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    mix(step(hash, u64::from_le_bytes(last)))
}

fn step(hash: u64, word: u64) -> u64 {
    // The golden ratio: any odd number with well mixed bits would do.
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// The finalizer of MurmurHash3, so that all bits of the input reach the high bits.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}
