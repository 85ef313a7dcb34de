use std::fmt;
use std::time::Duration;

use backup_backend::{BackendError, Bytes, ErrorKind};
use futures::StreamExt;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;
use zeroize::Zeroize;

use crate::{ConfigError, Credentials, S3Config, tls};

/// Signs and sends single requests, a bounded number of them at once.
pub(crate) struct Client {
    http: HttpClient,
    /// Scheme, host, and in path style the bucket; without a slash at the end.
    base: String,
    region: String,
    credential: Credential,
    free: Semaphore,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    answer: Duration,
    body_rate_min: u64,
    call: Duration,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    /// The whole key in the bucket; empty for the bucket itself.
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, &'a str)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// SHA-256 of the body, when it is known already.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The longest answer that makes sense, in bytes.
    pub(crate) answer_len_max: u64,
}

/// An answer, whatever its status, with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header, if it is there and is text.
    pub(crate) fn text(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Erases the secret when dropped, which [`AwsCredential`] does not.
struct Credential(AwsCredential);

impl Drop for Credential {
    fn drop(&mut self) {
        self.0.secret_key.zeroize();
        self.0.token.zeroize();
    }
}

impl From<&Credentials> for Credential {
    fn from(credentials: &Credentials) -> Self {
        Self(AwsCredential {
            key_id: credentials.key_id.clone(),
            secret_key: credentials.secret.to_string(),
            token: credentials.token.as_ref().map(|token| token.to_string()),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(config: &S3Config) -> Result<Self, ConfigError> {
        let base = config.base()?;
        // No proxy and no redirect: requests go where the configuration says, and nowhere else.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(config.connect_ms_max))
            .pool_max_idle_per_host(config.connections_max)
            .http1_only()
            .user_agent(concat!("backup-backend-s3/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls::client(config.ca_pem.as_deref())?)
            .build()
            .map_err(|e| ConfigError::Certificates { why: e.to_string() })?;
        Ok(Self {
            http: HttpClient::new(http),
            base: base.as_str().trim_end_matches('/').to_owned(),
            region: config.region.clone(),
            credential: Credential::from(&config.credentials),
            free: Semaphore::new(config.connections_max),
            limits: Limits {
                answer: Duration::from_millis(config.answer_ms_max),
                body_rate_min: config.body_rate_min.max(1),
                call: Duration::from_millis(config.call_ms_max),
            },
        })
    }

    /// Sends a request and takes its whole answer.
    ///
    /// # Errors
    /// `Unavailable` and `TimedOut`; `Corrupt` for an answer that is longer than makes sense.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Answer, BackendError> {
        let (operation, path) = (call.operation, call.path.clone());
        let late = || {
            BackendError::new(ErrorKind::TimedOut, operation, path.as_str())
                .with_source("the call took longer than its deadline")
        };
        tokio::time::timeout(self.limits.call, self.send_in_time(call))
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn send_in_time(&self, call: Call<'_>) -> Result<Answer, BackendError> {
        let failed = |kind, source: Box<dyn std::error::Error + Send + Sync>| {
            BackendError::new(kind, call.operation, call.path.as_str()).with_source(source)
        };
        let answer_len_max = call.answer_len_max;
        let body_len = call.body.len() as u64;
        let request = self
            .request(&call)
            .map_err(|e| failed(ErrorKind::InvalidInput, e))?;
        // A closed semaphore cannot be had: nothing closes it.
        let _permit = self.free.acquire().await;
        let patience = self.limits.answer + self.limits.body_time(body_len);
        let response = match tokio::time::timeout(patience, self.http.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failed(http_kind(&error), error.into())),
            Err(_) => {
                let why = format!("no answer within {} ms", patience.as_millis());
                return Err(failed(ErrorKind::TimedOut, why.into()));
            }
        };
        self.read(response, answer_len_max)
            .await
            .map_err(|(kind, source)| failed(kind, source))
    }

    fn request(
        &self,
        call: &Call<'_>,
    ) -> Result<HttpRequest, Box<dyn std::error::Error + Send + Sync>> {
        let mut uri = self.base.clone();
        uri.push('/');
        uri.extend(utf8_percent_encode(&call.path, PATH));
        for (number, (name, value)) in call.query.iter().enumerate() {
            uri.push(if number == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, UNRESERVED));
        }
        let mut request = HttpRequest::new(HttpRequestBody::from(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.parse()?;
        *request.headers_mut() = call.headers.clone();
        if call.method == Method::PUT || call.method == Method::POST {
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, call.body.len().into());
        }
        AwsAuthorizer::new(&self.credential.0, "s3", &self.region)
            .try_authorize(&mut request, call.sha256.as_ref().map(<[u8; 32]>::as_slice))?;
        Ok(request)
    }

    async fn read(&self, response: HttpResponse, len_max: u64) -> Result<Answer, Failed> {
        let (parts, body) = response.into_parts();
        let too_long = || {
            let why = format!("the answer is longer than {len_max} bytes");
            (ErrorKind::Corrupt, why.into())
        };
        let promised: Option<u64> = parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|len| len.to_str().ok()?.parse().ok());
        // A store that sends a document of an error may say more than was asked for.
        let len_max = if parts.status.is_success() {
            len_max
        } else {
            len_max.max(ERROR_LEN_MAX)
        };
        let mut bytes = Vec::new();
        if let Some(promised) = promised {
            // A HEAD promises a body that does not come.
            bytes.reserve(usize::try_from(promised.min(len_max)).unwrap_or(0));
        }
        let mut pieces = body.bytes_stream();
        loop {
            let piece = match tokio::time::timeout(self.limits.answer, pieces.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => {
                    // Cut short, in whatever words: what is missing can be asked for again.
                    let kind = match http_kind(&error) {
                        ErrorKind::TimedOut => ErrorKind::TimedOut,
                        _ => ErrorKind::Unavailable,
                    };
                    return Err((kind, error.into()));
                }
                Err(_) => {
                    let why = format!("the answer stopped after {} bytes", bytes.len());
                    return Err((ErrorKind::TimedOut, why.into()));
                }
            };
            if (bytes.len() + piece.len()) as u64 > len_max {
                return Err(too_long());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: Bytes::from(bytes),
        })
    }
}

type Failed = (ErrorKind, Box<dyn std::error::Error + Send + Sync>);

/// Documents of errors are some hundred bytes long.
const ERROR_LEN_MAX: u64 = 64 << 10;

impl Limits {
    fn body_time(&self, len: u64) -> Duration {
        Duration::from_secs(len / self.body_rate_min)
    }
}

fn http_kind(error: &HttpError) -> ErrorKind {
    match error.kind() {
        HttpErrorKind::Timeout => ErrorKind::TimedOut,
        _ => ErrorKind::Unavailable,
    }
}

/// RFC 3986, unreserved characters: what Signature Version 4 leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The same, and the slash between segments.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
