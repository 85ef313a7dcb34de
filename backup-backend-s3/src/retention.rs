//! Object Lock: objects that the store does not delete before their time.

use std::time::SystemTime;

use backup_backend::{BackendError, ObjectKey};
use reqwest::header::HeaderName;

use crate::{Retention, RetentionMode, S3};

pub(crate) const MODE: HeaderName = HeaderName::from_static("x-amz-object-lock-mode");
pub(crate) const UNTIL: HeaderName = HeaderName::from_static("x-amz-object-lock-retain-until-date");

pub(crate) fn mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

pub(crate) fn until_text(until: SystemTime) -> String {
    humantime::format_rfc3339_seconds(until).to_string()
}

impl S3 {
    /// The retention that the store keeps for an object; `None` when there is none. Some stores take the wish for one and
    /// forget it, so that only this tells.
    ///
    /// # Errors
    /// `NotFound` and others.
    pub async fn retention(&self, key: &ObjectKey) -> Result<Option<Retention>, BackendError> {
        let answer = self.ask_head(key).await?;
        let text = |name| answer.text(name);
        let mode = match text(MODE) {
            Some("GOVERNANCE") => RetentionMode::Governance,
            Some("COMPLIANCE") => RetentionMode::Compliance,
            _ => return Ok(None),
        };
        let until = text(UNTIL).and_then(|date| humantime::parse_rfc3339(date).ok());
        Ok(until.map(|until| Retention { mode, until }))
    }
}
