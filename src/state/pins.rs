//! The descriptions of tools that were accepted, and those that were seen last, by their hashes.
//!
//! A model obeys a tool's description, so a description that changes behind its reader's back is an attack, or may be one. The first one that is
//! seen is taken for good (trust on first use), unless the policy says which one is; what differs from it later is *changed* until an operator
//! accepts it, or the server takes it back.
//!
//! Workers see lists and publish what is new in them; the control thread writes it down and raises alerts; operators accept. All of them do that by
//! replacing one immutable book, so looking costs one load and two look-ups, and a change holds everywhere at once.
//!
//! # Bounds
//! [`MAX_TOOLS`] of an upstream, names of at most [`MAX_NAME_BYTES`]. What does not fit is [`Sight::NoRoom`]: nothing can be said of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

/// Tools of one upstream that are known.
pub const MAX_TOOLS: usize = 4096;

/// The longest name of a tool that is known.
pub const MAX_NAME_BYTES: usize = 256;

/// SHA-256 of what a tool says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ToolHash(pub [u8; 32]);

/// What texts of hashes begin with.
const PREFIX: &str = "sha256-";

impl ToolHash {
    /// The hash that is written so: `sha256-` and 64 hexadecimal digits.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for ToolHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ToolHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The description that was accepted.
    pub accepted: ToolHash,
    /// The one that was seen last.
    pub seen: ToolHash,
    /// When `seen` was first seen, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Pin {
    /// Whether what is seen is not what was accepted.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.accepted != self.seen
    }
}

/// A tool that the policy pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its upstream; `None`: any.
    pub upstream: Option<String>,
    /// Its name.
    pub tool: String,
    /// The description that is accepted.
    pub hash: ToolHash,
}

/// What a look at a tool's description has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It is the accepted one, or is so from now on.
    Accepted,
    /// It is another one.
    Changed {
        /// It was not seen before this time.
        new: bool,
    },
    /// It cannot be remembered.
    NoRoom,
}

/// One upstream's tools.
pub type Tools = HashMap<Box<str>, Pin>;

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Book {
    upstreams: HashMap<Box<str>, Arc<Tools>>,
}

impl Book {
    /// What is known of a tool.
    #[must_use]
    pub fn get(&self, upstream: &str, tool: &str) -> Option<Pin> {
        self.upstreams.get(upstream)?.get(tool).copied()
    }

    /// Every tool, with its upstream, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Pin)> {
        self.upstreams
            .iter()
            .flat_map(|(upstream, tools)| tools.iter().map(move |(tool, pin)| (&**upstream, &**tool, pin)))
    }

    fn put(&mut self, upstream: &str, tool: &str, pin: Pin) {
        let tools = self.upstreams.entry(upstream.into()).or_default();
        Arc::make_mut(tools).insert(tool.into(), pin);
    }

    fn has_room(&self, upstream: &str) -> bool {
        self.upstreams.get(upstream).is_none_or(|tools| tools.len() < MAX_TOOLS)
    }
}

/// Why a description was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// No such tool was ever listed.
    Unknown,
    /// It is not the one that was seen last.
    NotSeen,
    /// The policy says which one is accepted.
    Given,
}

/// What all threads share of the pins.
#[derive(Debug, Default)]
pub struct Pins {
    book: ArcSwap<Book>,
    given: Vec<Given>,
    /// Rung when the book has changed.
    changed: Notify,
}

impl Pins {
    /// What was written down, and what the policy pins; of entries that name one tool the first decides.
    #[must_use]
    pub fn new(known: impl IntoIterator<Item = (String, String, Pin)>, given: Vec<Given>) -> Self {
        let mut book = Book::default();
        for (upstream, tool, pin) in known {
            book.put(&upstream, &tool, pin);
        }
        Self { book: ArcSwap::from_pointee(book), given, changed: Notify::new() }
    }

