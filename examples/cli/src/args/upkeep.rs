//! Arguments of the commands that give snapshots up and collect what nothing needs any more.

use std::path::PathBuf;

use clap::Args;

use super::{SNAPSHOT, Span, parse_pause, parse_size};

pub(super) const FORGET_NOTES: &str = "\
A policy looks at each source by itself and keeps whatever one of its rules keeps; hours, days and so on without a snapshot are not \
counted. It goes by the times at which the store received the snapshots. It never gives up the newest complete snapshot of a source, nor \
one that is held. TIME is 2w, 1d12h or 90min.

FILE holds JSON: {\"default\": {\"keep_last\": 3, \"hourly\": 0, \"daily\": 7, \"weekly\": 5, \"monthly\": 12, \"yearly\": 3, \"within\": \"2d\", \
\"tags\": [\"keep\"]}, \"per_source\": {\"NAME\": {\"daily\": 30}}}. What is absent keeps nothing; a source under per_source takes nothing \
from default; a source for which nothing is kept is an error.

No space is free until `backup gc` runs, a week or more after this (its --undelete-window). Until then `backup snapshots --forgotten` lists \
what was given up, and `backup unforget` brings it back.

Exit status: 0 done, 1 error (nothing was given up), 2 wrong usage, 3 somebody else decided about a snapshot meanwhile: look again.";

pub(super) const GC_NOTES: &str = "\
Runs beside backups, restores and other collectors, and may be stopped or die at any moment: the next run goes on. It needs a store that \
never overwrites when told to create, and whose lists are consistent (`backup stats` tells); on others say --exclusive, and see to it.

It gives snapshots up for good that were forgotten longer ago than the undelete window, then deletes packs that nothing needs, and packs \
anew what is needed of those that are mostly garbage. TIME is 2w, 1d12h or 90min, SIZE is 512M or 4G. No time makes a deletion safe or \
unsafe: they only say how long to wait.

Exit status: 0 everything was done, 1 error, 2 wrong usage, 3 some packs could not be deleted or read; each is named.";

pub(super) const PINS_NOTES: &str = "\
Remembers the newest snapshots of each source in a file of this machine. Run it now and then, best after each backup: a store that shows \
less than before, or another history, is told as an ALARM. What was never seen here cannot be missed: of a source that is new to the file, \
newer snapshots may have been withheld, and it says so.

Exit status: 0 nothing is missing, 1 error, 2 wrong usage, 3 an alarm. An alarm comes again until it is sorted out or accepted.";

#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// These snapshots: the beginning of an id, `latest`, or `latest:<source>`; without any, a policy decides.
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["KeepArguments", "policy", "source", "max_forget_percent"])]
    pub(crate) snapshots: Vec<String>,
    /// Change nothing; say what would be given up.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Only of this source; what the policy says of others is not asked.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Refuse a policy that gives up more than so many of 100 snapshots of a source [default: 75].
    #[arg(long, value_name = "0..100", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) max_forget_percent: Option<u8>,
    /// Give up although that is much, and by name also the last complete snapshot of a source.
    #[arg(long)]
    pub(crate) force: bool,
    /// Why, for whoever looks at what was given up.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// Policies for each source, from a file: see below.
    #[arg(long, value_name = "FILE", conflicts_with = "KeepArguments")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) keep: KeepArguments,
}

/// A policy for all sources.
#[derive(Debug, Args)]
#[command(next_help_heading = "What stays of each source")]
pub(crate) struct KeepArguments {
    /// The N newest complete snapshots.
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// The newest complete one of each of the last N hours that have one.
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// Of each of the last N days, in UTC.
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// Of each of the last N weeks, which begin on Monday.
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// Of each of the last N months.
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// Of each of the last N years.
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<u32>,
    /// Every one of the last TIME, complete or not.
    #[arg(long, value_name = "TIME")]
    pub(crate) keep_within: Option<Span>,
    /// Every one with this tag, complete or not; may be repeated.
    #[arg(long, value_name = "TAG")]
    pub(crate) keep_tag: Vec<String>,
}

/// Snapshots by name.
#[derive(Debug, Args)]
pub(crate) struct NamesArguments {
    #[arg(help = SNAPSHOT, required = true, value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Change nothing; say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave packs younger than this, by the store's clock: a backup that was interrupted goes on from what it stored.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) pack_age_min: Span,
    /// Drop forgotten snapshots after this, by the store's clock; until then they can be had back.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub(crate) undelete_window: Span,
    /// Give up a session that showed no sign of life for so long, by the store's clock. If it lives after all, it goes on
    /// in another session and stores again what it relied on.
    #[arg(long, value_name = "TIME", default_value = "15min")]
    pub(crate) lease: Span,
    /// Look so often whether a session that is waited for has answered.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_pause)]
    pub(crate) poll: Span,
    /// Pack anew what is needed of a pack of which at least so much is not needed.
    #[arg(long, value_name = "1..100", default_value_t = 25, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) repack_dead_percent: u8,
    /// Pack anew at most so many bytes of packs in this run, the worst first.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub(crate) repack_max: u64,
    /// Pack nothing anew: less is read and written, and less becomes free.
    #[arg(long, conflicts_with_all = ["repack_dead_percent", "repack_max"])]
    pub(crate) no_repack: bool,
    /// Refuse to delete more than this share of the bytes of all packs.
    #[arg(long, value_name = "0..100", default_value_t = 75, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) max_delete_percent: u8,
    /// Delete although much would go, no snapshot is left, or chunks that snapshots need are missing already.
    #[arg(long)]
    pub(crate) force: bool,
    /// I promise that nothing else uses the repository until this ends: then any store will do.
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// Ask the store at most so often, 0 for no limit [default: 100 for a bucket, no limit for a directory].
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_second: Option<u64>,
    /// Memory for sorting; what does not fit goes to the scratch directory [default: 256M].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Keep here what was marked, so that the next run reads only what is new [default: backup in $XDG_CACHE_HOME or
    /// ~/.cache].
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep nothing; read all item lists again.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// For temporary files [default: the temporary directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch_dir: Option<PathBuf>,
}

impl ForgetArguments {
    pub(super) fn names_nothing(&self) -> bool {
        self.snapshots.is_empty() && self.policy.is_none() && self.keep.is_empty()
    }
}

impl KeepArguments {
    fn is_empty(&self) -> bool {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        counts == [None; 6] && self.keep_within.is_none() && self.keep_tag.is_empty()
    }
}
