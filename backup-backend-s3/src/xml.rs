//! The documents of the S3 protocol that a store answers with; and the one that we send.

use backup_backend::{Bytes, ObjectKey};
use serde::Deserialize;

/// A page of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ListPage {
    /// `url`, when keys are encoded.
    pub(crate) encoding_type: Option<String>,
    pub(crate) is_truncated: bool,
    pub(crate) next_continuation_token: Option<String>,
    pub(crate) contents: Vec<Listed>,
}

/// An object of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) last_modified: Option<String>,
}

/// What became of keys of a batch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deletions {
    #[serde(rename = "Deleted")]
    pub(crate) deleted: Vec<Deleted>,
    #[serde(rename = "Error")]
    pub(crate) refused: Vec<RefusedDeletion>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Deleted {
    pub(crate) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RefusedDeletion {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
struct Refusal {
    code: String,
    #[serde(default)]
    message: String,
}

pub(crate) fn list_page(body: &[u8]) -> Result<ListPage, quick_xml::DeError> {
    document("ListBucketResult", body)
}

pub(crate) fn deletions(body: &[u8]) -> Result<Deletions, quick_xml::DeError> {
    document("DeleteResult", body)
}

/// The code and the message of an error's document; `None` when it is something else.
pub(crate) fn error(body: &[u8]) -> Option<(String, String)> {
    let refusal: Refusal = document("Error", body).ok()?;
    Some((refusal.code, refusal.message))
}

/// serde takes any root element; ours must be the one that was asked for: a proxy's page in HTML must not pass for an empty
/// listing.
fn document<T: serde::de::DeserializeOwned>(
    root: &str,
    body: &[u8],
) -> Result<T, quick_xml::DeError> {
    let custom = |why: String| quick_xml::DeError::Custom(why);
    let text = std::str::from_utf8(body).map_err(|e| custom(e.to_string()))?;
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        match reader.read_event()? {
            quick_xml::events::Event::Start(start) | quick_xml::events::Event::Empty(start) => {
                if start.local_name().as_ref() == root.as_bytes() {
                    return quick_xml::de::from_str(text);
                }
                return Err(custom(format!("the document is no {root}")));
            }
            quick_xml::events::Event::Eof => {
                return Err(custom(format!("there is no {root}")));
            }
            _ => {}
        }
    }
}

/// Asks for the deletion of keys, each under `prefix`; what became of each is to be told.
pub(crate) fn delete_request<'a>(keys: impl Iterator<Item = &'a ObjectKey>, prefix: &str) -> Bytes {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
    );
    for key in keys {
        text.push_str("<Object><Key>");
        text.push_str(&quick_xml::escape::escape(prefix));
        text.push_str(&quick_xml::escape::escape(key.as_str()));
        text.push_str("</Key></Object>");
    }
    text.push_str("</Delete>");
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_whatever_order_and_namespace_they_come_in() {
        let page = list_page(
            br#"<?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <Contents><ETag>"x"</ETag><Key>a&amp;b</Key><Size>7</Size><Owner><ID>o</ID></Owner></Contents>
            <IsTruncated>true</IsTruncated>
            <Contents><Size>8</Size><Key>c</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>
            <NextContinuationToken>t/+=</NextContinuationToken></ListBucketResult>"#,
        )
        .unwrap();
        let keys: Vec<_> = page
            .contents
            .iter()
            .map(|c| (c.key.as_str(), c.size))
            .collect();
        assert_eq!(keys, [("a&b", 7), ("c", 8)]);
        assert!(page.is_truncated);
        assert_eq!(page.next_continuation_token.as_deref(), Some("t/+="));
    }

    #[test]
    fn other_documents_are_no_listings() {
        for body in [
            &b"<html><body>maintenance</body></html>"[..],
            b"",
            b"<Error><Code>SlowDown</Code></Error>",
            b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            b"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
            b"\xff\xfe",
        ] {
            assert!(list_page(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        assert!(
            list_page(b"<ListBucketResult/>")
                .unwrap()
                .contents
                .is_empty()
        );
    }

    #[test]
    fn a_request_to_delete_is_escaped() {
        let keys = [ObjectKey::parse("a<b>&\"c\"").unwrap()];
        let text = delete_request(keys.iter(), "p/");
        let text = std::str::from_utf8(&text).unwrap();
        assert!(
            text.contains("<Key>p/a&lt;b&gt;&amp;&quot;c&quot;</Key>"),
            "{text}"
        );
    }
}
