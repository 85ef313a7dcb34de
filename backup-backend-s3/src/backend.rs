use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use backup_backend::{
    BackendError, BoxStream, ByteRange, Bytes, Capabilities, DeleteResult, ErrorKind, KEY_LEN_MAX,
    KeyPrefix, OBJECT_LEN_MAX, ObjectKey, ObjectMeta, PutMode, StorageBackend, async_trait,
};
use data_encoding::BASE64;
use futures::stream::{self, StreamExt};
use md5::{Digest, Md5};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Method, StatusCode};
use sha2::Sha256;

use crate::client::{Answer, Call, Client};
use crate::error::{kind, refused};
use crate::{Checksum, ConfigError, ObjectRule, S3Config, StoreAnswer, list, retention, xml};

/// A bucket, or what is below a prefix of it.
///
/// Each call is one request (a listing one for each page, a deletion one for each thousand keys) and is not repeated.
#[derive(Debug)]
pub struct S3 {
    pub(crate) client: Client,
    /// With a slash at the end, or empty.
    pub(crate) prefix: String,
    /// The strongest that the store is not known to refuse.
    checksum: RwLock<Checksum>,
    create_if_absent: bool,
    batch_delete: bool,
    pub(crate) list_page_len: usize,
    connections_max: usize,
    rules: Vec<ObjectRule>,
}

