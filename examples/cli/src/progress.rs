//! Shows a verb at work: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backup::{Event, ItemPath, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::signals::Stop;
use crate::text;
use crate::ui::Ui;

/// How often something is said where no bar can be drawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Watches one run of a verb.
pub(crate) struct Progress {
    verb: &'static str,
    display: Display,
    counts: Arc<Counts>,
    names_skipped: bool,
    skipped: Mutex<Vec<ItemPath>>,
    stop: Arc<Stop>,
    since: Stopwatch,
}

enum Display {
    Bar(ProgressBar),
    /// Seconds of the run at which the next line is due.
    Lines(AtomicU64),
    Nothing,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    total: AtomicU64,
    items: AtomicU64,
    stored: AtomicU64,
    sessions: AtomicU64,
    deleted: AtomicU64,
    freed: AtomicU64,
    /// What a verb of several steps is at.
    step: Mutex<Option<&'static str>>,
}

impl Progress {
    /// Begins to show `verb`, which listens to signals from now on.
    pub(crate) fn start(ui: &Ui, verb: &'static str) -> Self {
        let counts = Arc::new(Counts::default());
        let display = if ui.json || ui.quiet {
            Display::Nothing
        } else if stderr().is_terminal() {
            Display::Bar(bar(verb, counts.clone()))
        } else {
            Display::Lines(AtomicU64::new(PLAIN_INTERVAL.as_secs()))
        };
        ui.stop.listen();
        Self {
            verb,
            display,
            counts,
            names_skipped: !ui.json,
            skipped: Mutex::default(),
            stop: ui.stop.clone(),
            since: Stopwatch::start(),
        }
    }

    /// How long the verb has been at work.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// How many sessions were opened.
    pub(crate) fn sessions(&self) -> u64 {
        self.counts.sessions.load(Ordering::Relaxed)
    }

    /// All items that were skipped, however many.
    pub(crate) fn skipped(&self) -> Vec<ItemPath> {
        self.skipped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A line that stays.
    fn say(&self, line: &str) {
        match &self.display {
            Display::Bar(bar) => bar.println(line),
            Display::Lines(_) | Display::Nothing => eprintln!("{line}"),
        }
    }

    fn tick(&self) {
        let Display::Lines(due) = &self.display else {
            return;
        };
        let now = self.elapsed().as_secs();
        if now < due.load(Ordering::Relaxed) {
            return;
        }
        due.store(now + PLAIN_INTERVAL.as_secs(), Ordering::Relaxed);
        eprintln!("{}: {now} s, {}", self.verb, self.counts.line());
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event<'_>) {
        let counts = &self.counts;
        match event {
            Event::Bytes { bytes } => {
                counts.bytes.fetch_add(*bytes, Ordering::Relaxed);
                if let Display::Bar(bar) = &self.display {
                    bar.inc(*bytes);
                }
                self.tick();
            }
            Event::Total { bytes } => {
                counts.total.store(*bytes, Ordering::Relaxed);
                if let Display::Bar(bar) = &self.display {
                    bar.set_length(*bytes);
                    bar.set_style(style(BAR_WITH_LENGTH, self.verb, counts.clone()));
                }
            }
            Event::SessionOpened { .. } => {
                counts.sessions.fetch_add(1, Ordering::Relaxed);
            }
            Event::ItemFinished { .. } => {
                counts.items.fetch_add(1, Ordering::Relaxed);
            }
            Event::PackStored { bytes, .. } => {
                counts.stored.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Step { name } => {
                *counts.step() = Some(name);
                if let Display::Bar(bar) = &self.display {
                    bar.set_style(style(BAR_OF_STEPS, self.verb, counts.clone()));
                }
                self.tick();
            }
            Event::PackDeleted { bytes, .. } => {
                counts.deleted.fetch_add(1, Ordering::Relaxed);
                counts.freed.fetch_add(*bytes, Ordering::Relaxed);
                self.tick();
            }
            Event::SessionAwaited { session } if !matches!(self.display, Display::Nothing) => {
                let id = text::short(session);
                self.say(&format!(
                    "waiting for session {id} to answer, to end, or to be given up"
                ));
            }
            Event::ItemSkipped { path, reason } => {
                if self.names_skipped {
                    let path = if path.is_root() {
                        ".".into()
                    } else {
                        path.to_string()
                    };
                    self.say(&format!("skipped: {path}: {}", text::clean(reason)));
                }
                self.skipped
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((*path).clone());
            }
            Event::WeakStore { missing } if self.names_skipped => {
                self.say(&format!(
                    "warning: the store lacks {missing}: collect garbage only while nobody writes"
                ));
            }
            _ => {}
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.is_requested()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
        self.stop.unlisten();
    }
}

impl Counts {
    fn line(&self) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        if self.step().is_some() {
            return self.extras().trim_start_matches(", ").to_owned();
        }
        let mut line = text::bytes(load(&self.bytes));
        if load(&self.total) > 0 {
            line.push_str(&format!(" of {}", text::bytes(load(&self.total))));
        }
        line.push_str(&self.extras());
        line
    }

    fn extras(&self) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (items, stored) = (load(&self.items), load(&self.stored));
        let (deleted, freed) = (load(&self.deleted), load(&self.freed));
        let mut extras = String::new();
        if let Some(step) = *self.step() {
            extras.push_str(&format!(", {step}"));
        }
        if items > 0 {
            extras.push_str(&format!(", {}", text::counted(items, "item")));
        }
        if stored > 0 {
            extras.push_str(&format!(", {} stored", text::bytes(stored)));
        }
        if deleted > 0 {
            let deleted = text::counted(deleted, "pack");
            extras.push_str(&format!(
                ", {deleted} deleted, {} freed",
                text::bytes(freed)
            ));
        }
        extras
    }

    fn step(&self) -> MutexGuard<'_, Option<&'static str>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const BAR: &str = "{spinner} {verb} {elapsed} {bytes} ({bytes_per_sec}){extras}";
const BAR_OF_STEPS: &str = "{spinner} {verb} {elapsed}{extras}";
const BAR_WITH_LENGTH: &str = "{spinner} {verb} {elapsed} [{wide_bar}] {bytes} of {total_bytes} ({bytes_per_sec}), {eta} left{extras}";

fn bar(verb: &'static str, counts: Arc<Counts>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(style(BAR, verb, counts));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn style(template: &str, verb: &'static str, counts: Arc<Counts>) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .with_key(
            "verb",
            move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(verb);
            },
        )
        .with_key(
            "extras",
            move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&counts.extras());
            },
        )
}

/// Measures how long something takes.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the program looks at the clock"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
