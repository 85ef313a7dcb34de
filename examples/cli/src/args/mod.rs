//! What may stand on the command line.

mod copy;
mod parse;
mod upkeep;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use crate::args::copy::{CopyArguments, Variables};
pub(crate) use crate::args::parse::{ByteSpan, Span};
use crate::args::parse::{parse_pause, parse_range, parse_size};
pub(crate) use crate::args::upkeep::{ForgetArguments, GcArguments, KeepArguments, NamesArguments};
use crate::s3::S3Arguments;

const STATUSES: &str = "Exit status: 0 everything was done, 1 error, 2 wrong usage, 3 partly done (files were skipped, \
or damage was found; each is named).";

/// Backs up directories, files, devices and streams: deduplicated, compressed, encrypted.
#[derive(Debug, Parser)]
#[command(name = "backup", version, after_help = STATUSES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArguments {
    /// The repository: a directory, or s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION; further options of the URL are
    /// preset (aws, r2, b2, gcs, minio, ceph, garage, wasabi), style (path, host), checksum (sha256, md5, none),
    /// connections, deadline (seconds for a call, repetitions included) and http (allow).
    #[arg(
        long,
        short,
        global = true,
        value_name = "PLACE",
        env = "BACKUP_REPOSITORY"
    )]
    pub(crate) repo: Option<String>,
    /// Unlock with the key in FILE: 32 bytes or 64 hexadecimal digits, for its owner only [env: BACKUP_KEY_FILE].
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["passphrase_file", "passphrase_command"])]
    pub(crate) key_file: Option<PathBuf>,
    /// Unlock with the passphrase in FILE (without the end of its line) [env: BACKUP_PASSPHRASE is the passphrase].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "passphrase_command"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Unlock with the passphrase that this shell command prints.
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) passphrase_command: Option<OsString>,
    /// One JSON document on stdout (`ls`: one a line); errors as JSON on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress, no notes.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) s3: S3Arguments,
    /// Which variables hold the secret.
    #[arg(skip)]
    pub(crate) variables: Variables,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a repository.
    Init(InitArguments),
    /// Back up: each PATH becomes a snapshot.
    Backup(BackupArguments),
    /// List the snapshots, the oldest first.
    Snapshots(SnapshotsArguments),
    /// List what a snapshot holds.
    Ls(LsArguments),
    /// Bring a snapshot, or a part of it, back.
    Restore(RestoreArguments),
    /// Give snapshots up, by policy or by name. They can be had back until `gc` drops them.
    #[command(after_help = upkeep::FORGET_NOTES)]
    Forget(ForgetArguments),
    /// Take snapshots back that were given up.
    Unforget(NamesArguments),
    /// Hold snapshots: nothing gives them up until they are released. One that was given up comes back.
    Hold(NamesArguments),
    /// End the hold on snapshots.
    Release(NamesArguments),
    /// Delete what no snapshot needs, beside backups and everything else.
    #[command(after_help = upkeep::GC_NOTES)]
    Gc(GcArguments),
    /// Check that everything needed is there, and what it holds.
    Verify(VerifyArguments),
    /// Check as `verify --data` does and set bad packs aside, so that the next backups store their content once more.
    Repair(RepairArguments),
    /// Write the index anew, from the packs alone. Losing the index costs time and nothing else.
    RebuildIndex,
    /// Compare the store with what is remembered of it, so that one that goes back to an older state is noticed.
    #[command(after_help = upkeep::PINS_NOTES)]
    Pins(PinsArguments),
    /// Copy snapshots to another repository, which has been made with `init`.
    Copy(CopyArguments),
    /// Say how large the repository is.
    Stats,
    /// Say who may open the repository.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Back up a real directory into a new repository, restore it, compare, and clean up.
    Demo(DemoArguments),
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// A word on the first key slot.
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// A directory (as a tree), a file or block device (as a volume), or `-` for stdin (as a stream).
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The name of the source, the same at each run [default: <host>:<absolute path>].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Leave out what matches, in the syntax of .gitignore, relative to PATH; `!` takes back in.
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Leave out what matches a line of FILE; patterns of --exclude come after it.
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,
    /// Leave out directories that a CACHEDIR.TAG marks as a cache.
    #[arg(long)]
    pub(crate) exclude_caches: bool,
    /// Do not enter other file systems.
    #[arg(long, short = 'x')]
    pub(crate) one_file_system: bool,
    /// A word to find the snapshot by.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Read every file, whatever the previous snapshot says.
    #[arg(long)]
    pub(crate) force: bool,
    /// How hard to compress.
    #[arg(long, value_name = "1..22", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) zstd_level: i32,
    /// Memory for buffers, blocks and packs [default: 256M].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Show a running `gc` so often that this lives, and answer it: it may have to wait that long. TIME is 30s or 1min.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_pause)]
    pub(crate) beat: Span,
    /// The name of this machine [default: as the system says].
    #[arg(long)]
    pub(crate) host: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotsArguments {
    /// Only of this source.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only with this tag; given twice, with both.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Only of this machine.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Those that were given up and can still be had back, instead of those that stay.
    #[arg(long)]
    pub(crate) forgotten: bool,
}

