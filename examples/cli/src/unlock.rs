//! Where secrets come from: a key file, a passphrase from a file, a command, the environment or the terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup::{Credential, Zeroizing};
use backup_journal::atomic::create_durable;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::args::{GlobalArguments, NewSecretArguments, Variables};
use crate::failure::Failure;

/// The longest passphrase that a file or command may give, in bytes.
const PASSPHRASE_LEN_MAX: u64 = 64 << 10;

/// What opens a repository, kept for commands that need it twice.
pub(crate) enum Secret {
    Passphrase(Zeroizing<Vec<u8>>),
    Key(Zeroizing<[u8; 32]>),
}

/// Where a secret is looked for, in this order; else the terminal is asked.
#[derive(Debug, Default)]
struct Sources {
    key_file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    passphrase_command: Option<OsString>,
    passphrase: Option<OsString>,
}

/// A secret for a new key slot.
pub(crate) struct NewSecret {
    pub(crate) secret: Secret,
    /// The key file, when it is one.
    pub(crate) key_file: Option<PathBuf>,
    /// The key file did not exist before.
    pub(crate) is_created: bool,
}

impl Secret {
    pub(crate) fn credential(&self) -> Credential {
        match self {
            Self::Passphrase(bytes) => Credential::Passphrase(bytes.clone()),
            Self::Key(bytes) => Credential::Key(bytes.clone()),
        }
    }

    /// The secret that opens the repository today, unless somebody has to type it.
    pub(crate) async fn at_hand(global: &GlobalArguments) -> Result<Option<Self>, Failure> {
        let sources = Sources::of(global);
        match &sources.key_file {
            Some(path) => read_key_file(path).map(Some),
            None => sources.passphrase().await,
        }
    }

    /// The secret that somebody types.
    pub(crate) async fn typed(global: &GlobalArguments) -> Result<Self, Failure> {
        let prompt = match global.variables {
            Variables::Repository => "Passphrase: ",
            Variables::Target => "Passphrase of the repository copied to: ",
        };
        ask(prompt).await
    }

    /// The secret of a repository to be made. A key file that does not exist is made.
    pub(crate) async fn for_init(global: &GlobalArguments) -> Result<NewSecret, Failure> {
        Sources::of(global).new_secret().await
    }

    /// The secret of a further key slot.
    pub(crate) async fn for_slot(new: &NewSecretArguments) -> Result<NewSecret, Failure> {
        let sources = Sources {
            key_file: new.new_key_file.clone(),
            passphrase_file: new.new_passphrase_file.clone(),
            passphrase_command: new.new_passphrase_command.clone(),
            passphrase: None,
        };
        sources.new_secret().await
    }
}

impl Sources {
    /// What the command line says is asked before the environment.
    fn of(global: &GlobalArguments) -> Self {
        let named = Self {
            key_file: global.key_file.clone(),
            passphrase_file: global.passphrase_file.clone(),
            passphrase_command: global.passphrase_command.clone(),
            passphrase: None,
        };
        if named.key_file.is_some()
            || named.passphrase_file.is_some()
            || named.passphrase_command.is_some()
        {
            return named;
        }
        let (key_file, passphrase) = match global.variables {
            Variables::Repository => ("BACKUP_KEY_FILE", "BACKUP_PASSPHRASE"),
            Variables::Target => ("BACKUP_TO_KEY_FILE", "BACKUP_TO_PASSPHRASE"),
        };
        Self {
            key_file: variable(key_file).map(PathBuf::from),
            passphrase: variable(passphrase),
            ..Self::default()
        }
    }

    async fn passphrase(&self) -> Result<Option<Secret>, Failure> {
        let bytes = if let Some(path) = &self.passphrase_file {
            let failed = |source| Failure::Read {
                what: "the passphrase file",
                path: path.clone(),
                source,
            };
            let mut bytes = Zeroizing::new(Vec::new());
            let file = File::open(path).map_err(failed)?;
            file.take(PASSPHRASE_LEN_MAX)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            bytes
        } else if let Some(command) = &self.passphrase_command {
            let command = command.clone();
            blocking(move || run_command(&command)).await??
        } else if let Some(text) = &self.passphrase {
            Zeroizing::new(text.clone().into_vec())
        } else {
            return Ok(None);
        };
        Ok(Some(Secret::Passphrase(checked(bytes)?)))
    }

