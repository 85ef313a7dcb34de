use std::path::PathBuf;

use backup::{PinFinding, Pins, check_pins};
use backup_journal::atomic::{AtomicError, read_bounded, replace_durable};
use serde_json::json;

use crate::args::{GlobalArguments, PinsArguments};
use crate::failure::Failure;
use crate::place;
use crate::text;
use crate::ui::{Outcome, Ui};
use crate::unlock::variable;

/// The longest file of pins that is read, in bytes.
const LEN_MAX: u64 = 16 << 20;

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: PinsArguments,
) -> Result<Outcome, Failure> {
    let repo = place::open(ui, global).await?;
    let path = match arguments.file {
        Some(path) => path,
        None => user_state()
            .ok_or(Failure::NoPinsFile)?
            .join(format!("{}.pins.json", repo.id())),
    };
    let mut pins = match read_bounded(&path, LEN_MAX) {
        Ok(bytes) => Pins::decode(&bytes).map_err(|e| Failure::Library(e.into()))?,
        Err(AtomicError::NotFound { .. }) => Pins::new(repo.id()),
        Err(source) => return Err(Failure::PinsFile { source }),
    };
    for source in &arguments.accept {
        if !pins.forget(source) {
            ui.note(&format!("nothing was known of {source:?}"));
        }
    }
    let report = check_pins(&repo, &pins).await?;
    let bytes = report
        .pins()
        .encode()
        .map_err(|e| Failure::Library(e.into()))?;
    replace_durable(&path, &bytes, 0o600).map_err(|source| Failure::PinsFile { source })?;
    let findings = report.findings.iter().map(|finding| {
        json!({ "source": finding.source(), "alarm": finding.is_alarm(), "finding": finding.to_string() })
    });
    let document = json!({
        "sound": report.is_sound(),
        "unchanged": report.unchanged,
        "advanced": report.advanced,
        "findings": findings.collect::<Vec<_>>(),
    });
    ui.result(&document, || {
        summary(
            &report.findings,
            report.unchanged.len(),
            report.advanced.len(),
        )
    })?;
    Ok(Outcome::complete_if(report.is_sound()))
}

fn summary(findings: &[PinFinding], unchanged: usize, advanced: usize) -> String {
    let mut text = format!(
        "{} as remembered, {} with newer snapshots\n",
        text::counted(unchanged as u64, "source"),
        text::counted(advanced as u64, "source"),
    );
    for finding in findings {
        let word = if finding.is_alarm() { "ALARM" } else { "note" };
        text.push_str(&format!("{word}: {finding}\n"));
    }
    text
}

/// Source: the XDG Base Directory Specification 0.8; paths that are not absolute are to be ignored.
fn user_state() -> Option<PathBuf> {
    let absolute = |name| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(base?.join("backup"))
}