const SNAPSHOT: &str = "The beginning of its id, `latest`, or `latest:<source>`";

#[derive(Debug, Args)]
pub(crate) struct LsArguments {
    #[arg(help = SNAPSHOT)]
    pub(crate) snapshot: String,
    /// Only this path and what is below it.
    pub(crate) path: Option<OsString>,
    /// Mode, owner, group, size and time too.
    #[arg(long, short)]
    pub(crate) long: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    #[arg(help = SNAPSHOT)]
    pub(crate) snapshot: String,
    /// A new or empty directory for a tree, a file or block device for the rest, `-` for stdout.
    pub(crate) target: PathBuf,
    /// Only this path and what is below it.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) path: Vec<OsString>,
    /// Only these bytes of a volume, a stream or one file: `START..END`, `START..` or `..END`.
    #[arg(long, value_name = "RANGE", value_parser = parse_range)]
    pub(crate) range: Option<ByteSpan>,
    /// The target may hold something already; what has the same name is replaced.
    #[arg(long)]
    pub(crate) into_existing: bool,
    /// Whether owners and groups are restored; `auto`: when running as root.
    #[arg(long, value_enum, default_value_t = Owner::Auto)]
    pub(crate) owner: Owner,
}

/// See `backup::Ownership`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Owner {
    Auto,
    Restore,
    Ignore,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    /// Read and check N packs chosen at random, instead of every byte stored.
    #[arg(long, value_name = "N")]
    pub(crate) sample: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct PinsArguments {
    /// Remember here, instead of in $XDG_STATE_HOME/backup or ~/.local/state/backup.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Take what the store shows of this source as it is, whatever was remembered.
    #[arg(long, value_name = "SOURCE")]
    pub(crate) accept: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Read and check every byte stored.
    #[arg(long)]
    pub(crate) data: bool,
    /// Read and check N packs chosen at random.
    #[arg(long, value_name = "N", conflicts_with = "data")]
    pub(crate) sample: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Let a further passphrase or key open the repository.
    Add(NewSecretArguments),
    /// Take a passphrase or key away.
    Remove {
        /// The beginning of its name, as `key list` shows it.
        slot: String,
    },
    /// List who may open the repository.
    List,
    /// Make a key file.
    Generate {
        /// A file that does not exist.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewSecretArguments {
    /// The new key; it is made when FILE does not exist.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_passphrase_file", "new_passphrase_command"])]
    pub(crate) new_key_file: Option<PathBuf>,
    /// The new passphrase is in FILE.
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_command")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// The new passphrase is what this shell command prints.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) new_passphrase_command: Option<OsString>,
    /// A word for people: whose it is.
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// What to back up [default: a directory of this machine of 20 to 500 MB].
    #[arg(value_name = "DIR")]
    pub(crate) source: Option<PathBuf>,
    /// Where the repository and the restored files go meanwhile [default: the temporary directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Leave the repository, its key and the restored files there.
    #[arg(long)]
    pub(crate) keep: bool,
}

impl Arguments {
    /// What clap cannot be told.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let wrong = |kind, text: &str| Err(Self::command().error(kind, text));
        let needs_repository = !matches!(
            self.command,
            Command::Demo(_) | Command::Key(KeyCommand::Generate { .. })
        );
        if needs_repository && self.global.repo.as_deref().unwrap_or_default().is_empty() {
            let text = "which repository? Give --repo PATH, or set BACKUP_REPOSITORY";
            return wrong(ErrorKind::MissingRequiredArgument, text);
        }
        if let Command::Forget(forget) = &self.command
            && forget.names_nothing()
        {
            let text = "which ones? Name snapshots, or say what stays: --keep-last 3, --keep-daily 7, --policy FILE";
            return wrong(ErrorKind::MissingRequiredArgument, text);
        }
        if let Command::Backup(backup) = &self.command {
            let streams = backup.paths.iter().filter(|path| is_dash(path)).count();
            if backup.name.is_some() && backup.paths.len() > 1 {
                return wrong(
                    ErrorKind::ArgumentConflict,
                    "--name names one source: give one PATH",
                );
            }
            if streams > 0 && backup.name.is_none() {
                let text = "stdin has no name: give one PATH `-` and --name NAME";
                return wrong(ErrorKind::MissingRequiredArgument, text);
            }
        }
        Ok(())
    }
}

/// `-` stands for stdin or stdout.
pub(crate) fn is_dash(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
