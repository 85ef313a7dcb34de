use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::session::{SessionError, check_len, malformed, unsupported};

/// The longest encoded [`Decision`], in bytes.
pub const DECISION_LEN_MAX: usize = 64 * 1024;

const VERSION: u64 = 1;
const WHAT: &str = "decision";

/// What was decided about a snapshot. The decisions on one snapshot are a log, `retired/<session>/<number>`: whoever
/// creates the next number first decides, and the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "written as a literal; a further field is a further version"
)]
pub struct Decision {
    /// What.
    pub verdict: Verdict,
    /// Why, for people to read.
    pub reason: String,
    /// When, in nanoseconds since 1970, by the clock of whoever decided; for people to read.
    pub decided_ns: i64,
    /// Of a [`Verdict::Forget`]: it goes even if no other complete snapshot of its source is left.
    pub even_the_last: bool,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "a further verdict is a further version: whoever does not know it cannot go on"
)]
pub enum Verdict {
    /// It is given up; a collector drops it when the time to think again is over.
    Forget,
    /// It stays after all, or a hold ends.
    Keep,
    /// It stays, whatever retention says, until another decision.
    Hold,
    /// It is gone: a collector has begun to take what only it needs. There is no decision after this one.
    Drop,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u64,
    verdict: Verdict,
    reason: String,
    decided_ns: i64,
    even_the_last: bool,
}

impl Decision {
    /// Returns the JSON form.
    ///
    /// # Errors
    /// [`SessionError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let wire = Wire {
            version: VERSION,
            verdict: self.verdict,
            reason: self.reason.clone(),
            decided_ns: self.decided_ns,
            even_the_last: self.even_the_last,
        };
        let bytes = serde_json::to_vec(&wire).map_err(malformed(WHAT))?;
        check_len(WHAT, &bytes, DECISION_LEN_MAX)?;
        Ok(bytes)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`SessionError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        check_len(WHAT, bytes, DECISION_LEN_MAX)?;
        let value: Value = serde_json::from_slice(bytes).map_err(malformed(WHAT))?;
        // Judged first: another version may have other fields.
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(version) => return Err(unsupported(WHAT, version)),
            None => {
                return Err(SessionError::Malformed {
                    what: WHAT,
                    reason: "no version".into(),
                });
            }
        }
        let wire: Wire = serde_json::from_value(value).map_err(malformed(WHAT))?;
        Ok(Self {
            verdict: wire.verdict,
            reason: wire.reason,
            decided_ns: wire.decided_ns,
            even_the_last: wire.even_the_last,
        })
    }
}
