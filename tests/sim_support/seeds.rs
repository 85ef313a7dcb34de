//! Many seeds at once, and what became of them all.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use backup::sim::Mark;

use super::plan::{Fault, Profile};
use super::scenario::{Outcome, run};

/// What many runs tell together.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) runs: u64,
    pub(crate) requests: u64,
    pub(crate) windows: BTreeMap<&'static str, Mark>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) verbs: BTreeMap<&'static str, [u64; 2]>,
    /// One line for each run that failed.
    pub(crate) failures: Vec<String>,
}

impl Account {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.requests += outcome.requests;
        for (name, mark) in outcome.windows {
            let sum = self.windows.entry(name).or_default();
            sum.passed += mark.passed;
            sum.fired += mark.fired;
        }
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (verb, [good, bad]) in outcome.verbs {
            let sum = self.verbs.entry(verb).or_default();
            sum[0] += good;
            sum[1] += bad;
        }
    }
}

/// Runs one seed; a panic is a failure too. A failure is one line that says how to see it again.
pub(crate) fn check(seed: u64, profile: Profile, is_told: bool) -> Result<Outcome, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| run(seed, profile, is_told)));
    let broken = match caught {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(broken)) => broken,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without a text"))
        }
    };
    Err(format!(
        "SEED={seed} PROFILE={profile:?} SCENARIO=agents {broken}"
    ))
}

/// Runs `count` seeds from `first` on all cores; stops soon after a few failures.
pub(crate) fn check_many(first: u64, count: u64, profile: Profile) -> Account {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(first);
    let account = Mutex::new(Account::default());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || account.lock().unwrap().failures.len() >= 3 {
                        return;
                    }
                    let outcome = check(seed, profile, false);
                    let mut account = account.lock().unwrap();
                    match outcome {
                        Ok(outcome) => account.add(outcome),
                        Err(line) => account.failures.push(line),
                    }
                }
            });
        }
    });
    account.into_inner().unwrap()
}

/// The seeds that once failed, from the files in `tests/seeds`: lines as failures print them.
pub(crate) fn known() -> Vec<(u64, Profile)> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeds");
    let mut files: Vec<_> = std::fs::read_dir(place)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut seeds = Vec::new();
    for line in files.iter().flat_map(|path| lines(path)) {
        let word = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name))
        };
        let seed = word("SEED=").and_then(|seed| seed.parse().ok());
        let profile = word("PROFILE=").and_then(Profile::parse);
        let known = seed.zip(profile);
        seeds.push(known.unwrap_or_else(|| panic!("no seed and profile in: {line}")));
    }
    seeds
}

/// The names of all windows in the sources.
pub(crate) fn windows() -> Vec<String> {
    let mut names = Vec::new();
    let mut places = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            let entries = std::fs::read_dir(place).unwrap();
            places.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(place).unwrap();
        let calls = text.split("buggify(\"").skip(1);
        names.extend(calls.filter_map(|call| Some(call.split_once('"')?.0.to_owned())));
    }
    names
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("SEED="));
    lines.map(str::to_owned).collect()
}
