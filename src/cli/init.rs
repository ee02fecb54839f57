//! `ringwall init`: writes a `.env` with fresh secrets.
//!
//! The file is created, never overwritten, and readable by its owner only from its first byte on. The secrets are 256
//! bits each from the operating system and are not printed.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::{Zeroize, Zeroizing};

/// Arguments of `ringwall init`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Write to this file instead of .env; it must not exist either
    #[arg(long, value_name = "FILE")]
    pub force_path: Option<PathBuf>,
}

/// What stands in the file: the variable and its comment.
const SECRETS: &[(&str, &str)] = &[
    ("WS_AUTH_TOKEN", "What clients send as `Authorization: Bearer …` on HTTP and WebSocket."),
    ("TCP_AUTH_TOKEN", "What clients send in `authenticate` on TCP."),
    ("ORCHESTRATOR_SECURITY_TOKEN", "Opens the admin API. Never give it to an agent."),
    ("JWT_SECRET", "Signs access tokens."),
    ("CREDENTIALS_ENCRYPTION_KEY", "Encrypts the credential vault. Keep a copy: without it the vault cannot be read."),
];

/// Why there is no new file.
#[derive(Debug, thiserror::Error)]
enum InitError {
    /// The file exists.
    #[error("{0} exists already and is left as it is; to start afresh, move it away first, or use --force-path FILE")]
    Exists(String),
    /// The operating system refused to create or write it.
    #[error("{0} cannot be written: {1}")]
    Io(String, io::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Runs the command. Exit code 1 if no file was written.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let path = args.force_path.as_deref().unwrap_or(Path::new(".env"));
    match write_new(path) {
        Ok(()) => {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "Wrote {} with {} fresh secrets (mode 0600).", path.display(), SECRETS.len());
            let _ = writeln!(
                out,
                "Next: `ringwall check` shows every setting in force, `ringwall serve` starts the gateway."
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "ringwall init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_new(path: &Path) -> Result<(), InitError> {
    let shown = || path.display().to_string();
    let content = content().map_err(InitError::Random)?;
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(InitError::Exists(shown()));
        }
        Err(error) => return Err(InitError::Io(shown(), error)),
    };
    let written = file.write_all(content.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a file would look like a whole one the next time. It is ours: create_new made it.
        let _ = std::fs::remove_file(path);
        InitError::Io(shown(), error)
    })
}

fn content() -> Result<Zeroizing<String>, getrandom::Error> {
    // Enough that the text is not moved, which would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str(
        "# Written by `ringwall init`. Keep this file secret and out of version control.\n\
         # .env.example lists every setting.\n\n\
         # development or production\nRINGWALL_ENV=development\n",
    );
    for (name, comment) in SECRETS {
        let secret = fresh_secret()?;
        let _ = write!(text, "\n# {comment}\n{name}={}\n", secret.as_str());
    }
    Ok(text)
}

/// 256 random bits as 64 hexadecimal digits.
fn fresh_secret() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    bytes.zeroize();
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::settings::{Inputs, Settings};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn writes_once_and_for_the_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(matches!(write_new(&path), Err(InitError::Exists(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn does_not_follow_a_link_to_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let (link, target) = (directory.path().join(".env"), directory.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(write_new(&link).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn what_it_writes_is_good_for_production() {
        let text = content().unwrap().replace("RINGWALL_ENV=development", "RINGWALL_ENV=production");
        let mut inputs = Inputs::from_pairs(&[("TLS_TERMINATED_UPSTREAM", "true")]);
        inputs.dotenv = Some((".env".into(), text.clone()));
        let loaded = Settings::load(&inputs).map_err(|faults| faults.to_string());
        assert_eq!(loaded.as_ref().err(), None);
        let secrets: std::collections::BTreeSet<_> =
            text.lines().filter_map(|line| line.split_once('=')).filter(|(_, value)| value.len() == 64).collect();
        assert_eq!(secrets.len(), SECRETS.len());
        assert_eq!(
            secrets.iter().map(|(_, value)| value).collect::<std::collections::BTreeSet<_>>().len(),
            SECRETS.len()
        );
    }
}
