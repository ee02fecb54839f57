//! Lines out of a child's stdout or a socket, bounded: a line that is too long is discarded without being kept, and its id is still found, so that the
//! one call that it answers fails instead of waiting for ever.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

/// What a piece of output amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line without its line break.
    Whole(&'a [u8]),
    /// A line longer than the bound; `id` is its top-level `id` if that is a whole number.
    TooLong { id: Option<u64> },
}

/// Splits a byte stream into lines of at most `max` bytes.
#[derive(Debug)]
pub(super) struct Lines {
    held: Vec<u8>,
    max: usize,
    over: Option<IdScanner>,
}

/// Memory kept between lines; a longer line's buffer is given back.
const KEEP_BYTES: usize = 64 * 1024;

impl Lines {
    pub(super) fn new(max: usize) -> Self {
        Self { held: Vec::new(), max, over: None }
    }

    /// Takes the next bytes and calls `each` for every line that they end.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(at) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at(at);
            chunk = rest.get(1..).unwrap_or_default();
            self.hold(line);
            if let Some(scanner) = self.over.take() {
                each(Line::TooLong { id: scanner.id() });
            } else {
                each(Line::Whole(self.held.strip_suffix(b"\r").unwrap_or(&self.held)));
            }
            self.held.clear();
            self.held.shrink_to(KEEP_BYTES);
        }
        self.hold(chunk);
    }

    /// Whether nothing of a next line has come.
    pub(super) fn is_between(&self) -> bool {
        self.held.is_empty() && self.over.is_none()
    }

    fn hold(&mut self, piece: &[u8]) {
        if let Some(scanner) = &mut self.over {
            scanner.feed(piece);
        } else if self.held.len().saturating_add(piece.len()) > self.max {
            let mut scanner = IdScanner::default();
            scanner.feed(&self.held);
            scanner.feed(piece);
            self.over = Some(scanner);
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(piece);
        }
    }
}

/// Finds the member `id` of a JSON object that passes by, in constant memory. It does not validate: its answer only decides which call
/// fails, and a child can fail its own calls anyway.
#[derive(Debug, Default)]
struct IdScanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The string or number at depth 1 that is being read, cut at [`WORD_BYTES`].
    word: Vec<u8>,
    /// After `"id":` at depth 1.
    at_value: bool,
    id: Option<u64>,
}

/// Longest key or number worth keeping: a u64 has at most 20 digits.
const WORD_BYTES: usize = 24;

impl IdScanner {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_string && !self.escaped && !self.wants_word() {
                // The bulk of a long message is a long string: on to what can end it.
                let Some(at) = memchr::memchr2(b'"', b'\\', bytes) else {
                    return;
                };
                bytes = bytes.get(at..).unwrap_or_default();
            }
            if let Some((byte, rest)) = bytes.split_first() {
                self.step(*byte);
                bytes = rest;
            }
        }
    }

    fn wants_word(&self) -> bool {
        self.depth == 1 && self.word.len() < WORD_BYTES
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
                return;
            }
            self.keep(byte);
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.word.clear();
            }
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.at_value = false;
                self.word.clear();
            }
            b':' if self.depth == 1 => {
                self.at_value = self.word == b"id";
                self.word.clear();
            }
            b',' | b'}' | b']' => {
                if self.depth == 1 && self.at_value && self.id.is_none() {
                    self.id = std::str::from_utf8(&self.word).ok().and_then(|word| word.parse().ok());
                }
                self.at_value = false;
                self.word.clear();
                if byte != b',' {
                    self.depth = self.depth.saturating_sub(1);
                }
            }
            b'0'..=b'9' if self.at_value => self.keep(byte),
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.wants_word() {
            self.word.push(byte);
        }
    }

    fn id(&self) -> Option<u64> {
        self.id
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(max: usize, chunks: &[&[u8]]) -> Vec<Result<Vec<u8>, Option<u64>>> {
        let mut lines = Lines::new(max);
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| {
                out.push(match line {
                    Line::Whole(line) => Ok(line.to_vec()),
                    Line::TooLong { id } => Err(id),
                });
            });
        }
        out
    }

    #[test]
    fn long_lines_are_discarded_and_their_id_found() {
        let cases: [(&str, &str, Option<u64>); 6] = [
            ("id first", r#"{"jsonrpc":"2.0","id":42,"result":{"id":7,"x":"yyyyyyyyyyyyyyyyy"}}"#, Some(42)),
            ("id last", r#"{"result":{"id":7,"x":["id",{"id":9}]},"jsonrpc":"2.0","id": 42 }"#, Some(42)),
            ("in a string", r#"{"a":"\"id\":5,{[","b":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxx","id":6}"#, Some(6)),
            ("no id", r#"{"jsonrpc":"2.0","method":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, None),
            ("text id", r#"{"id":"abcdefghijklmnopqrstuvwxyz","result":"xxxxxxxxxxxxxxxxxx"}"#, None),
            ("no JSON", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", None),
        ];
        for (name, line, want) in cases {
            for cut in [1, 20, 40, line.len() - 1] {
                let (a, b) = line.as_bytes().split_at(cut);
                assert_eq!(run(30, &[a, b, b"\nok\n"]), [Err(want), Ok(b"ok".to_vec())], "{name} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_lines(text in "[a-c\n\r]{0,80}", cuts in prop::collection::vec(0usize..80, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut at = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                chunks.push(&bytes[at..cut]);
                at = cut;
            }
            let got = run(10, &chunks);
            let mut want: Vec<&str> = text.split('\n').collect();
            want.pop();
            let want: Vec<_> = want
                .into_iter()
                .map(|line| {
                    if line.len() > 10 {
                        Err(None)
                    } else {
                        Ok(line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec())
                    }
                })
                .collect();
            prop_assert_eq!(got, want);
        }
    }
}
