//! Chooses, for each chunk that is needed, the one copy that stays. All of it goes once through sorted files, so it is to be
//! used where blocking is allowed.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use backup_core::ShortId;

use crate::Error;
use crate::gc::sort::{RefRecord, Sorted, read_place};

/// What stays, by the numbers of the packs.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Bytes of plaintext in each pack.
    pub(crate) total: Vec<u64>,
    /// Those of chunks that are needed and stay in this pack.
    pub(crate) live: Vec<u64>,
    /// Chunks that are needed and in no listed pack: how many, and the first.
    pub(crate) missing: u64,
    pub(crate) first_missing: Option<RefRecord>,
    /// The lower, the rather a pack is chosen.
    ranks: Vec<u32>,
}

/// What a choice goes by, besides what a pack holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) is_damaged: bool,
    /// When the store received it.
    pub(crate) modified: Option<SystemTime>,
}

/// A copy of a chunk: number of its pack, length in bytes.
type Copy = (u32, u32);

impl Choice {
    /// Chooses the pack of which the largest share is needed, so that few packs stay; of equals the newest, so that what was
    /// packed anew is not put back at once; a damaged pack only if there is no other.
    pub(crate) fn make(
        places: &Sorted<24>,
        refs: &Sorted<16>,
        packs: &[Facts],
    ) -> Result<Self, Error> {
        let mut choice = Self {
            total: vec![0; packs.len()],
            live: vec![0; packs.len()],
            missing: 0,
            first_missing: None,
            ranks: Vec::new(),
        };
        // Needed bytes of each pack, if every copy stayed.
        let mut needed = vec![0; packs.len()];
        each_chunk(places, refs, |id, copies, is_needed| {
            for copy in copies {
                add(&mut choice.total, *copy);
                if is_needed {
                    add(&mut needed, *copy);
                }
            }
            if is_needed && copies.is_empty() {
                choice.missing += 1;
                choice.first_missing.get_or_insert(id);
            }
        })?;
        choice.ranks = ranks(&choice.total, &needed, packs);
        let (ranks, live) = (&choice.ranks, &mut choice.live);
        each_chunk(places, refs, |_, copies, is_needed| {
            if is_needed && let Some(copy) = best(ranks, copies) {
                add(live, copy);
            }
        })?;
        Ok(choice)
    }

    /// The chunks that stay in each of these packs.
    pub(crate) fn staying_in(
        &self,
        places: &Sorted<24>,
        refs: &Sorted<16>,
        packs: &HashSet<u32>,
    ) -> Result<HashMap<u32, HashSet<ShortId>>, Error> {
        let mut staying: HashMap<u32, HashSet<ShortId>> = HashMap::new();
        each_chunk(places, refs, |id, copies, is_needed| {
            if is_needed
                && let Some((pack, _)) = best(&self.ranks, copies)
                && packs.contains(&pack)
            {
                let ids = staying.entry(pack).or_default();
                ids.insert(ShortId::from_bytes(id));
            }
        })?;
        Ok(staying)
    }
}

/// The packs among `condemned` that hold any of these chunks.
pub(crate) fn holders(
    places: &Sorted<24>,
    refs: &Sorted<16>,
    condemned: &HashSet<u32>,
) -> Result<HashSet<u32>, Error> {
    let mut found = HashSet::new();
    each_chunk(places, refs, |_, copies, is_needed| {
        if is_needed {
            let packs = copies.iter().map(|(pack, _)| *pack);
            found.extend(packs.filter(|pack| condemned.contains(pack)));
        }
    })?;
    Ok(found)
}

fn add(sums: &mut [u64], (pack, len): Copy) {
    if let Some(sum) = sums.get_mut(pack as usize) {
        *sum += u64::from(len);
    }
}

fn best(ranks: &[u32], copies: &[Copy]) -> Option<Copy> {
    let rank = |copy: &&Copy| ranks.get(copy.0 as usize).copied();
    copies.iter().min_by_key(rank).copied()
}

