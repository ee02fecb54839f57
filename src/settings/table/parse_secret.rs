//! How secret values are read. As in `parse`, an error never repeats the value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Kind;
use crate::settings::secret::Secret;
use crate::settings::url;

pub(super) fn optional_secret_url(_: &Kind, text: &str) -> Result<Option<Secret>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    url::http_target(text).map_err(|why| format!("is not an accepted URL: {why}"))?;
    Ok(Some(Secret::new(text)))
}

pub(super) fn secret(_: &Kind, text: &str) -> Result<Option<Secret>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > 4096 {
        return Err("is longer than 4096 characters".into());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("contains a blank, a control character or a character outside ASCII".into());
    }
    Ok(Some(Secret::new(text)))
}

pub(super) fn key256(_: &Kind, text: &str) -> Result<Option<Secret>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    hex32(text).map(|key| Some(Secret::new(key))).ok_or_else(|| "is not 64 hexadecimal digits".into())
}

/// 32 bytes from 64 hexadecimal digits.
pub(crate) fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

pub(super) fn webhook_keys(_: &Kind, text: &str) -> Result<Vec<Secret>, String> {
    let read = |(index, item): (usize, &str)| {
        let key = item.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
        match key {
            Some(key) if key.len() >= 24 => Ok(Secret::new(key)),
            Some(_) => Err(format!("entry {} is shorter than 24 bytes", index + 1)),
            None => Err(format!("entry {} is not whsec_ and base64", index + 1)),
        }
    };
    text.split_ascii_whitespace().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_hex() {
        assert_eq!(hex32(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(hex32(&"+f".repeat(32)), None);
        assert_eq!(hex32(&"0f".repeat(31)), None);
        assert_eq!(hex32(&"\u{e9}".repeat(32)), None);
    }
}
