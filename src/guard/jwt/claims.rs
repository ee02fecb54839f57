//! The claims of a token, read strictly.
//!
//! Only claims that something is decided by are read. Each of them may stand there once, and must have its type; the rest is passed over.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::{LEEWAY_S, Refusal};

/// 9999-12-31T23:59:59Z: no date beyond it is written in earnest, and sums with it do not overflow.
const LAST_DATE_S: u64 = 253_402_300_799;

/// The most members of an `aud` array that are looked at.
const MAX_AUDIENCES: usize = 64;

/// What is read of a token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims<'t> {
    pub(super) iss: Option<Cow<'t, str>>,
    pub(super) aud: Option<Audience<'t>>,
    /// `sub`, or whichever claim was asked for.
    pub(super) agent: Option<Cow<'t, str>>,
    pub(super) sid: Option<Cow<'t, str>>,
    pub(super) exp: Option<Date>,
    pub(super) nbf: Option<Date>,
    pub(super) iat: Option<Date>,
}

/// `aud`: a string or an array of strings (RFC 7519 §4.1.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Audience<'t>(Vec<Cow<'t, str>>);

impl Audience<'_> {
    pub(super) fn names(&self, audience: &str) -> bool {
        self.0.iter().any(|one| one == audience)
    }
}

/// A NumericDate (RFC 7519 §2): seconds since the epoch, a fraction cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date(pub(super) u64);

impl<'t> Claims<'t> {
    /// Reads the decoded claims. `agent_claim` is the claim that names the agent.
    pub(super) fn read(json: &'t [u8], agent_claim: &str) -> Result<Self, Refusal> {
        // The parser does not look at the bytes of what is passed over.
        let json = std::str::from_utf8(json).map_err(|_| Refusal::Claims)?;
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let claims = Wanted { agent_claim }.deserialize(&mut deserializer).map_err(|_| Refusal::Claims)?;
        deserializer.end().map_err(|_| Refusal::Claims)?;
        Ok(claims)
    }

    /// Whose token it is, for whom, and that its time is now. Returns `exp` in milliseconds, `leeway_s` included.
    pub(super) fn check(&self, issuer: &str, audience: &str, now_ms: u64, leeway_s: u64) -> Result<u64, Refusal> {
        if self.iss.as_deref() != Some(issuer) {
            return Err(Refusal::Issuer);
        }
        if !self.aud.as_ref().is_some_and(|aud| aud.names(audience)) {
            return Err(Refusal::Audience);
        }
        let Date(exp) = self.exp.ok_or(Refusal::Claims)?;
        let until_ms = (exp + leeway_s) * 1000;
        // "On or after" `exp` a token is not accepted (RFC 7519 §4.1.4).
        if now_ms >= until_ms {
            return Err(Refusal::Expired);
        }
        let begins = [self.nbf, self.iat].into_iter().flatten().max();
        match begins {
            Some(Date(begin)) if begin > now_ms / 1000 + LEEWAY_S => Err(Refusal::Early),
            _ => Ok(until_ms),
        }
    }
}

/// Reads an object whose member `agent_claim` names the agent.
struct Wanted<'c> {
    agent_claim: &'c str,
}

impl<'t> DeserializeSeed<'t> for Wanted<'_> {
    type Value = Claims<'t>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'t> Visitor<'t> for Wanted<'_> {
    type Value = Claims<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut claims = Claims::default();
        while let Some(Text(name)) = map.next_key::<Text<'t>>()? {
            if name == self.agent_claim {
                once(&mut claims.agent, map.next_value::<Text<'t>>()?.0)?;
                continue;
            }
            match name.as_ref() {
                "iss" => once(&mut claims.iss, map.next_value::<Text<'t>>()?.0)?,
                "sid" => once(&mut claims.sid, map.next_value::<Text<'t>>()?.0)?,
                "aud" => once(&mut claims.aud, map.next_value()?)?,
                "exp" => once(&mut claims.exp, map.next_value()?)?,
                "nbf" => once(&mut claims.nbf, map.next_value()?)?,
                "iat" => once(&mut claims.iat, map.next_value()?)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(claims)
    }
}

fn once<T, E: Error>(place: &mut Option<T>, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("a claim is named twice")),
    }
}

/// A string, borrowed where nothing in it is escaped.
struct Text<'t>(Cow<'t, str>);

impl<'t> Deserialize<'t> for Text<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'t> Visitor<'t> for Of {
            type Value = Text<'t>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'t str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Of)
    }
}

impl<'t> Deserialize<'t> for Audience<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'t> Visitor<'t> for Of {
            type Value = Audience<'t>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'t str) -> Result<Self::Value, E> {
                Ok(Audience(vec![Cow::Borrowed(text)]))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Audience(vec![Cow::Owned(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'t>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(Text(one)) = seq.next_element::<Text<'t>>()? {
                    if all.len() == MAX_AUDIENCES {
                        return Err(A::Error::custom("too many audiences"));
                    }
                    all.push(one);
                }
                Ok(Audience(all))
            }
        }
        deserializer.deserialize_any(Of)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl Visitor<'_> for Of {
            type Value = Date;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970, up to the year 9999")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Date, E> {
                if seconds <= LAST_DATE_S { Ok(Date(seconds)) } else { Err(E::custom("a date out of range")) }
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Date, E> {
                // What is not a number is in no range.
                if !(0.0..=253_402_300_799.0).contains(&seconds) {
                    return Err(E::custom("a date out of range"));
                }
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range above")]
                let whole = seconds as u64;
                Ok(Date(whole))
            }
        }
        deserializer.deserialize_any(Of)
    }
}

/// The header of a token (RFC 7515 §4.1), as far as something is decided by it.
#[derive(Deserialize)]
pub(super) struct Header<'t> {
    #[serde(borrow)]
    pub(super) alg: Cow<'t, str>,
    #[serde(borrow, default)]
    pub(super) kid: Option<Cow<'t, str>>,
    #[serde(borrow, default)]
    pub(super) typ: Option<Cow<'t, str>>,
    #[serde(default)]
    pub(super) crit: Presence,
    #[serde(default)]
    pub(super) b64: Presence,
}

/// Whether a member is there, whatever it holds.
#[derive(Default, PartialEq, Eq)]
pub(super) enum Presence {
    #[default]
    Absent,
    There,
}

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self::There)
    }
}

impl<'t> Header<'t> {
    /// Reads the decoded header of a token that nothing is known of yet.
    pub(super) fn read(json: &'t [u8]) -> Result<Self, Refusal> {
        let json = std::str::from_utf8(json).map_err(|_| Refusal::Shape)?;
        let header: Self = serde_json::from_str(json).map_err(|_| Refusal::Shape)?;
        // An extension that must be understood (RFC 7515 §4.1.11); a payload that is no base64url (RFC 7797).
        if header.crit == Presence::There || header.b64 == Presence::There {
            return Err(Refusal::Type);
        }
        let fits = |typ: &str| {
            let short = typ.get(..12).filter(|prefix| prefix.eq_ignore_ascii_case("application/"));
            let name = short.and_then(|_| typ.get(12..)).unwrap_or(typ);
            name.eq_ignore_ascii_case("JWT") || name.eq_ignore_ascii_case("at+jwt")
        };
        if header.typ.as_deref().is_some_and(|typ| !fits(typ)) {
            return Err(Refusal::Type);
        }
        Ok(header)
    }
}
