//! `s3://…`: where the credentials come from, and what of the store's own is used.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use backup::backup_backend::{KeyPrefix, ObjectKey, StorageBackendExt};
use backup_backend_s3::{Credentials, ObjectRule, Retention, RetentionMode, S3, S3Config};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::unlock::variable;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "S3 options")]
pub(crate) struct S3Arguments {
    /// Take the access key from FILE: key id and secret, and perhaps a session token, a line each, for its owner only
    /// [env: BACKUP_S3_KEY_ID, BACKUP_S3_SECRET and BACKUP_S3_TOKEN, without a file].
    #[arg(long, global = true, value_name = "FILE")]
    s3_credentials: Option<PathBuf>,
    /// Take the access key from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    #[arg(long, global = true, conflicts_with = "s3_credentials")]
    s3_aws_env: bool,
    /// Trust the certificate authorities in FILE (PEM) as well.
    #[arg(long, global = true, value_name = "FILE")]
    s3_ca: Option<PathBuf>,
    /// Store one kind of object in a class of its own: `packs=GLACIER_IR`, `index=…`, `snapshots=…`, `sessions=…`, `gc=…`; packs,
    /// when no kind is named. May be repeated; the others stay in the store's own class.
    #[arg(long, global = true, value_name = "[KIND=]CLASS")]
    s3_storage_class: Vec<KindClass>,
    /// Lock packs, snapshots and the configuration against deletion: `governance:DAYS` or `compliance:DAYS`. The bucket must
    /// allow it. Nothing that is locked can be collected before its time.
    #[arg(long, global = true, value_name = "MODE:DAYS")]
    s3_lock: Option<Lock>,
}

/// Which class a kind of object is stored in.
#[derive(Debug, Clone)]
struct KindClass {
    prefix: String,
    class: String,
}

/// The kinds of objects that there may be many of.
const KINDS: [&str; 5] = ["packs", "index", "snapshots", "sessions", "gc"];

impl FromStr for KindClass {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, class) = text.split_once('=').unwrap_or(("packs", text));
        if !KINDS.contains(&kind) || class.is_empty() {
            return Err(
                "it is CLASS or KIND=CLASS; KIND is packs, index, snapshots, sessions or gc",
            );
        }
        Ok(Self {
            prefix: format!("{kind}/"),
            class: class.into(),
        })
    }
}

/// What may not be deleted, and for how long.
#[derive(Debug, Clone, Copy)]
struct Lock {
    mode: RetentionMode,
    days: u32,
}

impl FromStr for Lock {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "it is governance:DAYS or compliance:DAYS, with 1 to 36500 days";
        let (mode, days) = text.split_once(':').ok_or(wanted)?;
        let mode = match mode {
            "governance" => RetentionMode::Governance,
            "compliance" => RetentionMode::Compliance,
            _ => return Err(wanted),
        };
        let days = days.parse().ok().filter(|days| (1..=36_500).contains(days));
        Ok(Self {
            mode,
            days: days.ok_or(wanted)?,
        })
    }
}

/// What is never rewritten and must outlive whoever holds the access key. Sessions, segments and key slots come and go.
const LOCKED: [&str; 3] = ["packs/", "snapshots/", "config"];

impl S3Arguments {
    /// The store that a URL names.
    pub(crate) fn config(&self, url: &str) -> Result<S3Config, Failure> {
        let failed = |source| Failure::S3 { source };
        let mut config = S3Config::from_url(url, self.credentials()?).map_err(failed)?;
        if let Some(path) = &self.s3_ca {
            config.ca_pem = Some(read("the certificates", path)?.to_vec());
        }
        let until = self.s3_lock.map(|lock| {
            let days = Duration::from_secs(u64::from(lock.days) * 86_400);
            Retention::new(lock.mode, now() + days)
        });
        let mut prefixes: Vec<&str> = LOCKED.to_vec();
        prefixes.extend(self.s3_storage_class.iter().map(|of| of.prefix.as_str()));
        prefixes.sort_unstable();
        prefixes.dedup();
        for prefix in prefixes {
            let mut rule = ObjectRule::new(prefix);
            rule.retention = until.filter(|_| LOCKED.contains(&prefix));
            let class = self.s3_storage_class.iter().find(|of| of.prefix == prefix);
            rule.storage_class = class.map(|of| of.class.clone());
            config.rules.push(rule);
        }
        Ok(config)
    }

