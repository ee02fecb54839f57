//! The upgrade from HTTP (RFC 6455 §4): [`server`] answers agents, [`client`] asks upstreams.

pub mod client;
pub mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The only version there is (RFC 6455 §4.1).
const VERSION: &[u8] = b"13";

/// The constant of RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Letters of a base64 of 16 bytes.
const KEY_LETTERS: usize = 24;

/// Letters of a base64 of a SHA-1.
const ACCEPT_LETTERS: usize = 28;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2). SHA-1 proves here that a WebSocket server reads
/// the request, and no secret depends on it.
fn accept_of(key: &[u8]) -> [u8; ACCEPT_LETTERS] {
    let digest: [u8; 20] = Sha1::new().chain_update(key).chain_update(GUID).finalize().into();
    let mut letters = [0; ACCEPT_LETTERS];
    // 20 bytes are 28 letters.
    let _ = STANDARD.encode_slice(digest, &mut letters);
    letters
}

#[cfg(test)]
mod tests {
    /// RFC 6455 §1.3.
    #[test]
    fn example_of_the_standard() {
        assert_eq!(&super::accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