    /// All that is known, as of now; where the policy says what is accepted, that does not stand in it: see [`Pins::find`].
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        self.book.load_full()
    }

    /// Ready when the book has changed since it was waited for last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The description that the policy says is accepted.
    #[must_use]
    pub fn given(&self, upstream: &str, tool: &str) -> Option<ToolHash> {
        let is_it = |given: &&Given| given.tool == tool && given.upstream.as_deref().is_none_or(|one| one == upstream);
        self.given.iter().find(is_it).map(|given| given.hash)
    }

    /// What is known of a tool.
    #[must_use]
    pub fn find(&self, upstream: &str, tool: &str) -> Option<Pin> {
        let pin = self.book.load().get(upstream, tool)?;
        Some(self.effective(upstream, tool, pin))
    }

    /// A pin with the policy's word in it.
    #[must_use]
    pub fn effective(&self, upstream: &str, tool: &str, pin: Pin) -> Pin {
        match self.given(upstream, tool) {
            Some(accepted) => Pin { accepted, ..pin },
            None => pin,
        }
    }

    /// Whether a call of this name meets a tool that is changed. What no list has named is compared in any case of its letters: a server that folds
    /// case would take one for the other.
    #[must_use]
    pub fn is_changed(&self, upstream: &str, tool: &str) -> bool {
        let book = self.book.load();
        let Some(tools) = book.upstreams.get(upstream) else { return false };
        if let Some(pin) = tools.get(tool) {
            return self.effective(upstream, tool, *pin).is_changed();
        }
        let mut all = tools.iter().map(|(name, pin)| (&**name, pin));
        all.any(|(name, pin)| name.eq_ignore_ascii_case(tool) && self.effective(upstream, name, *pin).is_changed())
    }

    /// Takes a list's tools up, and says of each what is to be thought of it.
    pub fn see(&self, upstream: &str, listed: &[(Box<str>, ToolHash)], now_ms: u64) -> Vec<Sight> {
        let book = self.book.load();
        let is_known = |(tool, hash): &(Box<str>, ToolHash)| {
            tool.len() > MAX_NAME_BYTES || book.get(upstream, tool).is_some_and(|pin| pin.seen == *hash)
        };
        let mut sights = Vec::new();
        if listed.iter().all(is_known) {
            self.judge(&mut Book::clone(&book), upstream, listed, now_ms, &mut sights);
            return sights;
        }
        self.book.rcu(|book| {
            let mut next = Book::clone(book);
            sights.clear();
            self.judge(&mut next, upstream, listed, now_ms, &mut sights);
            next
        });
        self.changed.notify_one();
        sights
    }

    /// What the book says of each, and puts in it what is new. Of two of one name the second is judged by the first.
    fn judge(
        &self,
        book: &mut Book,
        upstream: &str,
        listed: &[(Box<str>, ToolHash)],
        now_ms: u64,
        sights: &mut Vec<Sight>,
    ) {
        for (tool, hash) in listed {
            if tool.len() > MAX_NAME_BYTES {
                sights.push(Sight::NoRoom);
                continue;
            }
            let known = book.get(upstream, tool);
            let new = known.is_none_or(|pin| pin.seen != *hash);
            let accepted = known.map_or(*hash, |pin| pin.accepted);
            if new {
                if known.is_none() && !book.has_room(upstream) {
                    sights.push(Sight::NoRoom);
                    continue;
                }
                book.put(upstream, tool, Pin { accepted, seen: *hash, since_ms: now_ms });
            }
            let accepted = self.given(upstream, tool).unwrap_or(accepted);
            sights.push(if accepted == *hash { Sight::Accepted } else { Sight::Changed { new } });
        }
    }

    /// Accepts the description that was seen last.
    ///
    /// # Errors
    /// [`NotAccepted`].
    pub fn accept(&self, upstream: &str, tool: &str, hash: ToolHash) -> Result<Pin, NotAccepted> {
        if self.given(upstream, tool).is_some() {
            return Err(NotAccepted::Given);
        }
        let mut outcome = Err(NotAccepted::Unknown);
        self.book.rcu(|book| {
            let mut next = Book::clone(book);
            outcome = match book.get(upstream, tool) {
                None => Err(NotAccepted::Unknown),
                Some(pin) if pin.seen != hash => Err(NotAccepted::NotSeen),
                Some(pin) => {
                    let pin = Pin { accepted: hash, ..pin };
                    next.put(upstream, tool, pin);
                    Ok(pin)
                }
            };
            next
        });
        self.changed.notify_one();
        outcome
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> ToolHash {
        ToolHash([byte; 32])
    }

    fn see(pins: &Pins, tool: &str, byte: u8) -> Sight {
        pins.see("crm", &[(tool.into(), hash(byte))], 7).remove(0)
    }

    #[test]
    fn the_first_description_is_taken_for_good_and_others_are_changed_until_accepted() {
        let pins = Pins::default();
        assert_eq!(see(&pins, "find", 1), Sight::Accepted);
        assert_eq!(see(&pins, "find", 1), Sight::Accepted);
        assert_eq!(see(&pins, "find", 2), Sight::Changed { new: true });
        assert_eq!(see(&pins, "find", 2), Sight::Changed { new: false });
        assert!(pins.is_changed("crm", "find") && pins.is_changed("crm", "FIND"));
        assert!(!pins.is_changed("crm", "other") && !pins.is_changed("other", "find"));
        // The server takes it back, and does it again.
        assert_eq!(see(&pins, "find", 1), Sight::Accepted);
        assert!(!pins.is_changed("crm", "find"));
        assert_eq!(see(&pins, "find", 2), Sight::Changed { new: true });
        assert_eq!(pins.accept("crm", "find", hash(1)), Err(NotAccepted::NotSeen));
        assert_eq!(pins.accept("crm", "none", hash(2)), Err(NotAccepted::Unknown));
        assert_eq!(pins.accept("crm", "find", hash(2)).map(|pin| pin.is_changed()), Ok(false));
        assert_eq!(see(&pins, "find", 2), Sight::Accepted);
        assert_eq!(see(&pins, "find", 1), Sight::Changed { new: true });
    }

    #[test]
    fn what_the_policy_pins_is_not_learned_and_not_accepted() {
        let given = vec![Given { upstream: Some("crm".into()), tool: "find".into(), hash: hash(9) }];
        let pins = Pins::new([], given);
        assert_eq!(see(&pins, "find", 1), Sight::Changed { new: true });
        assert!(pins.is_changed("crm", "find"));
        assert_eq!(pins.accept("crm", "find", hash(1)), Err(NotAccepted::Given));
        assert_eq!(see(&pins, "find", 9), Sight::Accepted);
        assert_eq!(pins.find("crm", "find").map(|pin| pin.accepted), Some(hash(9)));
        assert_eq!(pins.see("other", &[("find".into(), hash(1))], 1), [Sight::Accepted]);
    }

    #[test]
    fn what_is_known_is_bounded_and_what_was_known_goes_on() {
        let pins = Pins::default();
        let listed: Vec<(Box<str>, ToolHash)> = (0..=MAX_TOOLS).map(|n| (n.to_string().into(), hash(1))).collect();
        let sights = pins.see("crm", &listed, 1);
        assert_eq!(sights.iter().filter(|sight| **sight == Sight::NoRoom).count(), 1);
        assert_eq!(see(&pins, &"x".repeat(MAX_NAME_BYTES + 1), 1), Sight::NoRoom);
        assert_eq!(pins.see("other", &[("0".into(), hash(2))], 1), [Sight::Accepted]);
        let book = pins.book();
        let known = book.iter().map(|(upstream, tool, pin)| (upstream.to_owned(), tool.to_owned(), *pin));
        let again = Pins::new(known, Vec::new());
        assert_eq!(see(&again, "0", 2), Sight::Changed { new: true });
        assert_eq!(again.book().iter().count(), MAX_TOOLS + 1);
    }

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let text = hash(0xa7).to_string();
        assert_eq!(text, format!("sha256-{}", "a7".repeat(32)));
        assert_eq!(ToolHash::of_text(&text), Some(hash(0xa7)));
        for wrong in ["", "sha256-", &"a7".repeat(32), &format!("sha256-{}", "+7".repeat(32)), &format!("{text}0")] {
            assert_eq!(ToolHash::of_text(wrong), None, "{wrong}");
        }
    }
}
