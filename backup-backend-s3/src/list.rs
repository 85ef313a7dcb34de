//! Listings, page by page, and what a page must not do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backup_backend::{BackendError, BoxStream, Bytes, ErrorKind, KeyPrefix, ObjectKey, ObjectMeta};
use futures::stream::{self, StreamExt};
use percent_encoding::percent_decode_str;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use crate::S3;
use crate::backend::DOCUMENT_LEN_MAX;
use crate::client::Call;
use crate::error::refused;
use crate::xml::{self, ListPage};

/// Pages in a row without any object. A store that filters may send some; one that sends no end of them is broken.
const EMPTY_PAGES_MAX: usize = 1000;

pub(crate) fn pages<'a>(
    store: &'a S3,
    prefix: KeyPrefix,
) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
    let listing = Listing {
        store,
        prefix,
        next: Next::First,
        last: None,
    };
    stream::unfold(Some(listing), |listing| async move {
        let mut listing = listing?;
        match listing.page().await {
            Ok(Some(page)) => Some((Ok(page), Some(listing))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Listing<'a> {
    store: &'a S3,
    prefix: KeyPrefix,
    next: Next,
    /// The last key that was listed.
    last: Option<ObjectKey>,
}

#[derive(PartialEq, Eq)]
enum Next {
    First,
    From(String),
    Nothing,
}

impl Listing<'_> {
    async fn page(&mut self) -> Result<Option<Vec<ObjectMeta>>, BackendError> {
        for _ in 0..EMPTY_PAGES_MAX {
            if self.next == Next::Nothing {
                return Ok(None);
            }
            let page = self.fetch().await?;
            self.advance(&page)?;
            let objects = self.objects(page)?;
            if !objects.is_empty() {
                return Ok(Some(objects));
            }
        }
        Err(self.corrupt("it does not come to an end"))
    }

    async fn fetch(&self) -> Result<ListPage, BackendError> {
        let full_prefix = format!("{}{}", self.store.prefix, self.prefix.as_str());
        let mut query = vec![("encoding-type", "url"), ("list-type", "2")];
        if let Next::From(token) = &self.next {
            query.push(("continuation-token", token));
        }
        let page_len = self.store.list_page_len.to_string();
        query.push(("max-keys", &page_len));
        query.push(("prefix", &full_prefix));
        let call = Call {
            operation: "list",
            method: Method::GET,
            path: String::new(),
            query,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            sha256: None,
            answer_len_max: DOCUMENT_LEN_MAX,
        };
        let answer = self.store.client.send(call).await?;
        if answer.status != StatusCode::OK {
            let error = refused("list", self.prefix.as_str(), &answer);
            // There is no object to be missed in a listing: what is not found is the bucket.
            if error.kind() == ErrorKind::NotFound {
                let missing = ErrorKind::NoSuchBucket;
                return Err(
                    BackendError::new(missing, "list", self.prefix.as_str()).with_source(error)
                );
            }
            return Err(error);
        }
        xml::list_page(&answer.body).map_err(|e| {
            // Cut short on its way, or a page of somebody else's: the next try may bring the right one.
            BackendError::new(ErrorKind::Unavailable, "list", self.prefix.as_str()).with_source(e)
        })
    }

    fn advance(&mut self, page: &ListPage) -> Result<(), BackendError> {
        self.next = match (&page.next_continuation_token, page.is_truncated) {
            (_, false) => Next::Nothing,
            (Some(token), true) if !token.is_empty() => {
                let next = Next::From(token.clone());
                if next == self.next {
                    return Err(self.corrupt("it comes back to the same page"));
                }
                next
            }
            (_, true) => return Err(self.corrupt("it goes on, and does not say where")),
        };
        Ok(())
    }

    /// The objects of a page. Names that are none of ours are passed over: folders that somebody made, hidden files.
    fn objects(&mut self, page: ListPage) -> Result<Vec<ObjectMeta>, BackendError> {
        let is_encoded = page.encoding_type.as_deref() == Some("url");
        let mut objects = Vec::with_capacity(page.contents.len());
        for listed in page.contents {
            let path = if is_encoded {
                decode(&listed.key)
            } else {
                listed.key
            };
            let key = path
                .strip_prefix(&self.store.prefix)
                .and_then(|key| ObjectKey::parse(key).ok());
            let Some(key) = key else { continue };
            if !self.prefix.matches(&key) {
                return Err(self.corrupt("it holds what was not asked for"));
            }
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(self.corrupt("its keys do not ascend"));
            }
            self.last = Some(key.clone());
            objects.push(ObjectMeta {
                key,
                len: listed.size,
                modified: listed.last_modified.as_deref().and_then(whole_seconds),
            });
        }
        Ok(objects)
    }

    fn corrupt(&self, why: &'static str) -> BackendError {
        BackendError::new(ErrorKind::Corrupt, "list", self.prefix.as_str()).with_source(why)
    }
}

/// A HEAD tells whole seconds, a listing of some stores their fractions: both tell the same time of an object.
fn whole_seconds(text: &str) -> Option<SystemTime> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(since.as_secs()))
}

/// As in forms: a plus is a space. Stores that write `%20` write a plus as `%2B` all the same.
fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}