impl S3 {
    /// Nothing is sent yet: whether the store is there, the first call tells.
    ///
    /// # Errors
    /// [`ConfigError`] that names what cannot be used.
    pub fn new(config: S3Config) -> Result<Self, ConfigError> {
        let client = Client::new(&config)?;
        let prefix = match config.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self {
            client,
            prefix,
            checksum: RwLock::new(config.checksum),
            create_if_absent: config.create_if_absent,
            batch_delete: config.batch_delete,
            list_page_len: config.list_page_len,
            connections_max: config.connections_max,
            rules: config.rules,
        })
    }

    /// The key in the bucket.
    pub(crate) fn path(
        &self,
        operation: &'static str,
        key: &ObjectKey,
    ) -> Result<String, BackendError> {
        let path = format!("{}{key}", self.prefix);
        if path.len() > KEY_LEN_MAX {
            let why = format!("with its prefix the key is longer than {KEY_LEN_MAX} bytes");
            let error = BackendError::new(ErrorKind::InvalidInput, operation, key.as_str());
            return Err(error.with_source(why));
        }
        Ok(path)
    }

    /// A request without a body on one object.
    pub(crate) async fn ask(
        &self,
        method: Method,
        key: &ObjectKey,
        headers: HeaderMap,
        answer_len_max: u64,
    ) -> Result<Answer, BackendError> {
        let operation = match method {
            Method::HEAD => "head",
            Method::DELETE => "delete",
            _ => "get",
        };
        let call = Call {
            operation,
            method,
            path: self.path(operation, key)?,
            query: Vec::new(),
            headers,
            body: Bytes::new(),
            sha256: None,
            answer_len_max,
        };
        self.client.send(call).await
    }

    /// What the store tells of an object without sending it.
    pub(crate) async fn ask_head(&self, key: &ObjectKey) -> Result<Answer, BackendError> {
        let answer = self.ask(Method::HEAD, key, HeaderMap::new(), 0).await?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            _ => Err(refused("head", key.as_str(), &answer)),
        }
    }

    /// What is said of a put. Stores refuse a retention without `Content-MD5`.
    fn checksum_of(&self, rule: Option<&ObjectRule>) -> Checksum {
        match rule.and_then(|rule| rule.retention) {
            Some(_) => Checksum::Md5,
            None => *self.checksum.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Whether a put was refused for its checksum's header and is worth another try, without that header from now on.
    fn gives_way(&self, checksum: Checksum, rule: Option<&ObjectRule>, answer: &Answer) -> bool {
        let is_required = rule.is_some_and(|rule| rule.retention.is_some());
        match checksum.header() {
            Some((name, next)) if !is_required && names_header(answer, name) => {
                let mut known = self
                    .checksum
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                if *known == checksum {
                    *known = next;
                }
                true
            }
            _ => false,
        }
    }

    fn put_headers(
        &self,
        key: &ObjectKey,
        mode: PutMode,
        rule: Option<&ObjectRule>,
        (checksum, digests): (Checksum, &Digests),
    ) -> Result<HeaderMap, BackendError> {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &str| -> Result<(), BackendError> {
            let value = HeaderValue::from_str(value).map_err(|e| {
                BackendError::new(ErrorKind::InvalidInput, "put", key.as_str()).with_source(e)
            })?;
            headers.insert(name, value);
            Ok(())
        };
        set(CONTENT_TYPE, "application/octet-stream")?;
        if mode.is_create() && self.create_if_absent {
            set(IF_NONE_MATCH, "*")?;
        }
        match checksum {
            Checksum::Sha256 => set(SHA256, &BASE64.encode(&digests.sha256))?,
            Checksum::Md5 => set(CONTENT_MD5, &BASE64.encode(&digests.md5))?,
            Checksum::None => {}
        }
        if let Some(class) = rule.and_then(|rule| rule.storage_class.as_deref()) {
            set(STORAGE_CLASS, class)?;
        }
        if let Some(wanted) = rule.and_then(|rule| rule.retention) {
            set(retention::MODE, retention::mode_name(wanted.mode))?;
            set(retention::UNTIL, &retention::until_text(wanted.until))?;
        }
        Ok(headers)
    }

    async fn delete_some(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        if !self.batch_delete {
            let deletions: Vec<_> = keys.iter().map(|key| self.delete_one_key(key)).collect();
            let each = stream::iter(deletions).buffered(self.connections_max);
            return Ok(each.collect().await);
        }
        let body = xml::delete_request(keys.iter(), &self.prefix);
        let md5 = BASE64.encode(&Md5::digest(&body));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        if let Ok(md5) = HeaderValue::from_str(&md5) {
            headers.insert(CONTENT_MD5, md5);
        }
        let call = Call {
            operation: "delete",
            method: Method::POST,
            path: String::new(),
            query: vec![("delete", "")],
            headers,
            body,
            sha256: None,
            answer_len_max: DOCUMENT_LEN_MAX,
        };
        let answer = self.client.send(call).await?;
        if answer.status != StatusCode::OK {
            return Err(refused("delete", &self.prefix, &answer));
        }
        let told = xml::deletions(&answer.body).map_err(|e| {
            BackendError::new(ErrorKind::Unavailable, "delete", self.prefix.as_str()).with_source(e)
        })?;
        Ok(keys.iter().map(|key| self.outcome(key, &told)).collect())
    }

    /// What the answer says of one key. Silence is not success.
    fn outcome(&self, key: &ObjectKey, told: &xml::Deletions) -> DeleteResult {
        let is_it = |path: &str| path.strip_prefix(&self.prefix) == Some(key.as_str());
        if let Some(refusal) = told.refused.iter().find(|refusal| is_it(&refusal.key)) {
            if refusal.code == "NoSuchKey" {
                return Ok(());
            }
            let source = StoreAnswer {
                status: StatusCode::OK.as_u16(),
                code: refusal.code.clone(),
                message: refusal.message.clone(),
            };
            // The request as a whole went well, so only the code tells; an unknown one may pass.
            let kind = kind(StatusCode::INTERNAL_SERVER_ERROR, &refusal.code);
            return Err(BackendError::new(kind, "delete", key.as_str()).with_source(source));
        }
        if told.deleted.iter().any(|deleted| is_it(&deleted.key)) {
            return Ok(());
        }
        let error = BackendError::new(ErrorKind::Unavailable, "delete", key.as_str());
        Err(error.with_source("the store does not say what became of it"))
    }

    async fn delete_one_key(&self, key: &ObjectKey) -> DeleteResult {
        let answer = self
            .ask(Method::DELETE, key, HeaderMap::new(), DOCUMENT_LEN_MAX)
            .await?;
        let error = refused("delete", key.as_str(), &answer);
        let is_gone = answer.status.is_success() || error.kind() == ErrorKind::NotFound;
        if is_gone { Ok(()) } else { Err(error) }
    }
}

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const SHA256: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
const STORAGE_CLASS: HeaderName = HeaderName::from_static("x-amz-storage-class");

/// Documents of a thousand keys of 1,024 bytes, every byte escaped, stay below this.
pub(crate) const DOCUMENT_LEN_MAX: u64 = 16 << 20;

/// Source: S3's DeleteObjects takes so many keys.
const DELETE_KEYS_MAX: usize = 1000;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for S3 {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        let failed =
            |kind, why: &'static str| BackendError::new(kind, "put", key.as_str()).with_source(why);
        if bytes.len() as u64 > OBJECT_LEN_MAX {
            return Err(failed(
                ErrorKind::InvalidInput,
                "the object is longer than 1 GiB",
            ));
        }
        let path = self.path("put", key)?;
        let rule = self
            .rules
            .iter()
            .find(|rule| key.as_str().starts_with(&rule.prefix));
        loop {
            let checksum = self.checksum_of(rule);
            let digests = Digests::of(bytes.clone(), checksum)
                .await
                .ok_or_else(|| failed(ErrorKind::Unavailable, "a worker thread was lost"))?;
            let call = Call {
                operation: "put",
                method: Method::PUT,
                path: path.clone(),
                query: Vec::new(),
                headers: self.put_headers(key, mode, rule, (checksum, &digests))?,
                body: bytes.clone(),
                sha256: Some(digests.sha256),
                answer_len_max: DOCUMENT_LEN_MAX,
            };
            let answer = self.client.send(call).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            // A refusal had no effect: this is the same put, said in another way.
            if !self.gives_way(checksum, rule, &answer) {
                return Err(refused("put", key.as_str(), &answer));
            }
        }
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let failed = |kind, why: &str| {
            BackendError::new(kind, "get", key.as_str()).with_source(why.to_owned())
        };
        let Some(range) = range else {
            let answer = self
                .ask(Method::GET, key, HeaderMap::new(), OBJECT_LEN_MAX)
                .await?;
            return match answer.status {
                StatusCode::OK => Ok(answer.body),
                _ => Err(refused("get", key.as_str(), &answer)),
            };
        };
        let end = range
            .start
            .checked_add(range.len)
            .filter(|_| range.len <= OBJECT_LEN_MAX)
            .ok_or_else(|| failed(ErrorKind::InvalidRange, "no object is so long"))?;
        if range.len == 0 {
            // HTTP has no empty ranges.
            let whole = self.head(key).await?.len;
            return match range.end_within(whole) {
                Some(_) => Ok(Bytes::new()),
                None => Err(failed(ErrorKind::InvalidRange, "it begins behind the end")),
            };
        }
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("bytes={}-{}", range.start, end - 1)) {
            headers.insert(RANGE, value);
        }
        let answer = self.ask(Method::GET, key, headers, range.len).await?;
        let got = answer.body.len() as u64;
        match answer.status {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK if range.start == 0 && got == range.len => return Ok(answer.body),
            // Shorter than what was asked for, as a longer one would have been refused.
            StatusCode::OK => {
                return Err(failed(
                    ErrorKind::InvalidRange,
                    "the store sent the whole object",
                ));
            }
            _ => return Err(refused("get", key.as_str(), &answer)),
        }
        let place = content_range(&answer.headers).ok_or_else(|| {
            failed(
                ErrorKind::Corrupt,
                "the store does not say which range it sent",
            )
        })?;
        if place.total.is_some_and(|total| end > total) {
            return Err(failed(ErrorKind::InvalidRange, "it ends behind the end"));
        }
        if (place.first, place.last) != (range.start, end - 1) || got != range.len {
            return Err(failed(ErrorKind::Corrupt, "the store sent another range"));
        }
        Ok(answer.body)
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let answer = self.ask_head(key).await?;
        let text = |name| answer.text(name);
        let len = text(CONTENT_LENGTH).and_then(|len| len.parse().ok());
        let len = len.ok_or_else(|| {
            BackendError::new(ErrorKind::Corrupt, "head", key.as_str())
                .with_source("the store does not say how long the object is")
        })?;
        let modified: Option<SystemTime> =
            text(LAST_MODIFIED).and_then(|date| httpdate::parse_http_date(date).ok());
        Ok(ObjectMeta {
            key: key.clone(),
            len,
            modified,
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        list::pages(self, prefix.clone())
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let mut results = Vec::with_capacity(keys.len());
        for some in keys.chunks(DELETE_KEYS_MAX) {
            match self.delete_some(some).await {
                Ok(told) => results.extend(told),
                Err(error) if results.is_empty() && some.len() == keys.len() => return Err(error),
                // Earlier keys are settled: these are not.
                Err(error) => results.extend(some.iter().map(|key| {
                    let unknown = BackendError::new(error.kind(), "delete", key.as_str());
                    Err(unknown.with_source(error.to_string()))
                })),
            }
        }
        Ok(results)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.create_if_absent = self.create_if_absent;
        // All stores of the presets have consistent listings; Amazon's since December 2020.
        capabilities.consistent_list = true;
        capabilities
    }
}

/// What is signed and sent of a body.
#[derive(Debug)]
struct Digests {
    sha256: [u8; 32],
    md5: [u8; 16],
}

/// Shorter bodies are hashed faster than handed to another thread.
const HASH_HERE_LEN_MAX: usize = 128 << 10;

impl Digests {
    async fn of(bytes: Bytes, checksum: Checksum) -> Option<Self> {
        let len = bytes.len();
        let hash = move || Self {
            sha256: Sha256::digest(&bytes).into(),
            md5: match checksum {
                Checksum::Md5 => Md5::digest(&bytes).into(),
                _ => [0; 16],
            },
        };
        if len <= HASH_HERE_LEN_MAX {
            return Some(hash());
        }
        tokio::task::spawn_blocking(hash).await.ok()
    }
}

/// Whether a store refused a request for a header whose name begins so. Sources: R2 (501, "Header 'x-amz-checksum-sha256'
/// with value '…' not implemented"), B2 (400, "Unsupported header 'x-amz-checksum-…' received for this API call").
fn names_header(answer: &Answer, name: &str) -> bool {
    let (_, message) = xml::error(&answer.body).unwrap_or_default();
    matches!(answer.status.as_u16(), 400 | 501) && message.to_ascii_lowercase().contains(name)
}

/// Which bytes an answer holds.
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

/// `bytes 0-99/1234`. Source: RFC 9110, section 14.4.
fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(ContentRange {
        first: first.trim().parse().ok()?,
        last: last.trim().parse().ok()?,
        total: total.trim().parse().ok(),
    })
}
