use backup::{RepairReport, VerifyLevel, repair};
use serde_json::json;

use crate::args::{GlobalArguments, RepairArguments};
use crate::commands::verify;
use crate::failure::Failure;
use crate::place;
use crate::progress::Progress;
use crate::text;
use crate::ui::{Outcome, Ui};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: RepairArguments,
) -> Result<Outcome, Failure> {
    let level = match arguments.sample {
        Some(packs) => VerifyLevel::Sample(packs),
        None => VerifyLevel::AllData,
    };
    let repo = place::open(ui, global).await?;
    let progress = Progress::start(ui, "verify");
    let report = repair(&repo, level, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    let mut document = verify::document(&report.verified, time);
    document["set_aside"] = json!(
        report
            .set_aside
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    );
    document["hurt"] = json!(report.hurt);
    ui.result(&document, || {
        verify::summary(&report.verified, time) + &summary(&report)
    })?;
    Ok(Outcome::complete_if(report.verified.is_sound()))
}

fn summary(report: &RepairReport) -> String {
    let mut text = String::new();
    for pack in &report.set_aside {
        text.push_str(&format!("set aside: pack {pack}\n"));
    }
    if !report.hurt.is_empty() {
        text.push_str(&format!(
            "{} hurt. Back up their sources again: what is still the same there is stored once more, and heals them. Then \
             `backup verify` tells what is left, and `backup gc` deletes bad packs that nothing needs.\n",
            text::counted(report.hurt.len() as u64, "snapshot"),
        ));
    }
    text
}
