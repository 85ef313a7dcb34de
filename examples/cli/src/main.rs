//! The program `backup`: the crates' verbs at a terminal. What is logic is in the libraries; here are arguments,
//! secrets, tables and exit statuses.

mod args;
mod commands;
mod exclude;
mod failure;
mod place;
mod progress;
mod s3;
mod signals;
mod text;
mod ui;
mod unlock;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::runtime::Builder;

use crate::args::Arguments;
use crate::failure::Failure;
use crate::signals::Stop;
use crate::ui::{Outcome, Ui};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.check() {
        error.exit();
    }
    let ui = Ui {
        json: arguments.global.json,
        quiet: arguments.global.quiet,
        stop: Arc::new(Stop::default()),
        requests: Default::default(),
    };
    match run(&ui, arguments) {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            ui.report(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(ui: &Ui, arguments: Arguments) -> Result<Outcome, Failure> {
    // The work is done on the blocking pool; few threads are enough to hand it out. A pool of twice the cores and a few
    // for slow disks keeps all busy; each thread more has a heap of its own and costs memory (measured: a restore peaks
    // at 186 MiB with 8 threads and at 220 MiB without this limit).
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2 * cores + 4)
        .enable_all()
        .build()
        .map_err(|source| Failure::Runtime { source })?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = commands::run(ui, arguments) => outcome,
            signal = signals::watch(&ui.stop) => Err(signal),
        }
    });
    // A thread may wait for input that never comes: it is left behind.
    runtime.shutdown_background();
    outcome
}
