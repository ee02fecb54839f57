//! Private keys, and keys of providers by their published prefixes.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Found, Kind};

/// How far the end of a PEM block is looked for. The longest RSA keys in use, of 16,384 bits, take 13 KB.
const MAX_PEM_BYTES: usize = 16 * 1024;

/// The longest key that is read to its end. JWTs of service accounts are the longest.
const MAX_KEY_BYTES: usize = 4096;

/// Which characters a key has behind its prefix.
#[derive(Clone, Copy)]
enum Alphabet {
    /// `A-Z 0-9`
    UpperAndDigits,
    /// `0-9 a-f`
    Hex,
    /// `A-Z a-z 0-9`
    Alphanumeric,
    /// And `- _`
    Url,
    /// And `- _ .`
    Dotted,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::UpperAndDigits => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
        }
    }
}

/// A provider's keys.
struct Provider {
    of: &'static str,
    prefix: &'static str,
    alphabet: Alphabet,
    /// How many characters follow the prefix.
    least: usize,
    most: usize,
}

const fn provider(of: &'static str, prefix: &'static str, alphabet: Alphabet, least: usize, most: usize) -> Provider {
    Provider { of, prefix, alphabet, least, most }
}

use Alphabet::{Alphanumeric, Dotted, Hex, UpperAndDigits, Url};

/// As the providers document them.
const PROVIDERS: &[Provider] = &[
    provider("AWS", "AKIA", UpperAndDigits, 16, 16),
    provider("AWS", "ASIA", UpperAndDigits, 16, 16),
    provider("GitHub", "ghp_", Alphanumeric, 36, 255),
    provider("GitHub", "gho_", Alphanumeric, 36, 255),
    provider("GitHub", "ghu_", Alphanumeric, 36, 255),
    provider("GitHub", "ghs_", Alphanumeric, 36, 255),
    provider("GitHub", "ghr_", Alphanumeric, 36, 255),
    provider("GitHub", "github_pat_", Url, 60, 255),
    provider("GitLab", "glpat-", Dotted, 20, 255),
    provider("Slack", "xoxb-", Url, 20, 255),
    provider("Slack", "xoxp-", Url, 20, 255),
    provider("Slack", "xoxa-", Url, 20, 255),
    provider("Slack", "xoxr-", Url, 20, 255),
    provider("Slack", "xoxs-", Url, 20, 255),
    provider("Slack", "xapp-", Url, 20, 255),
    provider("Slack", "hooks.slack.com/services/T", Alphabet::Dotted, 8, 255),
    provider("Stripe", "sk_live_", Alphanumeric, 16, 255),
    provider("Stripe", "sk_test_", Alphanumeric, 16, 255),
    provider("Stripe", "rk_live_", Alphanumeric, 16, 255),
    provider("Stripe", "rk_test_", Alphanumeric, 16, 255),
    provider("Stripe", "whsec_", Url, 24, 255),
    provider("Google", "AIza", Url, 35, 35),
    provider("Google", "ya29.", Url, 20, MAX_KEY_BYTES),
    provider("Google", "GOCSPX-", Url, 28, 28),
    provider("Anthropic", "sk-ant-", Url, 32, 255),
    provider("OpenAI", "sk-proj-", Url, 32, 255),
    provider("OpenAI", "sk-svcacct-", Url, 32, 255),
    provider("OpenAI", "sk-", Alphanumeric, 48, 48),
    provider("Twilio", "SK", Hex, 32, 32),
    provider("SendGrid", "SG.", Dotted, 60, 72),
    provider("Mailgun", "key-", Hex, 32, 32),
    provider("Resend", "re_", Url, 30, 64),
    provider("npm", "npm_", Alphanumeric, 36, 36),
    provider("PyPI", "pypi-AgEI", Url, 50, 512),
    provider("Docker", "dckr_pat_", Url, 20, 64),
    provider("Hugging Face", "hf_", Alphanumeric, 34, 40),
    provider("Shopify", "shpat_", Hex, 32, 32),
    provider("Square", "sq0csp-", Url, 43, 43),
    provider("DigitalOcean", "dop_v1_", Hex, 64, 64),
    provider("Telegram", "bot", Alphanumeric, usize::MAX, 0), // see `telegram`
];

/// The beginning of a PEM block; which one is looked at behind it.
const PEM: &str = "-----BEGIN ";

/// Three parts of base64url, of which the first is a JSON object: a JWT (RFC 7519).
const JWT: &str = "eyJ";

static PREFIXES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let prefixes = PROVIDERS.iter().map(|provider| provider.prefix).chain([PEM, JWT]);
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(prefixes).ok()
});

