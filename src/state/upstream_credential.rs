//! The credential that the gateway shows to one upstream: written by the control plane, read by every thread that sends something there.
//!
//! It is kept as the header line that carries it, so that a call costs a copy. A new one is what the next request has, on all threads at once.
//! An upstream that is to have a credential and has none is sent nothing.

use arc_swap::ArcSwapOption;
use zeroize::Zeroizing;

/// A header line with its line end; wiped when nobody reads it any more.
pub type CredentialLine = Zeroizing<Vec<u8>>;

/// There is to be a credential, and there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vault has no credential for it")]
pub struct NoCredential;

/// The place of one upstream's credential.
#[derive(Default)]
pub struct CredentialSlot {
    needed: bool,
    line: ArcSwapOption<CredentialLine>,
}

impl std::fmt::Debug for CredentialSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialSlot").field("needed", &self.needed).finish_non_exhaustive()
    }
}

impl CredentialSlot {
    /// For an upstream that is sent nothing until a credential is there.
    #[must_use]
    pub fn needed() -> Self {
        Self { needed: true, line: ArcSwapOption::empty() }
    }

    /// Publishes a line, or that there is none.
    pub fn publish(&self, line: Option<CredentialLine>) {
        self.line.store(line.map(std::sync::Arc::new));
    }

    /// Appends the line, where there is to be one.
    ///
    /// # Errors
    /// [`NoCredential`]; nothing was appended.
    pub fn append(&self, out: &mut Vec<u8>) -> Result<(), NoCredential> {
        if !self.needed {
            return Ok(());
        }
        let line = self.line.load();
        out.extend_from_slice(line.as_ref().ok_or(NoCredential)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_for_want_of_a_credential_and_a_new_one_at_once() {
        let mut out = b"x".to_vec();
        assert_eq!(CredentialSlot::default().append(&mut out), Ok(()));
        assert_eq!(out, b"x", "who needs none has none");
        let slot = CredentialSlot::needed();
        assert_eq!(slot.append(&mut out), Err(NoCredential));
        assert_eq!(out, b"x");
        for line in ["A: 1\r\n", "A: 2\r\n"] {
            slot.publish(Some(Zeroizing::new(line.as_bytes().to_vec())));
            out.clear();
            assert_eq!(slot.append(&mut out), Ok(()));
            assert_eq!(out, line.as_bytes());
        }
        slot.publish(None);
        assert_eq!(slot.append(&mut out), Err(NoCredential));
    }
}
