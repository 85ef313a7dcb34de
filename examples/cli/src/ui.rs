//! How the program speaks: one JSON document or text on stdout, everything else on stderr.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use crate::failure::Failure;
use crate::signals::Stop;
use crate::text::clean;

/// What every command needs to know of the terminal.
#[derive(Debug)]
pub(crate) struct Ui {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) stop: Arc<Stop>,
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything asked for was done.
    Complete,
    /// Something was left out, or was found damaged; it has been named.
    Partial,
}

impl Outcome {
    pub(crate) fn complete_if(is_complete: bool) -> Self {
        if is_complete {
            Self::Complete
        } else {
            Self::Partial
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Complete => Self::SUCCESS,
            Outcome::Partial => Self::from(3),
        }
    }
}

impl Ui {
    /// Shows the result of a command: `document` as JSON, or else the text.
    pub(crate) fn result(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        self.result_on(&mut io::stdout().lock(), document, text)
    }

    /// As [`Ui::result`], where stdout may be taken by data.
    pub(crate) fn result_on(
        &self,
        out: &mut dyn Write,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.json { json(document)? } else { text() };
        write_text(out, &text)
    }

    /// A part of the result where there is no document.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        write_text(&mut io::stdout().lock(), text)
    }

    /// Something worth knowing that is not part of the result.
    pub(crate) fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            eprintln!("{}", clean(text));
        }
    }

    /// Says why a command failed, and what to do.
    pub(crate) fn report(&self, failure: &Failure) {
        // Whoever closed the pipe does not want to hear of it.
        if failure.is_broken_pipe() {
            return;
        }
        if self.json
            && let Ok(line) = json(&failure.document())
        {
            eprintln!("{line}");
            return;
        }
        let causes = failure.messages();
        let mut causes = causes.iter();
        eprintln!(
            "error: {}",
            causes.next().map(|text| clean(text)).unwrap_or_default()
        );
        for cause in causes {
            eprintln!("  because: {}", clean(cause));
        }
        if let Some(hint) = failure.hint() {
            eprintln!("  hint: {hint}");
        }
    }
}

fn write_text(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(end.as_bytes()));
    written
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Output { source })
}

/// One line of JSON.
pub(crate) fn json(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(document).map_err(|e| Failure::Output { source: e.into() })
}
