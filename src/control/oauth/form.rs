//! What a token request says: its parameters, and who its client says it is.
//!
//! Parameters come as a form or as a JSON object of strings. One that stands there twice refuses the request, one without a value counts as
//! absent, one that is not known is passed over (RFC 6749 §3.2). A client says who it is by HTTP Basic or in the body, never by both
//! (§2.3).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::answer::Fault;
use crate::gateway::desk::Media;

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    GrantType,
    ClientId,
    ClientSecret,
    RefreshToken,
    Scope,
    Resource,
    Token,
}

impl Name {
    const ALL: [(Self, &'static str); 7] = [
        (Self::GrantType, "grant_type"),
        (Self::ClientId, "client_id"),
        (Self::ClientSecret, "client_secret"),
        (Self::RefreshToken, "refresh_token"),
        (Self::Scope, "scope"),
        (Self::Resource, "resource"),
        (Self::Token, "token"),
    ];

    fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(name, _)| *name)
    }
}

/// The parameters of a request.
#[derive(Default)]
pub(super) struct Params {
    values: [Option<Zeroizing<String>>; Name::ALL.len()],
}

/// Who a client says it is, and what shows it.
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Zeroizing<String>,
}

impl Params {
    pub(super) fn read(media: Media, body: &[u8]) -> Result<Self, Fault> {
        match media {
            Media::Form => Self::form(body),
            Media::Json => Self::json(body),
        }
    }

    /// A parameter's value, which is not empty.
    pub(super) fn get(&self, name: Name) -> Option<&str> {
        let value = self.values.get(name as usize)?.as_deref()?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// A parameter that must be there.
    pub(super) fn need(&self, name: Name, fault: &'static str) -> Result<&str, Fault> {
        self.get(name).ok_or(Fault::Request(fault))
    }

    fn put(&mut self, name: Name, value: Zeroizing<String>) -> Result<(), Fault> {
        match self.values.get_mut(name as usize).and_then(|place| place.replace(value)) {
            None => Ok(()),
            Some(_) => Err(Fault::Request("A parameter stands there twice")),
        }
    }

    fn form(body: &[u8]) -> Result<Self, Fault> {
        let mut params = Self::default();
        for pair in body.split(|byte| *byte == b'&') {
            let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(at).unwrap_or_default();
            // A name that cannot be read is none of ours.
            let Some(name) = decoded(name).as_deref().and_then(|name| Name::of(name)) else { continue };
            let value = decoded(value.get(1..).unwrap_or_default());
            params.put(name, value.ok_or(Fault::Request("A parameter is not encoded as it must be"))?)?;
        }
        Ok(params)
    }

    fn json(body: &[u8]) -> Result<Self, Fault> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut params = Params::default();
                while let Some(name) = map.next_key::<String>()? {
                    let Some(name) = Name::of(&name) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value = Zeroizing::new(map.next_value::<String>()?);
                    params.put(name, value).map_err(|_| A::Error::custom("twice"))?;
                }
                Ok(params)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let params = deserializer.deserialize_map(Object);
        let whole = params.and_then(|params| deserializer.end().map(|()| params));
        whole.map_err(|_| Fault::Request("The body is not one JSON object of strings, each name once"))
    }

    /// Who the client says it is; `None` where it says nothing of it.
    pub(super) fn client(&self, authorization: Option<&[u8]>) -> Result<Option<Client>, Fault> {
        let (id, secret) = (self.get(Name::ClientId), self.get(Name::ClientSecret));
        let Some(value) = authorization else {
            return match (id, secret) {
                (Some(id), Some(secret)) => {
                    Ok(Some(Client { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) }))
                }
                (None, Some(_)) => Err(Fault::Request("client_secret needs a client_id")),
                (_, None) => Ok(None),
            };
        };
        if secret.is_some() {
            return Err(Fault::Request("Credentials in the header and in the body: one of them is enough"));
        }
        let client = basic(value).ok_or(Fault::Client("The Authorization header is not HTTP Basic"))?;
        if id.is_some_and(|id| id != client.id) {
            return Err(Fault::Request("client_id is not the client of the Authorization header"));
        }
        Ok(Some(client))
    }
}

