//! Variables that look like ours and are not: most often a slip that would otherwise leave a default in force.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Warning, clip, nearest};
use super::inputs::Inputs;
use super::table::TABLE;

/// Beginnings that hardly anyone else uses.
const FAMILIES: &[&str] = &[
    "RINGWALL_",
    "MCP_",
    "WS_",
    "TCP_",
    "JWT_",
    "CORS_",
    "HSTS_",
    "TLS_",
    "SSL_",
    "CIRCUITBREAKER_",
    "RATE_LIMIT_",
    "HTTP_RATE_LIMIT_",
    "DEFAULT_MAX_",
    "RETENTION_",
];

/// Variables of other programs that begin like one of ours.
const OTHERS: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Warns of every variable that looks like ours. `referenced` are names that the policy uses.
pub(super) fn look(
    inputs: &Inputs,
    dotenv: &BTreeMap<String, String>,
    referenced: &BTreeSet<String>,
    warnings: &mut Vec<Warning>,
) {
    let in_environment = inputs.environment.iter().filter_map(|(name, _)| name.to_str());
    let names: BTreeSet<&str> = in_environment.chain(dotenv.keys().map(String::as_str)).collect();
    for name in names.into_iter().filter(|name| !referenced.contains(*name)) {
        if let Some(text) = verdict(name) {
            warnings.push(Warning { name: clip(name), text });
        }
    }
}

/// What to say of a variable; `None` for one of ours or of somebody else.
fn verdict(name: &str) -> Option<String> {
    let known = || TABLE.iter().flat_map(|row| std::iter::once(row.spec().name).chain(row.spec().alias));
    // Names are at most as long as a few of ours together; what is longer is not a slip, and not worth the time.
    if name.len() > 128 || known().any(|ours| ours == name) || OTHERS.contains(&name) || is_service_link(name) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let of_family = FAMILIES.iter().any(|family| upper.starts_with(family));
    let slip = known().any(|ours| strsim::osa_distance(ours, &upper) <= 2);
    let part = known().any(|ours| begins(ours, &upper) || begins(&upper, ours));
    if !(of_family || slip || part) {
        return None;
    }
    let suggestion =
        nearest(&upper, known()).or_else(|| known().find(|ours| begins(ours, &upper) || begins(&upper, ours)));
    Some(match suggestion {
        Some(suggestion) => format!("no setting has this name; did you mean {suggestion}?"),
        None => "no setting has this name".into(),
    })
}

/// Whether `long` is `short` and more words. A single word is too little to go by.
fn begins(long: &str, short: &str) -> bool {
    short.contains('_') && long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
}

/// Kubernetes puts such variables into every container for a service that is called, say, ringwall.
fn is_service_link(name: &str) -> bool {
    let mut words = name.rsplit('_');
    let last = words.next().unwrap_or("");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP_ADDR")
        || name.contains("_TCP_PORT") && name.contains("_PORT_")
        || name.contains("_TCP_PROTO")
        || matches!(last, "TCP" | "UDP") && name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_noticed_and_others_left_alone() {
        for (name, wanted) in [
            ("MCP_BRIDGE_PROT", Some("MCP_BRIDGE_PORT")),
            ("MCP_BRIDGEPORT", Some("MCP_BRIDGE_PORT")),
            ("MCP_BRIDGE", Some("MCP_BRIDGE_PORT")),
            ("mcp_bridge_port", Some("MCP_BRIDGE_PORT")),
            ("WS_AUTH_TOKENS", Some("WS_AUTH_TOKEN")),
            ("BIND_ADRESS", Some("BIND_ADDRESS")),
            ("WORKER", Some("WORKERS")),
            ("DATA_DIR_PATH", Some("DATA_DIR")),
            ("MASTER_SECURITY_TOKE", Some("MASTER_SECURITY_TOKEN")),
            ("RINGWALL_COLOUR_OF_THE_SKY", Some("")),
            ("MCP_BRIDGE_PORT", None),
            ("NODE_ENV", None),
            ("PATH", None),
            ("HOME", None),
            ("SESSION_MANAGER", None),
            ("SSL_CERT_FILE", None),
            ("RINGWALL_SERVICE_HOST", None),
            ("RINGWALL_PORT_3002_TCP_ADDR", None),
            ("RINGWALL_PORT_3002_TCP", None),
        ] {
            let said = verdict(name);
            match wanted {
                None => assert_eq!(said, None, "{name}"),
                Some(suggestion) => {
                    assert!(said.as_deref().is_some_and(|text| text.contains(suggestion)), "{name}: {said:?}");
                }
            }
        }
    }
}
