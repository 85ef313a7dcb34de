use std::time::Duration;

use backup::{VerifyLevel, VerifyReport, verify};
use backup_backend_s3::S3;
use serde_json::{Value, json};

use crate::args::{GlobalArguments, VerifyArguments};
use crate::failure::Failure;
use crate::place::{self, Place};
use crate::progress::Progress;
use crate::s3;
use crate::text;
use crate::ui::{Outcome, Ui};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: VerifyArguments,
) -> Result<Outcome, Failure> {
    let level = match arguments.sample {
        Some(packs) => VerifyLevel::Sample(packs),
        None if arguments.data => VerifyLevel::AllData,
        None => VerifyLevel::Structure,
    };
    let repo = place::open(ui, global).await?;
    let progress = Progress::start(ui, "verify");
    let report = verify(&repo, level, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    let unlocked = match Place::of(global)? {
        Place::S3 { config, .. } if global.s3.locks() => {
            let store = S3::new(*config).map_err(|source| Failure::S3 { source })?;
            s3::unlocked(&store).await?
        }
        _ => Vec::new(),
    };
    let mut document = document(&report, time);
    document["unlocked"] = json!(unlocked);
    ui.result(&document, || {
        let mut text = summary(&report, time);
        for object in &unlocked {
            text.push_str(&format!("not locked: {}\n", text::clean(object)));
        }
        text
    })?;
    Ok(Outcome::complete_if(
        report.is_sound() && unlocked.is_empty(),
    ))
}

pub(crate) fn document(report: &VerifyReport, time: Duration) -> Value {
    let damage = report.damage.iter().map(|damage| {
        json!({ "object": damage.object, "finding": damage.finding, "snapshots": damage.snapshots })
    });
    json!({
        "sound": report.is_sound(),
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "chunks": report.chunks,
        "bytes_read": report.bytes_read,
        "seconds": time.as_secs_f64(),
        "damage": damage.collect::<Vec<_>>(),
    })
}

pub(crate) fn summary(report: &VerifyReport, time: Duration) -> String {
    let mut text = format!(
        "checked {}, {}, {}; read {} of {} in {}\n",
        text::counted(report.snapshots, "snapshot"),
        text::counted(report.packs, "pack"),
        text::counted(report.chunks, "chunk"),
        text::bytes(report.bytes_read),
        text::counted(report.packs_read, "pack"),
        text::seconds(time),
    );
    for damage in &report.damage {
        text.push_str(&format!(
            "damaged: {}: {}\n",
            text::clean(&damage.object),
            text::clean(&damage.finding)
        ));
        for snapshot in &damage.snapshots {
            text.push_str(&format!("  hurts snapshot {}\n", text::short(snapshot)));
        }
    }
    text.push_str(if report.is_sound() {
        "no damage found\n"
    } else {
        "the repository is damaged\n"
    });
    text
}
