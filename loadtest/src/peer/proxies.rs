//! The peers that pass on what they get: the relay, HAProxy, nginx, Envoy, Traefik, Caddy, and nginx with ModSecurity.

use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Place, Prepared, Program, Target, find};

pub(super) fn prepare(kind: Kind, place: &Place, port: u16) -> io::Result<Option<Prepared>> {
    let Some((program, version, files)) = (match kind {
        Kind::Relay => Some(relay(place, port)?),
        Kind::Haproxy => haproxy(place),
        Kind::Nginx => nginx(place),
        Kind::Envoy => envoy(place),
        Kind::Traefik => traefik(place),
        Kind::Caddy => caddy(place),
        Kind::Modsecurity => modsecurity(place),
        _ => None,
    }) else {
        return Ok(None);
    };
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let home = place.home(kind, port, &files)?;
    Ok(Some(Prepared { program, home, version, target: Target::plain(port) }))
}

/// The program, its version, and the files that it wants in its directory.
type Found = (Program, String, Vec<(&'static str, String)>);

fn relay(place: &Place, port: u16) -> io::Result<Found> {
    let args = ["relay", "--port", &port.to_string(), "--upstream", &place.upstream.to_string()].map(str::to_owned);
    Ok((Program::new(std::env::current_exe()?, args), env!("CARGO_PKG_VERSION").to_owned(), Vec::new()))
}

fn haproxy(place: &Place) -> Option<Found> {
    let path = place.find("haproxy")?;
    let version = find::version(&path, ["-v"]);
    // -db: in the foreground, as one process.
    let program = Program::new(path, ["-db", "-f", "haproxy.cfg"]);
    Some((program, version, vec![("haproxy.cfg", include_str!("../../peers/haproxy.cfg").to_owned())]))
}

fn nginx(place: &Place) -> Option<Found> {
    let path = place.find("nginx")?;
    let version = find::version(&path, ["-v"]);
    let files = vec![("nginx.conf", include_str!("../../peers/nginx.conf").to_owned())];
    Some((nginx_program(path, place, Kind::Nginx), version, files))
}

fn nginx_program(path: PathBuf, place: &Place, kind: Kind) -> Program {
    let home = place.dir.join(kind.slug()).into_os_string();
    Program::new(path, ["-c".into(), "nginx.conf".into(), "-p".into(), home, "-e".into(), "stderr".into()])
}

fn envoy(place: &Place) -> Option<Found> {
    let path = place.find("envoy")?;
    let version = find::version(&path, ["--version"]);
    let args = ["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
    let program = Program::new(path, args);
    Some((program, version, vec![("envoy.yaml", include_str!("../../peers/envoy.yaml").to_owned())]))
}

fn traefik(place: &Place) -> Option<Found> {
    let path = place.find("traefik")?;
    let version = find::version(&path, ["version"]);
    let program = Program::new(path, ["--configFile=traefik.yaml"]).env("GOMAXPROCS", "1");
    let files = vec![
        ("traefik.yaml", include_str!("../../peers/traefik.yaml").to_owned()),
        ("traefik-routes.yaml", include_str!("../../peers/traefik-routes.yaml").to_owned()),
    ];
    Some((program, version, files))
}

fn caddy(place: &Place) -> Option<Found> {
    let path = place.find("caddy")?;
    let version = find::version(&path, ["version"]);
    let program = Program::new(path, ["run", "--config", "Caddyfile", "--adapter", "caddyfile"]).env("GOMAXPROCS", "1");
    Some((program, version, vec![("Caddyfile", include_str!("../../peers/Caddyfile").to_owned())]))
}

/// The files of nginx's module; where Debian puts them first.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_http_modsecurity_module.so", "/etc/nginx/modules/ngx_http_modsecurity_module.so"];
const MAPS: [&str; 2] = ["/etc/nginx/unicode.mapping", "/etc/nginx/modsecurity/unicode.mapping"];

/// Two of the files that `peers/modsecurity.conf` includes: without them the core rules are not installed.
const CORE_RULES: [&str; 2] =
    ["/etc/modsecurity/crs/crs-setup.conf", "/usr/share/modsecurity-crs/rules/REQUEST-941-APPLICATION-ATTACK-XSS.conf"];

fn modsecurity(place: &Place) -> Option<Found> {
    let path = place.find("nginx")?;
    let module = MODULES.into_iter().find(|path| Path::new(path).is_file())?;
    let map = MAPS.into_iter().find(|path| Path::new(path).is_file())?;
    if !CORE_RULES.iter().all(|path| Path::new(path).is_file()) {
        return None;
    }
    let package = |name| find::version(Path::new("dpkg-query"), ["-W", "-f=${Version}", name]);
    let (engine, rules) = (package("libmodsecurity3"), package("modsecurity-crs"));
    let version = format!("{}, ModSecurity {engine}, core rules {rules} at PL 1", find::version(&path, ["-v"]));
    let files = vec![
        ("nginx.conf", include_str!("../../peers/modsecurity-nginx.conf").replace("@MODULE@", module)),
        ("modsecurity.conf", include_str!("../../peers/modsecurity.conf").replace("@MAP@", map)),
    ];
    // It reads 900 rules at its start.
    Some((nginx_program(path, place, Kind::Modsecurity), version, files))
}
