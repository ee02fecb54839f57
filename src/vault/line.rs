//! The header line that carries a credential to an upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::settings::CredentialAs;
use crate::state::upstream_credential::CredentialLine;

/// Why a credential cannot be carried so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has a blank or a character outside of ASCII.
    #[error("it has a character that such a header cannot have")]
    Character,
    /// Basic authentication (RFC 7617) needs `USER:PASSWORD`.
    #[error("it is not USER:PASSWORD")]
    NoColon,
}

/// The line, its line end included.
///
/// # Errors
/// [`Unfit`].
pub fn line(how: &CredentialAs, value: &str) -> Result<CredentialLine, Unfit> {
    let visible = value.bytes().all(|byte| byte.is_ascii_graphic());
    // As long as it can get, so that it never grows: what grows leaves a copy behind.
    let mut line = Zeroizing::new(Vec::with_capacity(value.len().saturating_mul(2).saturating_add(512)));
    match how {
        CredentialAs::Bearer if visible => {
            line.extend_from_slice(b"Authorization: Bearer ");
            line.extend_from_slice(value.as_bytes());
        }
        CredentialAs::Basic if value.contains(':') => {
            line.extend_from_slice(b"Authorization: Basic ");
            line.extend_from_slice(Zeroizing::new(STANDARD.encode(value)).as_bytes());
        }
        CredentialAs::Basic => return Err(Unfit::NoColon),
        CredentialAs::Header(name) if value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b": ");
            line.extend_from_slice(value.as_bytes());
        }
        CredentialAs::Bearer | CredentialAs::Header(_) => return Err(Unfit::Character),
    }
    line.extend_from_slice(b"\r\n");
    Ok(line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let header = || CredentialAs::Header("X-Api-Key".into());
        for (how, value, expected) in [
            (CredentialAs::Bearer, "tok", Ok("Authorization: Bearer tok\r\n")),
            (CredentialAs::Basic, "AC1:secret", Ok("Authorization: Basic QUMxOnNlY3JldA==\r\n")),
            (CredentialAs::Basic, "é:ü", Ok("Authorization: Basic w6k6w7w=\r\n")),
            (header(), "a b", Ok("X-Api-Key: a b\r\n")),
            (CredentialAs::Bearer, "a b", Err(Unfit::Character)),
            (CredentialAs::Bearer, "a\r\nB: c", Err(Unfit::Character)),
            (header(), "a\r\nB: c", Err(Unfit::Character)),
            (header(), "é", Err(Unfit::Character)),
            (CredentialAs::Basic, "nobody", Err(Unfit::NoColon)),
        ] {
            let made = line(&how, value);
            let made = made.as_ref().map(|line| std::str::from_utf8(line).unwrap()).map_err(|unfit| *unfit);
            assert_eq!(made, expected, "{value:?}");
        }
    }

    #[test]
    fn a_line_never_grows_while_it_is_made() {
        let longest = "a:".repeat(crate::vault::MAX_VALUE_BYTES / 2);
        for how in [CredentialAs::Bearer, CredentialAs::Basic, CredentialAs::Header("X".repeat(256))] {
            let made = line(&how, &longest).unwrap();
            assert_eq!(made.capacity(), longest.len() * 2 + 512);
        }
    }
}