/// Looks at every prefix.
pub(super) fn each(text: &[u8], found: &mut impl FnMut(Found)) {
    let Some(prefixes) = PREFIXES.as_ref() else { return };
    let mut at = 0;
    while let Some(hit) = text.get(at..).and_then(|rest| prefixes.find(rest)) {
        let (start, behind) = (at.saturating_add(hit.start()), at.saturating_add(hit.end()));
        let number = hit.pattern().as_usize();
        let what = match PROVIDERS.get(number) {
            Some(provider) => key(text, provider, start, behind).map(|place| (Kind::ProviderKey, provider.of, place)),
            None if number == PROVIDERS.len() => pem(text, start, behind).map(|place| (Kind::PrivateKey, "", place)),
            None => jwt(text, start, behind).map(|place| (Kind::ProviderKey, "JWT", place)),
        };
        at = match what {
            Some((kind, of, place)) => {
                let end = place.end;
                found(Found { kind, of, place });
                end
            }
            // Another prefix may begin inside of this one.
            None => start.saturating_add(1),
        };
    }
}

/// Whether a letter or digit stands before: then the prefix is the middle of a word. But an escaped line end of JSON is none.
fn begins_word(text: &[u8], start: usize) -> bool {
    let before = |by: usize| start.checked_sub(by).and_then(|at| text.get(at)).copied();
    match before(1) {
        Some(b'n' | b't' | b'r') if before(2) == Some(b'\\') => true,
        Some(byte) => !byte.is_ascii_alphanumeric() && byte != b'_',
        None => true,
    }
}

fn key(text: &[u8], provider: &Provider, start: usize, behind: usize) -> Option<Range<usize>> {
    if !begins_word(text, start) {
        return None;
    }
    let rest = text.get(behind..)?;
    if provider.of == "Telegram" {
        return telegram(rest).map(|len| start..behind.saturating_add(len));
    }
    let longest = provider.most.saturating_add(1);
    let len = rest.iter().take(longest).take_while(|&&byte| provider.alphabet.has(byte)).count();
    // A dot at its end is the sentence's.
    let written = rest.get(..len)?;
    let len = written.iter().rposition(|&byte| byte != b'.').map_or(0, |last| last.saturating_add(1));
    let varied = varies(rest.get(..len)?);
    let exact = provider.least == provider.most && rest.get(len).is_some_and(|byte| byte.is_ascii_alphanumeric());
    (varied && !exact && (provider.least..=provider.most).contains(&len)).then(|| start..behind.saturating_add(len))
}

/// Whether there are a few different characters: `xxxxxxxx` in documentation is no key.
fn varies(bytes: &[u8]) -> bool {
    let mut seen = 0u128;
    for &byte in bytes {
        seen |= 1 << (byte & 0x7F);
    }
    seen.count_ones() >= 8
}

/// `bot` is followed by an id, a colon and 35 characters in the URLs of Telegram's API.
fn telegram(rest: &[u8]) -> Option<usize> {
    let id = rest.iter().take(12).take_while(|byte| byte.is_ascii_digit()).count();
    let secret = rest.get(id.checked_add(1)?..)?;
    let len = secret.iter().take(36).take_while(|&&byte| Url.has(byte)).count();
    (id >= 8 && rest.get(id) == Some(&b':') && len == 35).then(|| id.saturating_add(36))
}

/// A PEM block whose label says that it is a private key (RFC 7468, OpenSSH, PGP).
fn pem(text: &[u8], start: usize, behind: usize) -> Option<Range<usize>> {
    let label = text.get(behind..)?.get(..48.min(text.len().saturating_sub(behind)))?;
    let label = label.get(..memchr::memmem::find(label, b"-----")?)?;
    if !label.ends_with(b"PRIVATE KEY") && !label.ends_with(b"PRIVATE KEY BLOCK") {
        return None;
    }
    let body = text.get(behind..text.len().min(behind.saturating_add(MAX_PEM_BYTES)))?;
    // Without its end it is a key that was cut, or is more than one: as much of it as there can be.
    let end = match memchr::memmem::find(body, b"-----END ") {
        Some(end) => {
            let line = body.get(end.saturating_add(9)..)?;
            let close =
                memchr::memmem::find(line.get(..64.min(line.len()))?, b"-----").map_or(0, |at| at.saturating_add(5));
            end.saturating_add(9).saturating_add(close)
        }
        None => body.iter().position(|&byte| byte == b'"').unwrap_or(body.len()),
    };
    Some(start..behind.saturating_add(end))
}

/// A signed token: header, claims and signature.
fn jwt(text: &[u8], start: usize, behind: usize) -> Option<Range<usize>> {
    if !begins_word(text, start) {
        return None;
    }
    let rest = text.get(behind..)?;
    let mut at = 0usize;
    for (part, least) in [(0, 8), (1, 8), (2, 16)] {
        let len = rest.get(at..)?.iter().take(MAX_KEY_BYTES).take_while(|&&byte| Url.has(byte)).count();
        if len < least || (part == 1 && !rest.get(at..)?.starts_with(b"eyJ")) {
            return None;
        }
        at = at.saturating_add(len);
        if part < 2 {
            if rest.get(at) != Some(&b'.') {
                return None;
            }
            at = at.saturating_add(1);
        }
    }
    Some(start..behind.saturating_add(at))
}
