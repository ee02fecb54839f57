//! `ringwall vault`: the credentials of the running gateway: `put`, `list`, `delete`, `rotate`.
//!
//! A credential comes from standard input or a file, never from the command line, which other users of the machine can read. Everything goes through
//! the admin listener, so that it is checked, recorded, and in force at once. Exit status 1 with a sentence on standard error when nothing was
//! done.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::ask::{AdminApi, plain, print};
use crate::control::admin::providers::{ListedPage, Rotated};
use crate::settings::{CommandLine, Inputs, Settings};
use crate::vault::{MAX_CREDENTIALS, MAX_VALUE_BYTES, is_name, is_value};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Store a credential, in the place of the one of this name
    Put {
        /// As the policy's upstreams name it
        name: String,
        /// Read it from this file instead of standard input
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// List what there is, never what it is
    List {
        /// Print one JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Forget a credential; its upstreams are sent nothing any more
    Delete {
        /// As the list shows it
        name: String,
    },
    /// Seal everything under the CREDENTIALS_ENCRYPTION_KEY of the environment or .env, which the gateway need not have yet
    Rotate,
}

/// Does it.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match act(&args.act) {
        Ok(text) => print(&mut io::stdout(), format_args!("{text}"), ExitCode::SUCCESS),
        Err(text) => print(&mut io::stderr(), format_args!("ringwall vault: {text}"), ExitCode::FAILURE),
    }
}

fn act(act: &Act) -> Result<String, String> {
    match act {
        Act::Put { name, file } => put(name, file.as_deref()),
        Act::List { json } => list(*json),
        Act::Delete { name } => {
            AdminApi::configured()?.ask("DELETE", &path_of(name)?)?;
            Ok(format!("{name} is deleted"))
        }
        Act::Rotate => rotate(),
    }
}

fn path_of(name: &str) -> Result<String, String> {
    if is_name(name) {
        Ok(format!("/admin/providers/{name}"))
    } else {
        Err("a name has 1 to 64 letters, digits and _ - . and does not begin with a dot".into())
    }
}

fn put(name: &str, file: Option<&Path>) -> Result<String, String> {
    let (path, value) = (path_of(name)?, read(file)?);
    // One line end behind it is the editor's, or echo's.
    let value = value.strip_suffix('\n').map_or(value.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if !is_value(value) {
        return Err(format!(
            "a credential has 1 to {MAX_VALUE_BYTES} bytes of text on one line, without control characters and blanks around it"
        ));
    }
    // Escaped, a byte takes at most two here: quotes and backslashes. What grows would leave a copy behind.
    let mut body = Zeroizing::new(Vec::with_capacity(2 * value.len() + 64));
    body.extend_from_slice(b"{\"credential\":");
    serde_json::to_writer(&mut *body, value).map_err(|error| error.to_string())?;
    body.push(b'}');
    AdminApi::configured()?.send("PUT", &path, Some(&body))?;
    Ok(format!("{name} is stored, and in force"))
}

/// A credential as it was given; wiped on drop.
fn read(file: Option<&Path>) -> Result<Zeroizing<String>, String> {
    // More than may be, so that what is too long is seen to be; as much at once, so that nothing grows.
    let limit = MAX_VALUE_BYTES + 3;
    let mut text = Zeroizing::new(String::with_capacity(limit));
    let read = match file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(limit as u64).read_to_string(&mut text))
            .map_err(|error| format!("{}: {error}", path.display())),
        None => {
            if io::stdin().is_terminal() {
                print(
                    &mut io::stderr(),
                    format_args!("Type the credential, then Enter and Ctrl-D:"),
                    ExitCode::SUCCESS,
                );
            }
            io::stdin().lock().take(limit as u64).read_to_string(&mut text).map_err(|error| error.to_string())
        }
    };
    read?;
    Ok(text)
}

fn list(json: bool) -> Result<String, String> {
    let body = AdminApi::configured()?.ask("GET", &format!("/admin/providers?limit={MAX_CREDENTIALS}"))?;
    if json {
        return Ok(body);
    }
    let page: ListedPage = super::pages::read(&body)?;
    if page.providers.is_empty() {
        return Ok("the vault is empty".into());
    }
    let mut text = format!("{:<24} {:>8}  {:<24} {:<17} {}", "NAME", "REVISION", "UPDATED", "KEY", "UPSTREAMS");
    for one in &page.providers {
        let key = if one.readable { one.key.clone() } else { format!("{}?", one.key) };
        let _ = write!(
            text,
            "\n{:<24} {:>8}  {:<24} {:<17} {}",
            plain(&one.name),
            one.revision,
            plain(&one.updated),
            plain(&key),
            plain(&one.used_by.join(", "))
        );
    }
    if page.providers.iter().any(|one| !one.readable) {
        text.push_str("\n? sealed under a key that the gateway does not have");
    }
    Ok(text)
}

fn rotate() -> Result<String, String> {
    let loaded = Inputs::from_process(CommandLine::default()).and_then(|inputs| Settings::load(&inputs));
    let settings = loaded.map_err(|faults| faults.to_string())?.settings;
    let key = settings.vault.key.ok_or("CREDENTIALS_ENCRYPTION_KEY is not set: put the new key there")?;
    let mut body = Zeroizing::new(String::with_capacity(128));
    body.push_str("{\"key\":\"");
    for byte in key.expose() {
        let _ = write!(body, "{byte:02x}");
    }
    body.push_str("\"}");
    let answer = AdminApi::configured()?.send("POST", "/admin/vault/rotate", Some(body.as_bytes()))?;
    let rotated: Rotated = serde_json::from_str(&answer).map_err(|error| format!("the gateway's answer: {error}"))?;
    Ok(format!("everything is under key {} now; sealed anew: {}", plain(&rotated.key), rotated.resealed))
}
