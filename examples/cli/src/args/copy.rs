//! Arguments of the command that copies, which opens two repositories.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{GlobalArguments, parse_size};

#[derive(Debug, Args)]
pub(crate) struct CopyArguments {
    /// What to copy, as the beginning of an id, `latest` or `latest:<source>` [default: all that is not there yet].
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["source", "tag", "host"])]
    pub(crate) snapshots: Vec<String>,
    /// The repository to copy to, as --repo. S3 options are for both; those on storing are for this one.
    #[arg(long, value_name = "PLACE", env = "BACKUP_TO_REPOSITORY")]
    to: String,
    /// Unlock it with the key in FILE [env: BACKUP_TO_KEY_FILE].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to_passphrase_file", "to_passphrase_command"])]
    to_key_file: Option<PathBuf>,
    /// Unlock it with the passphrase in FILE [env: BACKUP_TO_PASSPHRASE is the passphrase].
    #[arg(long, value_name = "FILE", conflicts_with = "to_passphrase_command")]
    to_passphrase_file: Option<PathBuf>,
    /// Unlock it with the passphrase that this shell command prints.
    #[arg(long, value_name = "COMMAND")]
    to_passphrase_command: Option<OsString>,
    /// Its access key is in FILE, as of --s3-credentials [default: the same as for --repo].
    #[arg(long, value_name = "FILE")]
    to_s3_credentials: Option<PathBuf>,
    /// Only of this source.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only with this tag; given twice, with both.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Only of this machine.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// How hard to compress.
    #[arg(long, value_name = "1..22", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) zstd_level: i32,
    /// Memory for buffers, blocks and packs [default: 256M].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
}

impl CopyArguments {
    /// How the target is opened.
    pub(crate) fn target(&self, global: &GlobalArguments) -> GlobalArguments {
        GlobalArguments {
            repo: Some(self.to.clone()),
            key_file: self.to_key_file.clone(),
            passphrase_file: self.to_passphrase_file.clone(),
            passphrase_command: self.to_passphrase_command.clone(),
            json: global.json,
            quiet: global.quiet,
            s3: global.s3.with_credentials(self.to_s3_credentials.clone()),
            variables: Variables::Target,
        }
    }
}

/// Variables of the environment that hold a secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Variables {
    /// `BACKUP_…`
    #[default]
    Repository,
    /// `BACKUP_TO_…`, for the repository copied to.
    Target,
}
