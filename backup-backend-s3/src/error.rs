use std::time::Duration;

use backup_backend::{BackendError, ErrorKind};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;

use crate::client::Answer;
use crate::xml;

/// What a store said when it refused: the source of a [`BackendError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store answered {status} {code}{}{message}", if message.is_empty() { "" } else { ": " })]
#[non_exhaustive]
pub struct StoreAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The store's own word, such as `NoSuchBucket`; empty when there was none.
    pub code: String,
    /// What it says for people: shortened, without control characters.
    pub message: String,
}

/// The error that an answer other than the one wanted means.
pub(crate) fn refused(operation: &'static str, key: &str, answer: &Answer) -> BackendError {
    let (code, message) = xml::error(&answer.body).unwrap_or_default();
    let mut error = BackendError::new(kind(answer.status, &code), operation, key);
    if let Some(delay) = retry_after(answer) {
        error = error.with_retry_after(delay);
    }
    error.with_source(StoreAnswer {
        status: answer.status.as_u16(),
        code: shown(&code),
        message: shown(&message),
    })
}

/// Codes say more than statuses, where there are any: a HEAD has none. Source: the S3 API reference, "Error responses"; the
/// other codes are those of the stores named.
pub(crate) fn kind(status: StatusCode, code: &str) -> ErrorKind {
    match code {
        "NoSuchBucket" => return ErrorKind::NoSuchBucket,
        "NoSuchKey" => return ErrorKind::NotFound,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
            return ErrorKind::PermissionDenied;
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidSecurity" => return ErrorKind::Unauthenticated,
        "RequestTimeTooSkewed" | "RequestExpired" => return ErrorKind::ClockSkew,
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => return ErrorKind::Corrupt,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "ServiceUnavailable" => return ErrorKind::Throttled,
        // Sent with status 400: the store waited for the rest of the request.
        "RequestTimeout" => return ErrorKind::TimedOut,
        "QuotaExceeded" | "EntityTooLargeForQuota" | "InsufficientStorage" => {
            return ErrorKind::StorageFull;
        }
        "InvalidRange" => return ErrorKind::InvalidRange,
        "PreconditionFailed" => return ErrorKind::AlreadyExists,
        "NotImplemented" | "MethodNotAllowed" => return ErrorKind::NotSupported,
        _ => {}
    }
    match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 | 410 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::NotSupported,
        408 => ErrorKind::TimedOut,
        // Another request on the same key is under way: what becomes of it decides the next try.
        409 => ErrorKind::Unavailable,
        412 => ErrorKind::AlreadyExists,
        416 => ErrorKind::InvalidRange,
        429 | 503 => ErrorKind::Throttled,
        507 => ErrorKind::StorageFull,
        500..=599 => ErrorKind::Unavailable,
        // Redirects too: the bucket is in another region, or the endpoint is not that of the store.
        _ => ErrorKind::InvalidInput,
    }
}

/// Seconds; the form with a date is not used by stores.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_SECONDS_MAX)))
}

/// No store may keep a client waiting longer by one word.
const RETRY_AFTER_SECONDS_MAX: u64 = 300;

/// A store's words, fit to be shown.
fn shown(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(SHOWN_CHARS_MAX).collect()
}

const SHOWN_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_as(status: u16, body: &str) -> BackendError {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: [(RETRY_AFTER, "7".parse().unwrap())].into_iter().collect(),
            body: body.to_owned().into(),
        };
        refused("put", "a/b", &answer)
    }

    #[test]
    fn codes_and_statuses_become_kinds() {
        let body = |code| format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        for (status, code, kind) in [
            (404, "NoSuchBucket", ErrorKind::NoSuchBucket),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (403, "RequestTimeTooSkewed", ErrorKind::ClockSkew),
            (403, "SignatureDoesNotMatch", ErrorKind::Unauthenticated),
            (400, "ExpiredToken", ErrorKind::Unauthenticated),
            (403, "AccessDenied", ErrorKind::PermissionDenied),
            (400, "BadDigest", ErrorKind::Corrupt),
            (503, "SlowDown", ErrorKind::Throttled),
            (409, "ConditionalRequestConflict", ErrorKind::Unavailable),
            (412, "PreconditionFailed", ErrorKind::AlreadyExists),
            (500, "InternalError", ErrorKind::Unavailable),
            (301, "PermanentRedirect", ErrorKind::InvalidInput),
            (501, "NotImplemented", ErrorKind::NotSupported),
        ] {
            assert_eq!(refused_as(status, &body(code)).kind(), kind, "{code}");
        }
        for (status, kind) in [
            (404, ErrorKind::NotFound),
            (429, ErrorKind::Throttled),
            (502, ErrorKind::Unavailable),
            (507, ErrorKind::StorageFull),
        ] {
            assert_eq!(refused_as(status, "<html>").kind(), kind, "{status}");
        }
    }

    #[test]
    fn a_refusal_keeps_what_the_store_said_and_nothing_that_disturbs_a_terminal() {
        let error = refused_as(
            503,
            "<Error><Code>SlowDown</Code><Message>later\u{1b}[31m</Message><Resource>secret</Resource></Error>",
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            source.to_string(),
            "the store answered 503 SlowDown: later [31m"
        );
    }
}
