use std::time::Duration;

use backup::{VerifyLevel, VerifyReport, verify};
use serde_json::{Value, json};

use crate::args::{GlobalArguments, VerifyArguments};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::ui::{Outcome, Ui};
use crate::{place, text};

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
    let repo = place::open(global).await?;
    let progress = Progress::start(ui, "verify");
    let report = verify(&repo, level, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    ui.result(&document(&report, time), || summary(&report, time))?;
    Ok(Outcome::complete_if(report.is_sound()))
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

fn summary(report: &VerifyReport, time: Duration) -> String {
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
