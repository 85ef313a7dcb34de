//! `s3://bucket/prefix?endpoint=…&region=…`: the form for command lines.

use url::Url;

use crate::{AddressStyle, Checksum, ConfigError, Credentials, Preset, S3Config};

const KNOWN: &str = "preset, endpoint, region, style, checksum, connections, deadline, http";

impl S3Config {
    /// Parses `s3://bucket/prefix?preset=…&endpoint=…&region=…&style=path|host&checksum=sha256|md5|none&connections=8`.
    /// All options may be left out: without `preset`, a URL with an endpoint is one of `minio`, and one without of `aws`.
    /// `deadline=60` ends every call after so many seconds; `http=allow` allows plain http to other machines.
    ///
    /// Secrets have no place in a URL, which command lines and logs show.
    ///
    /// # Errors
    /// [`ConfigError`] that names what cannot be used.
    pub fn from_url(text: &str, credentials: Credentials) -> Result<Self, ConfigError> {
        let bad = |what, value: &str, why| ConfigError::Value {
            what,
            value: value.into(),
            why,
        };
        let form = "it is not like s3://bucket/prefix?endpoint=https://host";
        // A URL of a scheme that is not special: the bucket keeps its case.
        let url = Url::parse(text).map_err(|_| bad("URL", text, form))?;
        if url.scheme() != "s3" || url.fragment().is_some() {
            return Err(bad("URL", text, form));
        }
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
            let why = "secrets and ports have no place here";
            return Err(bad("URL", url.host_str().unwrap_or_default(), why));
        }
        let bucket = url.host_str().ok_or_else(|| bad("URL", text, form))?;
        let options: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let option = |name: &str| {
            let found = options.iter().find(|(given, _)| given == name);
            found.map(|(_, value)| value.as_str())
        };
        let preset = match option("preset") {
            Some(name) => {
                Preset::by_name(name).ok_or_else(|| bad("preset", name, "there is no such one"))?
            }
            None if option("endpoint").is_some() => Preset::Minio,
            None => Preset::Aws,
        };
        let mut config = Self::new(preset, bucket, credentials);
        config.prefix = url.path().trim_matches('/').to_owned();
        for (name, value) in &options {
            match (name.as_str(), value.as_str()) {
                ("preset", _) => {}
                ("endpoint", _) => config.endpoint = Some(value.clone()),
                ("region", _) => config.region.clone_from(value),
                ("style", "path") => config.style = AddressStyle::Path,
                ("style", "host") => config.style = AddressStyle::VirtualHost,
                ("style", _) => return Err(bad("style", value, "it is path or host")),
                ("checksum", "sha256") => config.checksum = Checksum::Sha256,
                ("checksum", "md5") => config.checksum = Checksum::Md5,
                ("checksum", "none") => config.checksum = Checksum::None,
                ("checksum", _) => {
                    return Err(bad("checksum", value, "it is sha256, md5 or none"));
                }
                ("connections", _) => {
                    let number = value
                        .parse()
                        .ok()
                        .filter(|number| (1..=256).contains(number));
                    config.connections_max =
                        number.ok_or_else(|| bad("connections", value, "it is 1 to 256"))?;
                }
                ("deadline", _) => {
                    let seconds: Option<u64> = value.parse().ok();
                    let seconds = seconds.filter(|seconds| (1..=86_400).contains(seconds));
                    config.call_ms_max = 1_000
                        * seconds
                            .ok_or_else(|| bad("deadline", value, "it is 1 to 86400 seconds"))?;
                }
                ("http", "allow") => config.allow_http = true,
                ("http", _) => return Err(bad("http", value, "it can only be `allow`")),
                _ => {
                    let name = name.clone();
                    return Err(ConfigError::UnknownOption { name, known: KNOWN });
                }
            }
        }
        config.base()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<S3Config, ConfigError> {
        S3Config::from_url(text, Credentials::new("id", "secret"))
    }

    fn base(text: &str) -> String {
        parse(text).and_then(|config| config.base()).unwrap().into()
    }

    #[test]
    fn urls_say_where_requests_go() {
        assert_eq!(
            base("s3://vm-backups/site/7?region=eu-central-1"),
            "https://vm-backups.s3.eu-central-1.amazonaws.com/"
        );
        assert_eq!(
            base("s3://bucket?endpoint=http://127.0.0.1:9000"),
            "http://127.0.0.1:9000/bucket"
        );
        assert_eq!(
            base("s3://bucket?endpoint=https://s3.example.org&style=host"),
            "https://bucket.s3.example.org/"
        );
        assert_eq!(
            base("s3://bucket/?preset=gcs"),
            "https://storage.googleapis.com/bucket"
        );
        let config =
            parse("s3://b/a/b/?preset=r2&endpoint=https://x.example&checksum=none").unwrap();
        assert_eq!(
            (config.prefix.as_str(), config.region.as_str()),
            ("a/b", "auto")
        );
        assert_eq!(config.checksum, Checksum::None);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        for (text, wanted) in [
            ("s3://bucket?endpoint=http://store.example", "neither https"),
            (
                "s3://bucket?endpoint=ftp://store.example",
                "must begin with https",
            ),
            (
                "s3://bucket?endpoint=https://store.example/path",
                "only a host",
            ),
            (
                "s3://bucket?endpoint=https://10.0.0.1&style=host",
                "path style",
            ),
            ("s3://bucket?preset=ceph", "endpoint is missing"),
            ("s3://bucket?preset=tape", "no such one"),
            ("s3://bucket/a//b", "prefix"),
            ("s3://bucket/../b?secret=1", "no option"),
            ("s3://id:secret@bucket", "no place here"),
            ("s3://bucket?connections=0", "1 to 256"),
            ("s3://bucket?deadline=soon", "86400 seconds"),
            ("s3:bucket", "is not like"),
            ("http://bucket", "is not like"),
            ("s3://bu%20cket", "bucket"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("id:secret"), "{error}");
        }
        let config = S3Config::new(Preset::Aws, "bucket", Credentials::new("id", "line\nbreak"));
        assert_eq!(config.base(), Err(ConfigError::Credentials));
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::new("AKIDEXAMPLE", "hush").with_session_token("hush");
        let config = S3Config::new(Preset::Aws, "bucket", credentials);
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("AKID"),
            "{shown}"
        );
    }
}
