//! What goes wrong in a run, and how often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup::backup_backend::Capabilities;

use super::random::Random;

/// What the store is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As S3 promises: strongly consistent, only slow, failing, and unsure of what it did.
    Honest,
    /// Listings leave things out or repeat them.
    Weak,
    /// What is read may be other bytes as well.
    Hostile,
}

impl Profile {
    pub(crate) const ALL: [Self; 3] = [Self::Honest, Self::Weak, Self::Hostile];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let named = |profile: &&Self| format!("{profile:?}").eq_ignore_ascii_case(text);
        Self::ALL.iter().find(named).copied()
    }
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// An error, and nothing has happened.
    ErrorBefore,
    /// An error, and yet it has happened.
    ErrorAfter,
    /// An error, and it happens later: minutes, or days.
    Late,
    /// It happens now, and once more later.
    Twice,
    /// An error after which nobody tries again.
    Refused,
    /// Hours pass.
    Slow,
    /// For a while every request is refused as one too many.
    Burst,
    /// The process ends at a request.
    Crash,
    /// The process stands still at a request for up to forty days, and goes on.
    Suspend,
    /// A listing leaves out a key.
    ListLosesKey,
    /// A listing leaves out a page.
    ListLosesPage,
    /// A listing shows a page twice.
    ListRepeatsPage,
    /// An object read is cut short.
    Truncated,
    /// A bit of what is read is another.
    Flipped,
    /// What is read is another object.
    Exchanged,
    /// What is there is not found.
    Missing,
}

impl Fault {
    pub(crate) const ALL: [Self; 16] = [
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::Late,
        Self::Twice,
        Self::Refused,
        Self::Slow,
        Self::Burst,
        Self::Crash,
        Self::Suspend,
        Self::ListLosesKey,
        Self::ListLosesPage,
        Self::ListRepeatsPage,
        Self::Truncated,
        Self::Flipped,
        Self::Exchanged,
        Self::Missing,
    ];

    pub(crate) fn is_in(self, profile: Profile) -> bool {
        match profile {
            Profile::Honest => self < Self::ListLosesKey,
            Profile::Weak => self < Self::Truncated,
            Profile::Hostile => true,
        }
    }

    /// The highest rate, times in 65,536: of requests, or of actions.
    fn rate_max(self) -> u64 {
        match self {
            Self::ErrorBefore | Self::ErrorAfter => 4096,
            Self::Late | Self::Twice | Self::ListRepeatsPage => 2048,
            Self::Refused | Self::Burst | Self::Slow => 256,
            Self::Crash | Self::Suspend => 32_768,
            Self::ListLosesKey | Self::ListLosesPage => 4096,
            Self::Truncated | Self::Flipped | Self::Exchanged | Self::Missing => 2048,
        }
    }
}

/// The faults of one run: each is left out or has a rate, so that one kind cannot always hide another.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    /// Times in 65,536, in the order of [`Fault::ALL`].
    rates: [u64; Fault::ALL.len()],
    struck: [AtomicU64; Fault::ALL.len()],
    is_over: AtomicBool,
    /// Objects in a page of a listing.
    pub(crate) page_len: usize,
    /// What the store claims, whatever it does.
    pub(crate) claims: Capabilities,
    /// How far the store's clock is ahead, in milliseconds.
    pub(crate) skew_ms: i64,
}

impl FaultPlan {
    pub(crate) fn draw(seed: u64, profile: Profile) -> Self {
        let mut random = Random::new(seed, 1);
        let rates = Fault::ALL.map(|fault| {
            let is_left_out = random.below(2) == 0;
            // Rare ones matter too: a long action is to end well now and then.
            let rate = fault.rate_max() >> random.below(7);
            if is_left_out || !fault.is_in(profile) {
                0
            } else {
                rate
            }
        });
        let mut claims = Capabilities::ALL;
        claims.consistent_list = profile == Profile::Honest || random.below(2) == 0;
        Self {
            seed,
            profile,
            rates,
            struck: Default::default(),
            is_over: AtomicBool::new(false),
            page_len: *random.one_of(&[2, 3, 20, 1000]),
            claims,
            skew_ms: *random.one_of(&[0, 90_000, -90_000, 400 * 86_400_000]),
        }
    }

    /// Nothing goes wrong, and listings have long pages.
    pub(crate) fn calm(seed: u64, profile: Profile) -> Self {
        let mut calm = Self::draw(seed, profile);
        calm.end();
        calm.page_len = 1000;
        calm.claims = Capabilities::ALL;
        calm
    }

    /// Whether the fault happens now; counts it.
    pub(crate) fn strikes(&self, fault: Fault, random: &mut Random) -> bool {
        // The dice are thrown even when all is over: what follows is the same.
        let strikes =
            random.happens(self.rates[fault as usize]) && !self.is_over.load(Ordering::Relaxed);
        self.struck[fault as usize].fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    /// Whether a listing may leave out this key. A collector cannot wait for a session that no listing shows: where
    /// listings lose sessions, the store must not claim that they are consistent.
    pub(crate) fn may_lose(&self, key: &str) -> bool {
        !(self.claims.consistent_list && key.starts_with("sessions/"))
    }

    /// From now on nothing goes wrong.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// How often each fault happened.
    pub(crate) fn struck(&self) -> BTreeMap<Fault, u64> {
        let counts = self
            .struck
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        Fault::ALL.into_iter().zip(counts).collect()
    }
}
