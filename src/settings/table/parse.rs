//! How values are read. Blanks around a value are not part of it. An error says what is wrong and never repeats the
//! value, because the value may be a secret that went into the wrong variable.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Kind;
use crate::settings::tree::{DenialStyle, IoDriver, LogFormat, LogLevel, Origins, Profile, SanitizeMode, TlsVersion};
use crate::settings::url;

/// The cipher suites that the TLS library has, by their IANA names; those of TLS 1.3 first.
pub(crate) const CIPHER_SUITES: &[&str] = &[
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// The most entries that a list may have: a list is looked through for every connection.
const LIST_MAX: usize = 4096;

pub(super) fn flag(_: &Kind, text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// A whole number in plain digits; the bounds are the row's.
fn bounded(kind: &Kind, text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (Kind::Whole { min, max, .. } | Kind::WholeOrAuto { min, max }) = *kind else {
        return Err("is not read as a number".into());
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not a whole number".into());
    }
    match text.parse::<u64>() {
        Ok(number) if number < min => Err("is too small".into()),
        Ok(number) if number <= max => Ok(number),
        _ => Err("is too large".into()),
    }
}

pub(super) fn whole<T: TryFrom<u64>>(kind: &Kind, text: &str) -> Result<T, String> {
    T::try_from(bounded(kind, text)?).map_err(|_| "is too large".into())
}

pub(super) fn whole_or_auto<T: TryFrom<u64>>(kind: &Kind, text: &str) -> Result<Option<T>, String> {
    if text.trim().eq_ignore_ascii_case("auto") { Ok(None) } else { whole(kind, text).map(Some) }
}

pub(super) fn millis(kind: &Kind, text: &str) -> Result<Duration, String> {
    bounded(kind, text).map(Duration::from_millis)
}

pub(super) fn seconds(kind: &Kind, text: &str) -> Result<Duration, String> {
    bounded(kind, text).map(Duration::from_secs)
}

pub(super) fn usd(_: &Kind, text: &str) -> Result<u64, String> {
    microusd(text)
}

/// Micro-dollars of a decimal number of dollars. No floats: every amount is exact.
pub(crate) fn microusd(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (dollars, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(dollars) || !digits(fraction) {
        return Err("is not an amount of dollars".into());
    }
    if fraction.len() > 6 {
        return Err("has more than six decimals".into());
    }
    let dollars = dollars.parse::<u64>().ok().filter(|dollars| *dollars <= 1_000_000_000);
    match (dollars, format!("{fraction:0<6}").parse::<u64>()) {
        (Some(dollars), Ok(micros)) if dollars < 1_000_000_000 || micros == 0 => Ok(dollars * 1_000_000 + micros),
        _ => Err("is too large".into()),
    }
}

/// The word's place in the row's list, and what stands at that place in `meanings`.
fn word<T: Copy>(text: &str, meanings: &[(&str, T)]) -> Result<T, String> {
    let text = text.trim();
    meanings
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text))
        .map(|(_, meaning)| *meaning)
        .ok_or_else(|| "is none of the words that are allowed".into())
}

pub(super) fn profile(_: &Kind, text: &str) -> Result<Profile, String> {
    word(text, &[("development", Profile::Development), ("production", Profile::Production)])
}

pub(super) fn denial_style(_: &Kind, text: &str) -> Result<DenialStyle, String> {
    word(text, &[("tool-result", DenialStyle::ToolResult), ("jsonrpc-error", DenialStyle::JsonRpcError)])
}

pub(super) fn sanitize_mode(_: &Kind, text: &str) -> Result<SanitizeMode, String> {
    word(text, &[("block", SanitizeMode::Block), ("monitor", SanitizeMode::Monitor), ("off", SanitizeMode::Off)])
}

pub(super) fn tls_version(_: &Kind, text: &str) -> Result<TlsVersion, String> {
    word(text, &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)])
}

/// `MCP_LOG_FORMAT`.
pub(super) fn log_format(_: &Kind, text: &str) -> Result<LogFormat, String> {
    word(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

/// `IO_DRIVER`.
pub(super) fn io_driver(_: &Kind, text: &str) -> Result<IoDriver, String> {
    word(text, &[("auto", IoDriver::Auto), ("epoll", IoDriver::Epoll)])
}

pub(super) fn log_level(_: &Kind, text: &str) -> Result<LogLevel, String> {
    word(
        text,
        &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
    )
}

/// One of the row's words, as the row spells it.
pub(super) fn one_of(kind: &Kind, text: &str) -> Result<&'static str, String> {
    let Kind::Word(words) = *kind else {
        return Err("is not read as a word".into());
    };
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(text.trim()));
    found.copied().ok_or_else(|| "is none of the words that are allowed".into())
}

pub(super) fn address(_: &Kind, text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| "is not an IP address".into())
}

/// The items of a comma-separated list, each read by `read`; the error counts from 1.
fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    if text.split(',').count() > LIST_MAX {
        return Err(format!("has more than {LIST_MAX} entries"));
    }
    let read_one = |(index, item): (usize, &str)| read(item.trim()).map_err(|why| format!("entry {} {why}", index + 1));
    text.split(',').enumerate().map(read_one).collect()
}

