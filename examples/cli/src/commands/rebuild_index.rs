use backup::{RebuildReport, rebuild_index};
use serde_json::json;

use crate::args::GlobalArguments;
use crate::failure::Failure;
use crate::place;
use crate::progress::Progress;
use crate::text;
use crate::ui::{Outcome, Ui};

pub(crate) async fn run(ui: &Ui, global: &GlobalArguments) -> Result<Outcome, Failure> {
    let repo = place::open(ui, global).await?;
    let progress = Progress::start(ui, "rebuild-index");
    let report = rebuild_index(&repo, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    let document = json!({
        "packs": report.packs,
        "chunks": report.chunks,
        "unreadable": report.unreadable,
        "segments_written": report.segments_written,
        "segments_deleted": report.segments_deleted,
        "seconds": time.as_secs_f64(),
    });
    ui.result(&document, || summary(&report))?;
    Ok(Outcome::complete_if(report.unreadable.is_empty()))
}

fn summary(report: &RebuildReport) -> String {
    let mut text = format!(
        "{} with {} in {}; {} gone\n",
        text::counted(report.packs, "pack"),
        text::counted(report.chunks, "chunk"),
        text::counted(report.segments_written, "segment"),
        text::counted(report.segments_deleted, "old one"),
    );
    for pack in &report.unreadable {
        text.push_str(&format!(
            "cannot be read: {pack} (`backup repair` sets it aside)\n"
        ));
    }
    text
}
