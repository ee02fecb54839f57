//! What operators were told of tokens, and what the gateway may know of them after a kill.
//!
//! What was answered must be so. What was asked for and not answered may have happened or not; which of the two it is, the first look after the kill says, and
//! from then on it must stay so.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::super::faults::rng::Rng;
use super::super::faults::trail::Change;

/// Names of checks, as violations carry them.
pub(super) const KEPT: &str = "every acknowledged token is there";
pub(super) const ENDED: &str = "every acknowledged revocation holds";
pub(super) const NOWHERE: &str = "no token from nowhere";

/// A token as operators know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Unknown where the answer that had it never came.
    pub(super) secret: Option<String>,
    pub(super) label: String,
    pub(super) is_valid: bool,
    pub(super) replaced_by: Option<String>,
    /// What was asked for and not answered yet.
    asked: Option<Asked>,
    /// The life in which it was last changed.
    pub(super) touched: u64,
}

/// A change of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Revocation,
    /// With a grace the old token stays valid.
    Rotation {
        grace: bool,
    },
}

/// A token as the gateway lists it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) id: String,
    label: String,
    state: String,
    replaced_by: Option<String>,
}

impl Listed {
    fn is_valid(&self) -> bool {
        self.state == "valid"
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    tokens: BTreeMap<String, Held>,
    /// Tokens that were asked for and not answered, by their label.
    wanted: HashMap<String, usize>,
    /// What was acknowledged in this life, as the trail calls it.
    changes: Vec<(Change, String)>,
    pub(super) life: u64,
    next: u64,
    /// Of all lives: acknowledged changes, and those that were asked for and not answered.
    pub(super) acknowledged: u64,
    pub(super) unanswered: u64,
}

impl Book {
    /// A label that no other token has.
    pub(super) fn label(&mut self) -> String {
        self.next += 1;
        format!("op-{}", self.next)
    }

    /// A token will be asked for.
    pub(super) fn ask(&mut self, label: &str) {
        *self.wanted.entry(label.to_owned()).or_default() += 1;
    }

    /// A token was issued, and its secret told.
    pub(super) fn issued(&mut self, id: String, secret: String, label: String) {
        self.got(&label);
        self.change(Change::Issued, &id);
        let touched = self.life;
        self.tokens.insert(id, Held { secret: Some(secret), label, is_valid: true, touched, ..Held::default() });
    }

    /// A change of a token will be asked for: one that is valid, whose secret is known and of which nothing else is asked.
    pub(super) fn pick(&mut self, rng: &mut Rng, asked: Asked) -> Option<String> {
        let is_rotation = asked != Asked::Revocation;
        let fits = |held: &Held| {
            held.is_valid
                && held.asked.is_none()
                && held.secret.is_some()
                && !(is_rotation && held.replaced_by.is_some())
        };
        let fitting: Vec<&String> = self.tokens.iter().filter(|(_, held)| fits(held)).map(|(id, _)| id).collect();
        let id = (*fitting.get(usize::try_from(rng.below(fitting.len() as u64)).ok()?)?).clone();
        let life = self.life;
        let held = self.tokens.get_mut(&id)?;
        (held.asked, held.touched) = (Some(asked), life);
        if is_rotation {
            let label = held.label.clone();
            self.ask(&label);
        }
        Some(id)
    }

    /// A revocation was confirmed.
    pub(super) fn revoked(&mut self, id: &str) {
        self.change(Change::Revoked, id);
        if let Some(held) = self.tokens.get_mut(id) {
            (held.asked, held.is_valid) = (None, false);
        }
    }

    /// A rotation was answered.
    pub(super) fn rotated(&mut self, id: &str, grace: bool, new: String, secret: String) {
        let Some(held) = self.tokens.get_mut(id) else { return };
        (held.asked, held.is_valid, held.replaced_by) = (None, grace, Some(new.clone()));
        let label = held.label.clone();
        self.issued(new, secret, label);
    }

    fn got(&mut self, label: &str) {
        if let Some(count) = self.wanted.get_mut(label) {
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(label);
            }
        }
    }

    fn change(&mut self, change: Change, id: &str) {
        self.acknowledged += 1;
        self.changes.push((change, id.to_owned()));
    }

    /// What was acknowledged since this was last asked.
    pub(super) fn take_changes(&mut self) -> Vec<(Change, String)> {
        std::mem::take(&mut self.changes)
    }