pub(super) fn networks(_: &Kind, text: &str) -> Result<Vec<IpNet>, String> {
    list(text, |item| {
        if let Ok(address) = item.parse::<IpAddr>() {
            // ::ffff:192.0.2.1 is the IPv4 address: connections are compared in that form.
            return Ok(IpNet::from(address.to_canonical()));
        }
        item.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| "is neither an IP address nor a CIDR".into())
    })
}

pub(super) fn hosts(_: &Kind, text: &str) -> Result<Vec<String>, String> {
    list(text, |item| {
        // The scheme is only there to have the authority read.
        match url::http_target(&format!("http://{item}")) {
            Ok(target) if target.path_and_query == "/" && !item.contains(['/', '?']) => {
                let host = item.to_ascii_lowercase();
                Ok(if item.starts_with('[') { host } else { host.trim_end_matches('.').to_owned() })
            }
            _ => Err("is not a host, with or without a port".into()),
        }
    })
}

pub(super) fn origins(_: &Kind, text: &str) -> Result<Origins, String> {
    let mut origins = Origins::default();
    let mut exact = BTreeSet::new();
    for origin in list(text, |item| {
        if item == "*" { Ok("*".to_owned()) } else { url::origin(item).map_err(|why| format!("is no origin: {why}")) }
    })? {
        if origin == "*" {
            origins.any = true;
        } else {
            exact.insert(origin);
        }
    }
    origins.exact = exact;
    Ok(origins)
}

fn is_token(item: &str) -> bool {
    !item.is_empty()
        && item.len() <= 128
        && item.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

pub(super) fn methods(_: &Kind, text: &str) -> Result<Vec<String>, String> {
    list(text, |item| if is_token(item) { Ok(item.to_ascii_uppercase()) } else { Err("is not an HTTP method".into()) })
}

pub(super) fn headers(_: &Kind, text: &str) -> Result<Vec<String>, String> {
    list(text, |item| if is_token(item) { Ok(item.to_owned()) } else { Err("is not a header name".into()) })
}

pub(super) fn cipher_suites(_: &Kind, text: &str) -> Result<Vec<&'static str>, String> {
    list(text, |item| {
        let known = CIPHER_SUITES.iter().find(|suite| suite.eq_ignore_ascii_case(item));
        known.copied().ok_or_else(|| "is not a cipher suite that the TLS library has".into())
    })
}

pub(super) fn file(_: &Kind, text: &str) -> Result<PathBuf, String> {
    match optional_file(&Kind::File, text)? {
        Some(path) => Ok(path),
        None => Err("is empty".into()),
    }
}

pub(super) fn optional_file(_: &Kind, text: &str) -> Result<Option<PathBuf>, String> {
    let text = text.trim();
    if text.contains('\0') {
        return Err("contains a null byte".into());
    }
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

pub(super) fn url_path(_: &Kind, text: &str) -> Result<String, String> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if text.starts_with('/') && plain { Ok(text.to_owned()) } else { Err("is not a path that starts with /".into()) }
}

pub(super) fn ratio(_: &Kind, text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse::<f64>().map_err(|_| "is not a number")?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("is not between 0 and 1".into()) }
}

pub(super) fn optional_url(_: &Kind, text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let target = url::http_target(text).map_err(|why| format!("is not an accepted URL: {why}"))?;
    if target.path_and_query.contains('?') {
        return Err("has a query".into());
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

pub(super) fn optional_name(kind: &Kind, text: &str) -> Result<Option<String>, String> {
    if text.trim().is_empty() { Ok(None) } else { name(kind, text).map(Some) }
}

pub(super) fn name(_: &Kind, text: &str) -> Result<String, String> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    match text.len() {
        0 => Err("is empty".into()),
        1..=256 if plain => Ok(text.to_owned()),
        1..=256 => Err("contains a blank, a quote, a control character or a character outside ASCII".into()),
        _ => Err("is longer than 256 characters".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("10", Some(10_000_000)),
            ("0.0079", Some(7_900)),
            ("12.5", Some(12_500_000)),
            ("0.000001", Some(1)),
            ("1000000000", Some(1_000_000_000_000_000)),
            ("1000000000.000001", None),
            ("0.0000001", None),
            ("-1", None),
            ("1.", None),
            (".5", None),
            ("1e3", None),
            ("", None),
            ("$10", None),
        ] {
            assert_eq!(microusd(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn lists_name_the_entry_at_fault() {
        let error = networks(&Kind::Networks, "10.0.0.0/8, 192.0.2.300").err();
        assert_eq!(error.as_deref(), Some("entry 2 is neither an IP address nor a CIDR"));
        assert_eq!(
            networks(&Kind::Networks, "::ffff:192.0.2.1").map(|nets| nets[0].to_string()),
            Ok("192.0.2.1/32".into())
        );
        assert_eq!(networks(&Kind::Networks, "").map(|nets| nets.len()), Ok(0));
        assert!(networks(&Kind::Networks, "10.0.0.1,").is_err());
    }
}
