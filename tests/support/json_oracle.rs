//! A slow and simple JSON parser that knows where things stand, and a writer of messages in any style.

use ringwall::rpc::Span;
use serde_json::Value;

/// A value, where it stands, and its members when it is an object.
#[derive(Debug, Clone)]
pub(crate) struct Plain {
    pub(crate) span: Span,
    members: Vec<(String, Plain)>,
}

impl Plain {
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Plain> {
        match path {
            [] => Some(self),
            [key, rest @ ..] => self.members.iter().find(|(k, _)| k == key)?.1.get(rest),
        }
    }
}

/// Slow and simple: one token after another, on JSON that is known to be valid.
pub(crate) struct Oracle<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) at: usize,
}

impl Oracle<'_> {
    fn blanks(&mut self) {
        while b" \t\r\n".contains(self.raw.get(self.at).unwrap_or(&b'x')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while self.raw[self.at] != b'"' {
            self.at += if self.raw[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        serde_json::from_slice(&self.raw[start..self.at]).unwrap()
    }

    pub(crate) fn value(&mut self) -> Plain {
        self.blanks();
        let start = self.at;
        let mut members = Vec::new();
        match self.raw[self.at] {
            b'"' => _ = self.string(),
            open @ (b'{' | b'[') => {
                self.at += 1;
                self.blanks();
                while !b"}]".contains(&self.raw[self.at]) {
                    if open == b'{' {
                        let key = self.string();
                        self.blanks();
                        self.at += 1;
                        let value = self.value();
                        members.push((key, value));
                    } else {
                        self.value();
                    }
                    self.blanks();
                    if self.raw[self.at] == b',' {
                        self.at += 1;
                        self.blanks();
                    }
                }
                self.at += 1;
            }
            _ => {
                while self.at < self.raw.len() && !b",}] \t\r\n".contains(&self.raw[self.at]) {
                    self.at += 1;
                }
            }
        }
        Plain { span: Span::from_usize(start, self.at), members }
    }
}

/// Writes a value with whitespace and escapes drawn from a seed.
pub(crate) struct Renderer {
    pub(crate) out: String,
    pub(crate) seed: u64,
}

impl Renderer {
    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn blanks(&mut self) {
        for _ in 0..self.draw(4).saturating_sub(1) {
            let blank = [' ', '\t', '\r', '\n'][self.draw(4) as usize];
            self.out.push(blank);
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            let must = c < ' ' || c == '"' || c == '\\';
            if must || self.draw(6) == 0 {
                if "\"\\/".contains(c) && self.draw(2) == 0 {
                    self.out.push('\\');
                    self.out.push(c);
                } else {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let upper = self.draw(2) == 0;
                        self.out.push_str(&if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") });
                    }
                }
            } else {
                self.out.push(c);
            }
        }
        self.out.push('"');
    }

    pub(crate) fn value(&mut self, value: &Value) {
        self.blanks();
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push(',');
                    }
                    self.value(item);
                }
                self.blanks();
                self.out.push(']');
            }
            Value::Object(members) => {
                self.out.push('{');
                let mut members: Vec<_> = members.iter().collect();
                for i in (1..members.len()).rev() {
                    let j = self.draw(i as u64 + 1) as usize;
                    members.swap(i, j);
                }
                for (i, (key, item)) in members.into_iter().enumerate() {
                    if i > 0 {
                        self.out.push(',');
                    }
                    self.blanks();
                    self.string(key);
                    self.blanks();
                    self.out.push(':');
                    self.value(item);
                }
                self.blanks();
                self.out.push('}');
            }
            scalar => self.out.push_str(&scalar.to_string()),
        }
        self.blanks();
    }
}
