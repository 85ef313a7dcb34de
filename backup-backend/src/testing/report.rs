use std::fmt;

use crate::Capabilities;

/// What the suite found, check by check.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The version of the suite: it grows when a check is added or made stricter.
    pub suite_version: u32,
    /// What the backend claims.
    pub capabilities: Capabilities,
    /// Every check, in the order in which it ran.
    pub checks: Vec<Check>,
}

/// One check and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// A sentence about a backend that passes.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not run, since the backend does not claim the capability.
    Skipped,
    /// What was wrong.
    Failed(String),
}

impl Report {
    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Failed(_)))
    }

    /// Ends a test.
    ///
    /// # Panics
    /// If a check failed; the message holds the whole report.
    pub fn assert_ok(&self) {
        assert!(self.failed().next().is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "conformance suite {} with {:?}",
            self.suite_version, self.capabilities
        )?;
        for check in &self.checks {
            match &check.outcome {
                Outcome::Passed => writeln!(f, "passed   {}", check.name)?,
                Outcome::Skipped => writeln!(f, "skipped  {}", check.name)?,
                Outcome::Failed(why) => writeln!(f, "FAILED   {}: {why}", check.name)?,
            }
        }
        Ok(())
    }
}