    /// The same, with the access key in a file, if one is named.
    pub(crate) fn with_credentials(&self, file: Option<PathBuf>) -> Self {
        let mut other = self.clone();
        if file.is_some() {
            (other.s3_credentials, other.s3_aws_env) = (file, false);
        }
        other
    }

    /// How long what is written is locked.
    pub(crate) fn locked_for(&self) -> Option<Duration> {
        let days = self.s3_lock.map(|lock| u64::from(lock.days));
        days.map(|days| Duration::from_secs(days * 86_400))
    }

    /// Whether what is written is to be locked.
    pub(crate) fn locks(&self) -> bool {
        self.s3_lock.is_some()
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        if let Some(path) = &self.s3_credentials {
            let mode = fs::metadata(path).map_or(0, |found| found.mode() & 0o7777);
            if mode & 0o077 != 0 {
                let path = path.clone();
                return Err(Failure::KeyFileExposed { path, mode });
            }
            let bytes = read("the access key", path)?;
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let (id, secret) = (lines.next(), lines.next());
            let (Some(id), Some(secret)) = (id, secret) else {
                return Err(Failure::NoCredentials);
            };
            return Ok(access_key(id, secret, lines.next()));
        }
        let names = if self.s3_aws_env {
            [
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
            ]
        } else {
            ["BACKUP_S3_KEY_ID", "BACKUP_S3_SECRET", "BACKUP_S3_TOKEN"]
        };
        let [id, secret, token] =
            names.map(|name| variable(name).and_then(|value| value.into_string().ok()));
        let (Some(id), Some(secret)) = (id, secret) else {
            return Err(Failure::NoCredentials);
        };
        Ok(access_key(&id, &secret, token.as_deref()))
    }
}

fn access_key(id: &str, secret: &str, token: Option<&str>) -> Credentials {
    let credentials = Credentials::new(id, secret);
    match token {
        Some(token) => credentials.with_session_token(token),
        None => credentials,
    }
}

/// Whether the store keeps a lock on an object.
pub(crate) async fn is_locked(store: &S3, name: &str) -> Result<bool, Failure> {
    let key = ObjectKey::parse(name).map_err(|e| Failure::Path {
        path: name.into(),
        source: e.into(),
    })?;
    let found = store.retention(&key).await.map_err(backup::Error::from)?;
    Ok(found.is_some_and(|retention| retention.until > now()))
}

/// Objects that should be locked and are not.
pub(crate) async fn unlocked(store: &S3) -> Result<Vec<String>, Failure> {
    let mut unlocked = Vec::new();
    for prefix in LOCKED {
        let prefix = KeyPrefix::parse(prefix).unwrap_or_default();
        let objects = store.list_all(&prefix).await.map_err(backup::Error::from)?;
        let mut checks = stream::iter(objects)
            .map(|object| async move {
                let name = object.key.to_string();
                is_locked(store, &name)
                    .await
                    .map(|is_locked| (name, is_locked))
            })
            .buffered(CHECKS_AT_ONCE);
        while let Some((name, is_locked)) = checks.try_next().await? {
            if !is_locked {
                unlocked.push(name);
            }
        }
    }
    Ok(unlocked)
}

const CHECKS_AT_ONCE: usize = 8;

fn read(what: &'static str, path: &PathBuf) -> Result<Zeroizing<Vec<u8>>, Failure> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| Failure::Read {
            what,
            path: path.clone(),
            source,
        })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a retention begins when the command does"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::KindClass;

    #[test]
    fn a_class_is_for_one_kind_of_object() {
        let parse = |text: &str| text.parse::<KindClass>();
        assert_eq!(parse("GLACIER_IR").unwrap().prefix, "packs/");
        let index = parse("index=STANDARD").unwrap();
        assert_eq!(
            (index.prefix.as_str(), index.class.as_str()),
            ("index/", "STANDARD")
        );
        for bad in ["keys=STANDARD", "packs=", "=STANDARD", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
