//! Thirty virtual days of agents on one bucket, over many seeds: whatever was acked comes back, whatever goes wrong.
//!
//! A failure prints one line. `SIM_SEED=… SIM_PROFILE=… cargo test --features sim --test sim replay -- --nocapture` tells
//! that run request by request; the line goes into a file of `tests/seeds`, whose seeds are run first for ever.
//! `SIM_SEEDS=…` says how many seeds are run, `SIM_FIRST=…` from which on.
#![allow(
    clippy::field_reassign_with_default,
    reason = "options are made that way outside of their crate"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy only knows functions marked #[test]"
)]

mod sim_support;

use std::time::Instant;

use sim_support::plan::{Fault, Profile};
use sim_support::seeds::{check, check_many, known, windows};

#[expect(clippy::disallowed_methods, reason = "only people set these")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| text.parse().unwrap())
}

/// Runs of each profile, when nothing else is said.
const SEEDS: u64 = 200;

/// From so many runs on, each window and each fault must have come to pass...
const RUNS_MIN: u64 = 100;

/// ...and time must have passed in each window that was passed as often.
const PASSES_MIN: u64 = 100;

#[expect(clippy::disallowed_methods, reason = "it is told how fast it was")]
fn check_profile(profile: Profile) {
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let begin = Instant::now();
    let account = check_many(number("SIM_FIRST").unwrap_or(0), count, profile);
    let took = begin.elapsed().as_secs_f64();
    println!("{account:#?}");
    println!(
        "{profile:?}: {count} runs in {took:.1} s, {:.1} a second",
        count as f64 / took
    );
    assert!(
        account.failures.is_empty(),
        "\n{}\n",
        account.failures.join("\n")
    );
    if account.runs < RUNS_MIN {
        return;
    }
    for (window, mark) in &account.windows {
        let is_dead = mark.passed >= PASSES_MIN && mark.fired == 0;
        assert!(!is_dead, "no time ever passed in {window:?}: {mark:?}");
    }
    for window in windows().iter().filter(|_| profile == Profile::Honest) {
        let is_passed = account.windows.contains_key(window.as_str());
        assert!(is_passed, "nothing ever came to {window:?}");
    }
    for fault in Fault::ALL.iter().filter(|fault| fault.is_in(profile)) {
        assert!(account.faults[fault] > 0, "{fault:?} never happened");
    }
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for (seed, profile) in known() {
        check(seed, profile, false).unwrap();
    }
}

#[test]
fn what_was_acked_comes_back_from_an_honest_store() {
    check_profile(Profile::Honest);
}

#[test]
fn what_was_acked_comes_back_from_a_store_that_lists_badly() {
    check_profile(Profile::Weak);
}

#[test]
fn what_was_acked_comes_back_from_a_hostile_store() {
    check_profile(Profile::Hostile);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..30 {
        let profile = Profile::ALL[seed as usize % 3];
        let traces = [0, 1].map(|_| check(seed, profile, false).unwrap().trace);
        assert_eq!(traces[0], traces[1], "SEED={seed} PROFILE={profile:?}");
    }
}

#[test]
fn replay() {
    if let Some(seed) = number("SIM_SEED") {
        let profile = setting("SIM_PROFILE").unwrap_or("honest".into());
        let outcome = check(seed, Profile::parse(&profile).unwrap(), true).unwrap();
        println!("{outcome:#?}");
    }
}
