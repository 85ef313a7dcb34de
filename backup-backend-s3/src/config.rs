use std::fmt;
use std::time::SystemTime;

use url::Url;
use zeroize::Zeroizing;

/// A kind of store: what is known of how it wants to be spoken to.
///
/// Of these, Ceph, Garage and moto (as `Minio`) are tested against real servers by this project; the others follow their
/// documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// Amazon S3. The endpoint follows from the region.
    Aws,
    /// Cloudflare R2. Region `auto`.
    R2,
    /// Backblaze B2. Knows no create-if-absent.
    B2,
    /// Google Cloud Storage by its XML interface and interoperability keys. Knows neither create-if-absent by
    /// `If-None-Match` nor deletion of many objects at once.
    Gcs,
    /// MinIO, and whatever is like AWS at an endpoint of its own.
    Minio,
    /// Ceph's gateway.
    Ceph,
    /// Garage. Ignores conditions: knows no create-if-absent.
    Garage,
    /// Wasabi.
    Wasabi,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Aws,
        Self::R2,
        Self::B2,
        Self::Gcs,
        Self::Minio,
        Self::Ceph,
        Self::Garage,
        Self::Wasabi,
    ];

    /// The name in URLs: `aws`, `r2`, `b2`, `gcs`, `minio`, `ceph`, `garage`, `wasabi`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::R2 => "r2",
            Self::B2 => "b2",
            Self::Gcs => "gcs",
            Self::Minio => "minio",
            Self::Ceph => "ceph",
            Self::Garage => "garage",
            Self::Wasabi => "wasabi",
        }
    }

    /// The preset of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }
}

/// How the bucket is named in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressStyle {
    /// `https://endpoint/bucket/key`.
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

/// What goes with a put for the store to compare. A signature covers the SHA-256 of the body as well, which many stores
/// compare too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Checksum {
    /// `x-amz-checksum-sha256`.
    Sha256,
    /// `Content-MD5`.
    Md5,
    /// Neither.
    None,
}

impl Checksum {
    /// The header it goes in, and what to try when the store does not take that.
    pub(crate) fn header(self) -> Option<(&'static str, Self)> {
        match self {
            Self::Sha256 => Some(("x-amz-checksum", Self::Md5)),
            Self::Md5 => Some(("content-md5", Self::None)),
            Self::None => None,
        }
    }
}

/// An access key, held in memory and erased when dropped.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// A key id and its secret.
    #[must_use]
    pub fn new(key_id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            key_id: key_id.into(),
            secret: Zeroizing::new(secret.into()),
            token: None,
        }
    }

    /// With the token of a temporary session.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Zeroizing::new(token.into()));
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How long an object may not be deleted (S3 Object Lock; the bucket must have been made with it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Retention {
    /// Who may lift it.
    pub mode: RetentionMode,
    /// Until when; stores keep whole seconds.
    pub until: SystemTime,
}

impl Retention {
    /// Retention in this mode until then.
    #[must_use]
    pub fn new(mode: RetentionMode, until: SystemTime) -> Self {
        Self { mode, until }
    }
}

/// Who may lift a retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetentionMode {
    /// Whoever has a right of its own for it.
    Governance,
    /// Nobody.
    Compliance,
}

/// What holds for objects whose key, without the configured prefix, begins with `prefix`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectRule {
    /// The beginning of the keys; empty for all.
    pub prefix: String,
    /// The storage class; the store's own default, when `None`.
    pub storage_class: Option<String>,
    /// Retention for new objects.
    pub retention: Option<Retention>,
}

impl ObjectRule {
    /// A rule for keys that begin so, which says nothing yet.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }
}

/// Where a bucket is and how it is spoken to: take [`S3Config::new`] and assign what you change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct S3Config {
    /// `https://host` or `https://host:port`. `None` for AWS: it follows from the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// What all keys begin with, without the slash behind it; may be empty.
    pub prefix: String,
    /// How the bucket is named in requests.
    pub style: AddressStyle,
    /// Who asks.
    pub credentials: Credentials,
    /// What goes with a put for the store to compare. A store that refuses the header by name is found out at the first put:
    /// SHA-256 gives way to MD5, and MD5 to nothing.
    pub checksum: Checksum,
    /// Creates carry `If-None-Match: *`, and the store is believed to honour it. Without, a create is an ordinary put that
    /// replaces what is there, and [`Capabilities::create_if_absent`](backup_backend::Capabilities) is not claimed.
    pub create_if_absent: bool,
    /// The store takes one request for up to 1,000 deletions.
    pub batch_delete: bool,
    /// Further certificate authorities to trust, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Allow `http://` to other machines: whoever listens can read and replace what is sent.
    pub allow_http: bool,
    /// Objects of one page of a listing: 1,000, which is also the most that stores send.
    pub list_page_len: usize,
    /// Requests at once: 8.
    pub connections_max: usize,
    /// To connect, in milliseconds: 10,000.
    pub connect_ms_max: u64,
    /// Until a store that has all of a request answers, or goes on with its answer, in milliseconds: 60,000.
    pub answer_ms_max: u64,
    /// Bodies may take as much longer as they take at this rate, in bytes per second: 65,536.
    pub body_rate_min: u64,
    /// A call ends by then, in milliseconds, waiting for a free connection included: 1,800,000.
    pub call_ms_max: u64,
    /// Storage classes and retention; the first whose prefix matches holds.
    pub rules: Vec<ObjectRule>,
}