/// The credentials of HTTP Basic (RFC 7617), each encoded as in a form before (RFC 6749 §2.3.1).
fn basic(value: &[u8]) -> Option<Client> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).ok()?);
    let colon = memchr::memchr(b':', &pair)?;
    let (id, secret) = (decoded(pair.get(..colon)?)?, decoded(pair.get(colon + 1..)?)?);
    (!id.is_empty() && !secret.is_empty()).then(|| Client { id: id.to_string(), secret })
}

/// Decodes `application/x-www-form-urlencoded`; `None` for what is not encoded so, or is not UTF-8.
fn decoded(text: &[u8]) -> Option<Zeroizing<String>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = (digit()?, digit()?);
                high << 4 | low
            }
            byte => *byte,
        });
    }
    // A secret that is not UTF-8 is wiped as well.
    let out = Zeroizing::new(out);
    std::str::from_utf8(&out).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn form(body: &str) -> Result<Params, Fault> {
        Params::read(Media::Form, body.as_bytes())
    }

    fn json(body: &str) -> Result<Params, Fault> {
        Params::read(Media::Json, body.as_bytes())
    }

    #[test]
    fn parameters_come_as_a_form_or_as_json() {
        for params in [
            form("grant_type=client_credentials&client_id=a%3Ab&client_secret=x%2By+z&other=%zz&scope=").unwrap(),
            json(r#"{"grant_type":"client_credentials","client_id":"a:b","client_secret":"x+y z","other":[{}],"scope":""}"#)
                .unwrap(),
        ] {
            assert_eq!(params.get(Name::GrantType), Some("client_credentials"));
            assert_eq!(params.get(Name::ClientId), Some("a:b"));
            assert_eq!(params.get(Name::ClientSecret), Some("x+y z"));
            assert_eq!(params.get(Name::Scope), None, "without a value it is absent");
            assert_eq!(params.get(Name::Token), None);
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for body in [
            "token=a&token=a",
            "token=a&t%6fken=b",
            "token=&token=b",
            "token=%",
            "token=%4",
            "token=%zz",
            "token=%ff",
            "token=%+1",
        ] {
            assert!(form(body).is_err(), "{body}");
        }
        for body in [
            "",
            "[]",
            "null",
            r#""token""#,
            r#"{"token":"a""#,
            r#"{"token":"a"}{"#,
            r#"{"token":"a","token":"a"}"#,
            r#"{"token":"a","t\u006fken":"b"}"#,
            r#"{"token":1}"#,
            r#"{"token":null}"#,
            r#"{"token":["a"]}"#,
            "{\"token\":\"\u{1}\"}",
        ] {
            assert!(json(body).is_err(), "{body}");
        }
        assert!(json(&format!("{{\"token\":{}{}}}", "[".repeat(5000), "]".repeat(5000))).is_err());
    }

    #[test]
    fn a_client_says_who_it_is_in_one_way() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair)).into_bytes();
        let client = |body: &str, header: Option<Vec<u8>>| {
            form(body)
                .unwrap()
                .client(header.as_deref())
                .map(|client| client.map(|one| (one.id, one.secret.to_string())))
        };
        let alpha = || Ok(Some(("alpha".to_owned(), "s:e cret".to_owned())));
        assert_eq!(client("", None), Ok(None));
        assert_eq!(client("client_id=alpha", None), Ok(None));
        assert_eq!(client("client_id=alpha&client_secret=s:e+cret", None), alpha());
        assert_eq!(client("", Some(basic("alpha:s%3Ae+cret"))), alpha());
        assert_eq!(client("client_id=alpha", Some(basic("alpha:s:e%20cret"))), alpha());
        assert_eq!(client("", Some(basic("a%3Ab:x"))), Ok(Some(("a:b".to_owned(), "x".to_owned()))));
        for (body, header) in [
            ("client_secret=x", None),
            ("client_id=alpha&client_secret=x", Some(basic("alpha:x"))),
            ("client_id=beta", Some(basic("alpha:x"))),
            ("", Some(b"Bearer abc".to_vec())),
            ("", Some(b"Basic".to_vec())),
            ("", Some(b"Basic !!".to_vec())),
            ("", Some(basic("alpha"))),
            ("", Some(basic(":x"))),
            ("", Some(basic("alpha:"))),
            ("", Some(basic("alpha:%zz"))),
        ] {
            assert!(client(body, header).is_err(), "{body}");
        }
    }
}