    async fn new_secret(self) -> Result<NewSecret, Failure> {
        if let Some(path) = self.key_file {
            let is_created = !path.try_exists().unwrap_or(true);
            if is_created {
                generate_key_file(&path)?;
            }
            let secret = read_key_file(&path)?;
            return Ok(NewSecret {
                secret,
                key_file: Some(path),
                is_created,
            });
        }
        let secret = match self.passphrase().await? {
            Some(secret) => secret,
            None => ask_twice().await?,
        };
        Ok(NewSecret {
            secret,
            key_file: None,
            is_created: false,
        })
    }
}

/// Makes a key file that only its owner can read. One that exists is left as it is.
pub(crate) fn generate_key_file(path: &Path) -> Result<(), Failure> {
    let mut key = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *key).map_err(|_| backup::Error::NoEntropy)?;
    let mut text = Zeroizing::new(HEXLOWER.encode(&*key));
    text.push('\n');
    create_durable(path, text.as_bytes(), 0o600).map_err(|source| Failure::WriteKey { source })
}

pub(crate) fn read_key_file(path: &Path) -> Result<Secret, Failure> {
    let failed = |source| Failure::Read {
        what: "the key file",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Failure::KeyFileExposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_LEN_MAX));
    file.take(KEY_FILE_LEN_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let key = key_of(&bytes).ok_or_else(|| Failure::NotAKey {
        path: path.to_owned(),
    })?;
    Ok(Secret::Key(key))
}

/// 64 digits and room for the end of the line; what is longer is no key.
const KEY_FILE_LEN_MAX: usize = 128;

fn key_of(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0u8; 32]);
    if bytes.len() == key.len() {
        key.copy_from_slice(bytes);
        return Some(key);
    }
    let digits = bytes.trim_ascii();
    if digits.len() != 2 * key.len() {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(digits, &mut *key).ok()?;
    Some(key)
}

fn run_command(command: &OsString) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(command)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit());
    let output = shell
        .output()
        .map_err(|source| Failure::RunCommand { source })?;
    let bytes = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(Failure::CommandFailed {
            status: output.status.to_string(),
        });
    }
    Ok(bytes)
}

/// Takes the end of the line away; an empty passphrase protects nothing.
fn checked(mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(Failure::EmptyPassphrase);
    }
    Ok(bytes)
}

async fn ask_twice() -> Result<Secret, Failure> {
    let first = ask("New passphrase: ").await?;
    let again = ask("The same again: ").await?;
    match (&first, &again) {
        (Secret::Passphrase(one), Secret::Passphrase(other)) if one == other => Ok(first),
        _ => Err(Failure::PassphrasesDiffer),
    }
}

async fn ask(prompt: &'static str) -> Result<Secret, Failure> {
    let typed = blocking(move || rpassword::prompt_password(prompt)).await?;
    let typed = typed.map_err(|source| match source.kind() {
        // Typed as a control character, which the prompt takes for itself.
        io::ErrorKind::Interrupted => Failure::Interrupted,
        io::ErrorKind::UnexpectedEof => Failure::EmptyPassphrase,
        _ => Failure::NoTerminal { source },
    })?;
    Ok(Secret::Passphrase(checked(Zeroizing::new(
        typed.into_bytes(),
    ))?))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| backup::Error::WorkerLost.into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the program reads its environment"
)]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::key_of;

    #[test]
    fn a_key_is_32_bytes_or_64_digits() {
        assert_eq!(key_of(&[7; 32]).map(|key| *key), Some([7; 32]));
        assert_eq!(
            key_of(format!("{}\n", "0A".repeat(32)).as_bytes()).map(|key| *key),
            Some([10; 32])
        );
        assert!(key_of(&[7; 31]).is_none());
        assert!(key_of("0g".repeat(32).as_bytes()).is_none());
        assert!(key_of("00".repeat(33).as_bytes()).is_none());
    }
}