impl S3Config {
    /// What is known of this kind of store.
    #[must_use]
    pub fn new(preset: Preset, bucket: impl Into<String>, credentials: Credentials) -> Self {
        let region = match preset {
            Preset::R2 | Preset::Gcs => "auto",
            Preset::Garage => "garage",
            _ => "us-east-1",
        };
        Self {
            endpoint: match preset {
                Preset::Gcs => Some("https://storage.googleapis.com".into()),
                Preset::Wasabi => Some("https://s3.wasabisys.com".into()),
                _ => None,
            },
            region: region.into(),
            bucket: bucket.into(),
            prefix: String::new(),
            style: if preset == Preset::Aws {
                AddressStyle::VirtualHost
            } else {
                AddressStyle::Path
            },
            credentials,
            checksum: match preset {
                Preset::Aws | Preset::Minio | Preset::Ceph | Preset::Garage => Checksum::Sha256,
                Preset::R2 | Preset::B2 | Preset::Gcs | Preset::Wasabi => Checksum::Md5,
            },
            create_if_absent: !matches!(preset, Preset::B2 | Preset::Gcs | Preset::Garage),
            batch_delete: preset != Preset::Gcs,
            ca_pem: None,
            allow_http: false,
            list_page_len: 1000,
            connections_max: 8,
            connect_ms_max: 10_000,
            answer_ms_max: 60_000,
            body_rate_min: 64 << 10,
            call_ms_max: 1_800_000,
            rules: Vec::new(),
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// This kind of store has no endpoint of its own.
    #[error("the endpoint is missing: give endpoint=https://host")]
    EndpointMissing,
    /// The endpoint is no `https://host[:port]`.
    #[error("the endpoint {endpoint:?} cannot be used: {why}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// `http://` to another machine.
    #[error(
        "the endpoint {endpoint:?} is neither https nor on this machine: allow plain http, if whoever listens may read and \
         replace what is sent"
    )]
    PlainHttp {
        /// What was given.
        endpoint: String,
    },
    /// A value that cannot be sent, or makes no sense.
    #[error("{what} {value:?} cannot be used: {why}")]
    Value {
        /// Which one.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something in the URL that is not known.
    #[error("{name:?} is no option of an s3 URL; there are {known}")]
    UnknownOption {
        /// Its name.
        name: String,
        /// Those that are known.
        known: &'static str,
    },
    /// The certificates cannot be read.
    #[error("the certificates cannot be used: {why}")]
    Certificates {
        /// Why not.
        why: String,
    },
    /// The key id, the secret or the token holds what no header can.
    #[error("the credentials hold a character that cannot be sent, or are empty")]
    Credentials,
}

impl S3Config {
    /// Checks everything, and returns where requests go: scheme, host and, in path style, the bucket.
    pub(crate) fn base(&self) -> Result<Url, ConfigError> {
        self.check_values()?;
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.aws_endpoint()?,
        };
        let bad = |why: &str| ConfigError::Endpoint {
            endpoint: endpoint.clone(),
            why: why.into(),
        };
        let mut url = Url::parse(&endpoint).map_err(|e| bad(&e.to_string()))?;
        let is_plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !is_plain || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("only a host and a port may be given"));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http || is_loopback(&url) => {}
            "http" => return Err(ConfigError::PlainHttp { endpoint }),
            _ => return Err(bad("it must begin with https://")),
        }
        match self.style {
            AddressStyle::Path => url.set_path(&self.bucket),
            AddressStyle::VirtualHost => {
                let host = url.host_str().unwrap_or_default();
                if url.domain().is_none() {
                    return Err(bad("an address has no subdomains: use the path style"));
                }
                let host = format!("{}.{host}", self.bucket);
                url.set_host(Some(&host)).map_err(|e| bad(&e.to_string()))?;
            }
        }
        Ok(url)
    }

    fn aws_endpoint(&self) -> Result<String, ConfigError> {
        // Only AWS is addressed by the bucket's own host unless told otherwise.
        if self.style == AddressStyle::VirtualHost {
            Ok(format!("https://s3.{}.amazonaws.com", self.region))
        } else {
            Err(ConfigError::EndpointMissing)
        }
    }

    fn check_values(&self) -> Result<(), ConfigError> {
        let bad = |what, value: &str, why| ConfigError::Value {
            what,
            value: value.into(),
            why,
        };
        let is_name = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        if !is_name(&self.bucket) || self.bucket.len() > 255 || self.bucket.starts_with('.') {
            return Err(bad("bucket", &self.bucket, "it is no name of a bucket"));
        }
        if !is_name(&self.region) {
            return Err(bad("region", &self.region, "it is no name of a region"));
        }
        if !self.prefix.is_empty()
            && backup_backend::ObjectKey::parse(self.prefix.as_str()).is_err()
        {
            let why = "it must be names with single slashes between them";
            return Err(bad("prefix", &self.prefix, why));
        }
        if !(1..=1000).contains(&self.list_page_len) {
            let value = self.list_page_len.to_string();
            return Err(bad("list_page_len", &value, "it is 1 to 1,000"));
        }
        if self.connections_max == 0 {
            return Err(bad("connections_max", "0", "there must be one"));
        }
        let classes = self
            .rules
            .iter()
            .filter_map(|rule| rule.storage_class.as_deref());
        for class in classes {
            if !is_name(class) {
                return Err(bad(
                    "storage class",
                    class,
                    "it is no name of a storage class",
                ));
            }
        }
        let is_sendable =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let credentials = &self.credentials;
        let token = credentials.token.as_ref();
        if !is_sendable(&credentials.key_id)
            || !is_sendable(&credentials.secret)
            || token.is_some_and(|token| !is_sendable(token))
        {
            return Err(ConfigError::Credentials);
        }
        Ok(())
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