fn ranks(total: &[u64], needed: &[u64], packs: &[Facts]) -> Vec<u32> {
    let per_mille = |pack: usize| {
        let (total, needed) = (total.get(pack), needed.get(pack));
        match (total, needed) {
            (Some(total @ 1..), Some(needed)) => needed.saturating_mul(1000) / total,
            _ => 0,
        }
    };
    let mut order: Vec<(usize, &Facts)> = packs.iter().enumerate().collect();
    order.sort_by_key(|(pack, facts)| {
        let preferred = Reverse((per_mille(*pack), facts.modified));
        (facts.is_damaged, preferred, *pack)
    });
    let mut ranks = vec![0; packs.len()];
    for (rank, (pack, _)) in order.into_iter().enumerate() {
        if let Some(place) = ranks.get_mut(pack) {
            *place = rank as u32;
        }
    }
    ranks
}

/// Calls `visit` with each chunk that is in a pack or needed: its id, its copies (one for each pack), whether it is needed.
fn each_chunk(
    places: &Sorted<24>,
    refs: &Sorted<16>,
    mut visit: impl FnMut(RefRecord, &[Copy], bool),
) -> Result<(), Error> {
    let (mut places, mut refs) = (places.read()?, refs.read()?);
    let mut place = places.next()?.as_ref().map(read_place);
    let mut needed = refs.next()?;
    let mut copies: Vec<Copy> = Vec::new();
    loop {
        let id = match (place, needed) {
            (Some((id, ..)), Some(needed)) => id.min(needed),
            (Some((id, ..)), None) => id,
            (None, Some(needed)) => needed,
            (None, None) => return Ok(()),
        };
        copies.clear();
        while let Some((_, pack, len)) = place.filter(|(found, ..)| *found == id) {
            if copies.last().is_none_or(|(last, _)| *last != pack) {
                copies.push((pack, len));
            }
            place = places.next()?.as_ref().map(read_place);
        }
        let is_needed = needed == Some(id);
        if is_needed {
            needed = refs.next()?;
        }
        visit(id, &copies, is_needed);
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test]"
)]
mod tests {
    use std::time::{Duration, SystemTime};

    use backup_core::ShortId;

    use super::{Choice, Facts};
    use crate::Env;
    use crate::gc::sort::{Scratch, Sorted, Sorter, place_record};

    fn sorted<const N: usize>(records: impl Iterator<Item = [u8; N]>) -> Sorted<N> {
        let scratch = Scratch {
            directory: None,
            env: Env::default(),
        };
        let mut sorter = Sorter::new(1 << 20, scratch);
        records.for_each(|record| sorter.push(record));
        sorter.finish().unwrap()
    }

    /// Bytes that stay in each pack, all chunks being needed. Packs: when each was received, in seconds, and its chunks.
    fn live(packs: &[(u64, &[u8])]) -> Vec<u64> {
        let places = packs.iter().enumerate().flat_map(|(number, (_, chunks))| {
            let place = move |chunk: &u8| {
                place_record(&ShortId::from_bytes([*chunk; 16]), number as u32, 1)
            };
            chunks.iter().map(place)
        });
        let mut needed: Vec<u8> = packs
            .iter()
            .flat_map(|(_, chunks)| *chunks)
            .copied()
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let facts = packs.iter().map(|(second, _)| Facts {
            is_damaged: false,
            modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(*second)),
        });
        let facts: Vec<Facts> = facts.collect();
        let refs = sorted(needed.into_iter().map(|chunk| [chunk; 16]));
        Choice::make(&sorted(places), &refs, &facts).unwrap().live
    }

    #[test]
    fn what_was_packed_anew_is_preferred_to_a_pack_whose_chunks_are_all_needed_too() {
        // Two writers stored 1 to 3 at the same time; 4 to 9 is then packed anew, whatever the names of the packs are.
        assert_eq!(
            live(&[(1, &[1, 2, 3, 4, 5, 6, 7, 8, 9]), (2, &[1, 2, 3])]),
            [6, 3]
        );
        let (old, twin, new) = (
            (1, [1, 2, 3, 4, 5, 6, 7, 8, 9].as_slice()),
            (2, [1, 2, 3].as_slice()),
            (3, [4, 5, 6, 7, 8, 9].as_slice()),
        );
        assert_eq!(live(&[old, twin, new]), [0, 3, 6]);
        assert_eq!(live(&[new, twin, old]), [6, 3, 0]);
    }
}
