//! How the program speaks: one JSON document or text on stdout, everything else on stderr.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use backup::backup_backend::{Counters, Counts};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::signals::Stop;
use crate::text::clean;

/// What every command needs to know of the terminal.
#[derive(Debug)]
pub(crate) struct Ui {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) stop: Arc<Stop>,
    /// What was asked of the stores that were opened.
    pub(crate) requests: Mutex<Vec<Arc<Counters>>>,
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
        let text = if self.json {
            line(&self.with_requests(document)?)?
        } else {
            text()
        };
        write_text(out, &text)
    }

    /// Keeps the counters of a store that is used.
    pub(crate) fn counts(&self, requests: Arc<Counters>) {
        let kept = self.requests.lock();
        kept.unwrap_or_else(PoisonError::into_inner).push(requests);
    }

    /// The document, and how often the stores were asked for it.
    fn with_requests(&self, document: &impl Serialize) -> Result<Value, Failure> {
        let mut document =
            serde_json::to_value(document).map_err(|e| Failure::Output { source: e.into() })?;
        let requests = self.requests.lock();
        let requests = requests.unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = document.as_object_mut()
            && !requests.is_empty()
        {
            let counts: Vec<Counts> = requests.iter().map(|store| store.counts()).collect();
            object.insert("requests".into(), requests_document(&counts));
        }
        Ok(document)
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
            && let Ok(line) = line(&failure.document())
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
pub(crate) fn line(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(document).map_err(|e| Failure::Output { source: e.into() })
}

/// Requests to all stores by kind, failed ones included, and what they cost.
fn requests_document(counts: &[Counts]) -> Value {
    let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
    json!({
        "put": sum(|counts| counts.put.calls),
        "get": sum(|counts| counts.get.calls),
        "list": sum(|counts| counts.list.calls),
        "head": sum(|counts| counts.head.calls),
        "delete": sum(|counts| counts.delete.calls),
        "failed": sum(|counts| counts.total().failures),
        "bytes_sent": sum(|counts| counts.put.bytes),
        "bytes_received": sum(|counts| counts.get.bytes),
        "price_usd": price_usd(
            sum(|counts| counts.put.calls + counts.list.calls),
            sum(|counts| counts.get.calls + counts.head.calls),
        ),
    })
}

/// What Amazon takes for the requests in its first region, in US dollars: 0.005 for a thousand PUT or LIST, 0.0004 for a
/// thousand GET or HEAD, nothing for DELETE; traffic and storage not included. Source: its price list of 2026.
fn price_usd(dear: u64, cheap: u64) -> f64 {
    // Fractions of a millionth of a dollar are noise of the arithmetic.
    (dear as f64 * 5.0 + cheap as f64 * 0.4).round() / 1e6
}