    /// Holds the gateway's list against the book after a start. Returns what is wrong: the check, and a sentence.
    pub(super) fn compare(&mut self, listed: Vec<Listed>) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let mut listed: BTreeMap<String, Listed> = listed.into_iter().map(|one| (one.id.clone(), one)).collect();
        for (id, held) in &mut self.tokens {
            let Some(now) = listed.remove(id) else {
                wrong.push((if held.is_valid { KEPT } else { ENDED }, format!("token {id} is not there")));
                continue;
            };
            match held.asked.take() {
                Some(Asked::Revocation) => {
                    self.unanswered += 1;
                    held.is_valid = now.is_valid();
                }
                Some(Asked::Rotation { grace }) => {
                    self.unanswered += 1;
                    if now.replaced_by.is_some() {
                        held.replaced_by.clone_from(&now.replaced_by);
                        held.is_valid = grace;
                    }
                }
                None => {}
            }
            if now.is_valid() != held.is_valid {
                let check = if held.is_valid { KEPT } else { ENDED };
                wrong.push((check, format!("token {id} is {}", now.state)));
            }
            if now.replaced_by != held.replaced_by {
                let (is, was) = (&now.replaced_by, &held.replaced_by);
                wrong.push((KEPT, format!("token {id} is said to be replaced by {is:?}, and was by {was:?}")));
            }
        }
        for (id, now) in listed {
            if !self.wanted.contains_key(&now.label) {
                wrong.push((NOWHERE, format!("nobody has asked for token {id}, {}", now.label)));
            }
            self.got(&now.label);
            let (is_valid, replaced_by) = (now.is_valid(), now.replaced_by);
            let held = Held { label: now.label, is_valid, replaced_by, touched: self.life, ..Held::default() };
            self.tokens.insert(id, held);
        }
        // What has not happened by now will not.
        self.unanswered += self.wanted.drain().map(|(_, count)| count as u64).sum::<u64>();
        wrong
    }

    /// Tokens to be shown to the gateway, and whether it is to take them: those that were changed of late, and some of the others; or all.
    pub(super) fn to_show(&self, rng: &mut Rng, all: bool) -> Vec<(String, String, bool)> {
        let others = self.tokens.len() as u64 / 32 + 1;
        let is_wanted = |held: &Held, rng: &mut Rng| all || held.touched + 2 >= self.life || rng.below(others) == 0;
        let known = self.tokens.iter().filter(|(_, held)| is_wanted(held, rng));
        known.filter_map(|(id, held)| Some((id.clone(), held.secret.clone()?, held.is_valid))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, label: &str, state: &str, replaced_by: Option<&str>) -> Listed {
        let (id, label, state) = (id.to_owned(), label.to_owned(), state.to_owned());
        Listed { id, label, state, replaced_by: replaced_by.map(str::to_owned) }
    }

    /// A book with a valid token `a`, a revoked one `b`, and `c` rotated to `d`, whose operator was told all of it.
    fn book() -> Book {
        let mut book = Book::default();
        for id in ["a", "b", "c"] {
            book.ask(id);
            book.issued(id.to_owned(), "secret".to_owned(), id.to_owned());
        }
        book.revoked("b");
        book.ask("c");
        book.rotated("c", true, "d".to_owned(), "secret".to_owned());
        book
    }

    fn known() -> Vec<Listed> {
        vec![
            listed("a", "a", "valid", None),
            listed("b", "b", "revoked", None),
            listed("c", "c", "valid", Some("d")),
            listed("d", "c", "valid", None),
        ]
    }

    fn wrong(book: &mut Book, listed: Vec<Listed>) -> Vec<&'static str> {
        book.compare(listed).into_iter().map(|(check, _)| check).collect()
    }

    #[test]
    fn what_was_told_must_be_so() {
        assert_eq!(wrong(&mut book(), known()), Vec::<&str>::new());
        type Harm = fn(&mut Vec<Listed>);
        let harms: [(&[&str], Harm); 7] = [
            (&[KEPT], |list| _ = list.remove(0)),
            (&[ENDED], |list| _ = list.remove(1)),
            (&[KEPT], |list| list.iter_mut().take(1).for_each(|one| one.state = "revoked".to_owned())),
            (&[ENDED], |list| list.iter_mut().skip(1).take(1).for_each(|one| one.state = "valid".to_owned())),
            (&[KEPT], |list| list.iter_mut().for_each(|one| one.replaced_by = None)),
            (&[NOWHERE], |list| list.push(listed("e", "e", "valid", None))),
            // A second token for one request.
            (&[NOWHERE], |list| list.push(listed("e", "a", "valid", None))),
        ];
        for (at, (expected, harm)) in harms.into_iter().enumerate() {
            let mut list = known();
            harm(&mut list);
            assert_eq!(wrong(&mut book(), list), expected, "{at}");
        }
    }

    #[test]
    fn what_was_not_answered_may_be_so_or_not_and_stays_as_it_is() {
        let mut rng = Rng::new(1);
        for happened in [true, false] {
            let mut book = Book::default();
            book.ask("a");
            book.issued("a".to_owned(), "secret".to_owned(), "a".to_owned());
            assert_eq!(book.pick(&mut rng, Asked::Revocation), Some("a".to_owned()));
            assert_eq!(book.pick(&mut rng, Asked::Revocation), None, "one thing at a time");
            book.ask("new");
            let state = if happened { "revoked" } else { "valid" };
            let mut list = vec![listed("a", "a", state, None)];
            list.extend(happened.then(|| listed("b", "new", "valid", None)));
            assert_eq!(wrong(&mut book, list.clone()), Vec::<&str>::new());
            assert_eq!(wrong(&mut book, list), Vec::<&str>::new());
            let other = if happened { "valid" } else { "revoked" };
            let late = vec![listed("a", "a", other, None), listed("b", "new", "valid", None)];
            let expected: &[&str] = if happened { &[ENDED] } else { &[KEPT, NOWHERE] };
            assert_eq!(wrong(&mut book, late), expected);
        }
    }
}
