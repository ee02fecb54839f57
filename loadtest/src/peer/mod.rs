//! The programs that `compare` measures: how each is found, configured, started and checked.
//!
//! Each is configured as its own documentation advises for speed, as one worker on one core; the configurations are the files in
//! `loadtest/peers/`. One that is not installed is left out. One that is installed and does not do the work is an error, never a figure.

mod check;
mod exchange;
mod find;
mod gateways;
mod group;
mod proxies;
mod ringwall;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::generate::{Call, Door, Load, Mix};
use super::process::fill;
pub(crate) use check::right_call;
pub(crate) use group::{Group, Program, free_ports};

/// Length of the call's JSON-RPC message, bytes.
pub(crate) const CALL_BYTES: usize = 291;

/// How long a peer that listens may take until it does the work.
const READY: Duration = Duration::from_secs(10);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// With every guard on.
    Ringwall,
    /// With its guards off, as far as settings go.
    RingwallOff,
    /// Bytes in, bytes out, on the same runtime.
    Relay,
    Haproxy,
    Nginx,
    Envoy,
    Traefik,
    Caddy,
    /// nginx with ModSecurity and the OWASP core rules.
    Modsecurity,
    McpProxy,
    Contextforge,
}

impl Kind {
    /// In the order of tables.
    pub(crate) const ALL: [Self; 11] = [
        Self::Ringwall,
        Self::RingwallOff,
        Self::Relay,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
        Self::Traefik,
        Self::Caddy,
        Self::Modsecurity,
        Self::McpProxy,
        Self::Contextforge,
    ];

    /// As `--peers` and files have it.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Ringwall => "ringwall",
            Self::RingwallOff => "ringwall-off",
            Self::Relay => "relay",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Modsecurity => "modsecurity",
            Self::McpProxy => "mcp-proxy",
            Self::Contextforge => "contextforge",
        }
    }

    /// Whether a run goes on without it when it fails: a gateway that writes messages anew may give up where proxies do not.
    pub(crate) fn may_fail(self) -> bool {
        matches!(self, Self::McpProxy | Self::Contextforge)
    }

    /// As tables have it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ringwall => "ringwall, guards on",
            Self::RingwallOff => "ringwall, guards off",
            Self::Relay => "bare relay",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::Caddy => "Caddy",
            Self::Modsecurity => "nginx + ModSecurity + core rules",
            Self::McpProxy => "mcp-proxy",
            Self::Contextforge => "ContextForge",
        }
    }
}

/// Where peers are looked for and set up.
pub(crate) struct Place {
    /// The ringwall program.
    pub(crate) ringwall: PathBuf,
    /// Where `loadtest/peers/install` puts programs, looked at before `PATH`.
    pub(crate) installed: PathBuf,
    /// For files of this run.
    pub(crate) dir: PathBuf,
    /// Port of the upstream.
    pub(crate) upstream: u16,
    /// The core of the measured processes.
    pub(crate) core: usize,
}

impl Place {
    /// A directory of its own for one peer, with `files` of `loadtest/peers/` in it, filled in.
    fn home(&self, kind: Kind, port: u16, files: &[(&str, &str)]) -> io::Result<PathBuf> {
        let home = self.dir.join(kind.slug());
        std::fs::create_dir_all(&home)?;
        for (name, template) in files {
            std::fs::write(home.join(name), fill(template, &home, port, self.upstream))?;
        }
        Ok(home)
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        find::program(program, &self.installed)
    }
}

/// How calls are made through a peer, and what comes back.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    /// Empty where none is asked for.
    pub(crate) token: &'static str,
    /// The MCP session that calls belong to; empty where they need none.
    pub(crate) session: String,
    /// The call as this peer wants it, with the answer that comes through it.
    pub(crate) call: Call,
}

impl Target {
    /// That of a proxy which passes on what it gets.
    fn plain(port: u16) -> Self {
        let mix = Mix::fixed(CALL_BYTES);
        let call = mix.calls().first().cloned().unwrap_or_else(|| Call::new("", Vec::new()));
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            path: "/mcp",
            token: "",
            session: String::new(),
            call,
        }
    }

    /// What is driven through it; the caller says how much.
    pub(crate) fn load(&self) -> Load {
        let mix = Rc::new(Mix::of(vec![self.call.clone()]));
        Load {
            path: self.path.to_owned(),
            token: self.token.to_owned(),
            session_id: self.session.clone(),
            mix,
            ..Load::new(Door::Http, self.address)
        }
    }
}

/// A peer as it is to be started.
struct Prepared {
    program: Program,
    home: PathBuf,
    version: String,
    target: Target,
}

/// A peer that runs and does the work.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) target: Target,
    pub(crate) group: Group,
}

impl Peer {
    /// Starts a peer and checks it; `None` where it is not installed.
    pub(crate) fn start(kind: Kind, place: &Place) -> io::Result<Option<Self>> {
        Self::start_changed(kind, place, |_, _| {})
    }

    /// The same, with `change` made to each of its files, which it gets by name and content.
    pub(crate) fn start_changed(kind: Kind, place: &Place, change: fn(&str, &mut String)) -> io::Result<Option<Self>> {
        let [port] = free_ports()?;
        let Some(prepared) = prepare(kind, place, port)? else { return Ok(None) };
        let Prepared { program, home, version, mut target } = prepared;
        for file in std::fs::read_dir(&home)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_file() {
                let mut text = std::fs::read_to_string(&path)?;
                change(&name, &mut text);
                std::fs::write(&path, text)?;
            }
        }
        let mut group = Group::start(kind.slug(), &program, &home, Some(place.core))?;
        group.listening(target.address, program.patience)?;
        gateways::set_up(kind, &mut target, place, &home).map_err(|error| group.explain(&error))?;
        // Some listen before they have read their routes.
        let end = Instant::now() + READY;
        while let Err(error) = check::works(kind, &mut target) {
            if Instant::now() > end {
                return Err(group.explain(&error));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(Some(Self { kind, version, target, group }))
    }
}

fn prepare(kind: Kind, place: &Place, port: u16) -> io::Result<Option<Prepared>> {
    match kind {
        Kind::Ringwall | Kind::RingwallOff => ringwall::prepare(kind, place, port).map(Some),
        Kind::McpProxy | Kind::Contextforge => gateways::prepare(kind, place, port),
        _ => proxies::prepare(kind, place, port),
    }
}

/// The ringwall program with every guard on, as [`Peer::start`] would start it, and how it is called.
pub(crate) fn ringwall_alone(place: &Place, port: u16) -> io::Result<(Program, PathBuf, Target)> {
    let prepared = ringwall::prepare(Kind::Ringwall, place, port)?;
    Ok((prepared.program, prepared.home, prepared.target))
}

/// The absolute path of a file that must exist.
fn existing(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_kind_is_in_the_tables_and_has_names_of_its_own() {
        assert_eq!(Kind::ALL, *Kind::value_variants());
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            let named = kind.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(named.as_deref(), Some(kind.slug()));
            for other in Kind::ALL.into_iter().take(index) {
                assert!(kind.title() != other.title() && kind.slug() != other.slug());
            }
        }
    }

    #[test]
    fn a_plain_target_is_called_with_a_call_of_291_bytes() {
        assert_eq!(Target::plain(1).call.message_len(), CALL_BYTES);
    }
}
