use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use backup::{
    Error, Forget, ForgetOptions, ForgetReport, KeepReason, RetentionPolicy, RetentionRules,
    SessionId, SnapshotFilter, SnapshotManifest, forget, snapshots,
};
use serde_json::{Value, json};

use crate::args::{ForgetArguments, GlobalArguments, KeepArguments};
use crate::failure::Failure;
use crate::ui::{Outcome, Ui};
use crate::{place, text};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: ForgetArguments,
) -> Result<Outcome, Failure> {
    let rules = rules(&arguments)?;
    let mut options = ForgetOptions::default();
    options.dry_run = arguments.dry_run;
    options.source = arguments.source.clone();
    options.force = arguments.force;
    options.reason = arguments.reason;
    if let Some(percent) = arguments.max_forget_percent {
        options.forget_percent_max = percent;
    }
    let repo = place::open(ui, global).await?;
    let what = match rules {
        Some(rules) => Forget::ByPolicy(rules),
        None => {
            let found = super::find_all(&repo, &arguments.snapshots).await?;
            Forget::These(found.iter().map(|snapshot| snapshot.session).collect())
        }
    };
    let mut filter = SnapshotFilter::default();
    filter.source = arguments.source;
    // Before: what is given up is listed no more.
    let known = snapshots(&repo, &filter).await?;
    if let (true, Some(name)) = (known.is_empty(), filter.source) {
        return Err(Error::SnapshotNotFound { name }.into());
    }
    let report = forget(&repo, &what, &options).await?;
    let fates = Fates::new(&known, &report);
    ui.result(&document(options.dry_run, &fates, &report), || {
        summary(options.dry_run, &fates, &report)
    })?;
    Ok(Outcome::complete_if(report.overtaken.is_empty()))
}

/// The policies that the arguments give; `None` where they name snapshots.
fn rules(arguments: &ForgetArguments) -> Result<Option<RetentionRules>, Failure> {
    if let Some(path) = &arguments.policy {
        return read_rules(path).map(Some);
    }
    if !arguments.snapshots.is_empty() {
        return Ok(None);
    }
    let mut rules = RetentionRules::default();
    rules.default = policy(&arguments.keep);
    Ok(Some(rules))
}

fn read_rules(path: &Path) -> Result<RetentionRules, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::Read {
        what: "the policies of",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| Failure::Policy {
        path: path.to_owned(),
        source,
    })
}

fn policy(keep: &KeepArguments) -> RetentionPolicy {
    let mut policy = RetentionPolicy::default();
    policy.keep_last = keep.keep_last.unwrap_or_default();
    policy.hourly = keep.keep_hourly.unwrap_or_default();
    policy.daily = keep.keep_daily.unwrap_or_default();
    policy.weekly = keep.keep_weekly.unwrap_or_default();
    policy.monthly = keep.keep_monthly.unwrap_or_default();
    policy.yearly = keep.keep_yearly.unwrap_or_default();
    policy.within = keep.keep_within.as_ref().map(|span| span.time);
    policy.tags = keep.keep_tag.clone();
    policy
}

/// What becomes of a snapshot.
enum Fate<'a> {
    Stays(&'a [KeepReason]),
    Goes,
    Overtaken,
}

/// What becomes of the snapshots of each source, the oldest first.
struct Fates<'a>(BTreeMap<&'a str, Vec<(&'a SnapshotManifest, Fate<'a>)>>);

impl<'a> Fates<'a> {
    fn new(known: &'a [SnapshotManifest], report: &'a ForgetReport) -> Self {
        let kept = report.kept.iter();
        let kept = kept.map(|kept| (kept.id, Fate::Stays(&kept.reasons)));
        let goes = report.forgotten.iter().map(|id| (*id, Fate::Goes));
        let overtaken = report.overtaken.iter().map(|id| (*id, Fate::Overtaken));
        let mut fates: BTreeMap<SessionId, Fate<'a>> = kept.chain(goes).chain(overtaken).collect();
        let mut sources: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for snapshot in known {
            if let Some(fate) = fates.remove(&snapshot.session) {
                let source = sources.entry(&*snapshot.source).or_default();
                source.push((snapshot, fate));
            }
        }
        Self(sources)
    }
}

fn document(is_dry: bool, fates: &Fates<'_>, report: &ForgetReport) -> Value {
    let snapshot = |snapshot: &SnapshotManifest, fate: &Fate<'_>| {
        let (fate, reasons) = match fate {
            Fate::Stays(reasons) => ("kept", *reasons),
            Fate::Goes => ("forgotten", [].as_slice()),
            Fate::Overtaken => ("overtaken", [].as_slice()),
        };
        let word = |reason: &KeepReason| reason.to_string().replace(' ', "_");
        json!({
            "snapshot": snapshot.session,
            "name": snapshot.source,
            "finished": text::time_utc(snapshot.finished_ns),
            "complete": snapshot.complete,
            "fate": fate,
            "reasons": reasons.iter().map(word).collect::<Vec<_>>(),
        })
    };
    let all = fates.0.values().flatten();
    json!({
        "dry_run": is_dry,
        "kept": report.kept.len(),
        "forgotten": report.forgotten,
        "overtaken": report.overtaken,
        "snapshots": all.map(|(manifest, fate)| snapshot(manifest, fate)).collect::<Vec<_>>(),
    })
}

fn summary(is_dry: bool, fates: &Fates<'_>, report: &ForgetReport) -> String {
    let mut text = String::new();
    for (source, snapshots) in &fates.0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", text::clean(source));
        for (snapshot, fate) in snapshots {
            let (word, why) = match fate {
                Fate::Stays(reasons) => {
                    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                    ("stays", format!("  {}", reasons.join(", ")))
                }
                Fate::Goes => ("goes ", String::new()),
                Fate::Overtaken => ("?    ", "  somebody else decided meanwhile".to_owned()),
            };
            let (id, time) = (
                text::short(&snapshot.session),
                text::time_local(snapshot.finished_ns),
            );
            let _ = writeln!(text, "  {word}  {id}  {time}{why}");
        }
    }
    let (going, staying) = (report.forgotten.len() as u64, report.kept.len() as u64);
    let stay = match staying {
        0 => String::new(),
        _ => format!(", {} kept", text::counted(staying, "snapshot")),
    };
    text.push_str(&match (going, is_dry) {
        (0, _) => format!("nothing is given up{stay}\n"),
        (_, true) => format!(
            "dry run, nothing was changed: {} would be given up{stay}\n",
            text::counted(going, "snapshot")
        ),
        (_, false) => format!(
            "{} given up{stay}. `backup gc` drops what was given up a week ago or longer (its --undelete-window); until \
             then `backup snapshots --forgotten` lists it, and `backup unforget SNAPSHOT` brings it back\n",
            text::counted(going, "snapshot")
        ),
    });
    if !report.overtaken.is_empty() {
        text.push_str("not complete: look again, with the same command\n");
    }
    text
}
