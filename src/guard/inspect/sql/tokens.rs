//! SQL, cut into tokens as a database would, from any of the places that a value may be put into: bare, or inside of quotes.
//!
//! The text is in lower case. No dialect is parsed: what differs between them (`#` and `--` comments, `/*!` hints, `q'…'`) is read as the one that
//! would be worst. One pass, no memory.

use super::super::peel::HIDDEN_LF;
use super::super::text::{byte, is_space, is_word, part, run, skip_space};
use super::words;

/// What a token is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Token {
    /// Before the first.
    Start,
    /// The end of a string that the value was put into: what follows is SQL, if it is anything.
    Broken,
    /// A number or constant.
    Number,
    /// A quoted string.
    Text,
    /// A quoted string whose quote does not end: the query's own quote ends it.
    Open,
    /// `@name`, `@@name`, `:name`, `?`.
    Variable,
    /// Any other word.
    Name,
    /// A name of a database's own catalogue.
    Catalogue,
    /// Another name with `(`.
    Call,
    /// A function that an injection composes from, with `(`.
    Function,
    /// A function that only an injection calls from a value, with `(`.
    Grave,
    Logic,
    Not,
    Compare,
    /// A comparison that is a word: `like`, `in`, `is`.
    Like,
    Arithmetic,
    LeftParen,
    RightParen,
    Comma,
    Semicolon,
    /// A comment with nothing but a few signs behind it: it cuts off the rest of a query.
    Cut,
    /// Any other comment to the end of the line.
    Comment,
    /// A word without meaning here: `all`, `distinct`, …
    Filler,
    Union,
    Select,
    From,
    Where,
    Sort,
    By,
    Having,
    Limit,
    Insert,
    Into,
    Values,
    Update,
    Set,
    Delete,
    Define,
    Object,
    Execute,
    Declare,
    Begin,
    Waitfor,
    Delay,
    Shutdown,
    Load,
    File,
    Procedure,
    Collate,
    As,
    Case,
    When,
    Then,
    Else,
    End,
    /// After the last.
    Stop,
}

/// Cuts one text into tokens.
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) const fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The next token and where it begins; [`Token::Stop`] at the end, again and again.
    pub(super) fn next(&mut self) -> (Token, usize) {
        loop {
            self.at = skip_space(self.text, self.at);
            let start = self.at;
            let first = byte(self.text, start);
            if start >= self.text.len() {
                return (Token::Stop, start);
            }
            let second = byte(self.text, start.saturating_add(1));
            let (token, len) = match (first, second) {
                (b'/', b'*') => match self.block_comment(start) {
                    Some(token) => return (token, start),
                    None => continue,
                },
                (b'*', b'/') => {
                    self.at = start.saturating_add(2);
                    continue;
                }
                (b'-', b'-') => match self.line_comment(start, 2) {
                    Some(token) => return (token, start),
                    None => continue,
                },
                (b'#', _) => match self.line_comment(start, 1) {
                    Some(token) => return (token, start),
                    None => continue,
                },
                (b'\'' | b'"', _) => return (self.quoted(start, first), start),
                (b'`', _) => return (self.name_in_backticks(start), start),
                (b'0'..=b'9', _) => return (self.number(start), start),
                (b'.', b'0'..=b'9') => return (self.number(start), start),
                (b'|', b'|') | (b'&', b'&') => (Token::Logic, 2),
                (b'<', b'=') if byte(self.text, start.saturating_add(2)) == b'>' => (Token::Compare, 3),
                (b'!' | b'<' | b'>' | b'=', b'=') | (b'<', b'>') | (b'<', b'@') | (b'@', b'>') => (Token::Compare, 2),
                (b':', b'=') => (Token::Compare, 2),
                (b':', b':') => {
                    // A cast to a type.
                    self.at = run(self.text, start.saturating_add(2), is_word);
                    continue;
                }
                (b'@', _) => return (self.variable(start), start),
                (b'=' | b'<' | b'>', _) => (Token::Compare, 1),
                (b'!' | b'~', _) => (Token::Not, 1),
                (b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'|' | b'&', _) => (Token::Arithmetic, 1),
                (b'(', _) => (Token::LeftParen, 1),
                (b')', _) => (Token::RightParen, 1),
                (b',', _) => (Token::Comma, 1),
                (b';', _) => (Token::Semicolon, 1),
                (b'?', _) => (Token::Variable, 1),
                (b'[', _) => return (self.bracketed(start), start),
                (b'\\', b'\'' | b'"') => {
                    self.at = start.saturating_add(2);
                    continue;
                }
                _ if is_word(first) => return (self.word(start), start),
                _ => (Token::Filler, 1),
            };
            self.at = start.saturating_add(len);
            return (token, start);
        }
    }

    /// `/* … */` is a space, `/*! … */` is its content, and one that does not end cuts off what follows.
    fn block_comment(&mut self, start: usize) -> Option<Token> {
        if byte(self.text, start.saturating_add(2)) == b'!' {
            self.at = run(self.text, start.saturating_add(3), |next| next.is_ascii_digit());
            return None;
        }
        if let Some(end) = super::super::text::find(self.text, start.saturating_add(2), b"*/") {
            self.at = end.saturating_add(2);
            return None;
        }
        let tail = self.text.len().saturating_sub(start.saturating_add(2));
        self.at = self.text.len();
        Some(if tail <= 4 { Token::Cut } else { Token::Comment })
    }

    /// To the end of the line; nothing if more follows behind it.
    fn line_comment(&mut self, start: usize, len: usize) -> Option<Token> {
        let inside = start.saturating_add(len);
        let end = run(self.text, inside, |next| next != b'\n' && next != HIDDEN_LF);
        let content = part(self.text, inside, end);
        let is_short = content.len() <= 5 && !content.iter().any(u8::is_ascii_alphabetic);
        self.at = end;
        if skip_space(self.text, end) < self.text.len() {
            return None;
        }
        Some(if is_short { Token::Cut } else { Token::Comment })
    }

    fn quoted(&mut self, start: usize, quote: u8) -> Token {
        let mut at = start.saturating_add(1);
        loop {
            let Some(found) = memchr::memchr2(quote, b'\\', super::super::text::rest(self.text, at)) else {
                self.at = self.text.len();
                return Token::Open;
            };
            let here = at.saturating_add(found);
            let is_doubled = byte(self.text, here) == quote && byte(self.text, here.saturating_add(1)) == quote;
            if byte(self.text, here) == b'\\' || is_doubled {
                at = here.saturating_add(2);
                continue;
            }
            self.at = here.saturating_add(1);
            return Token::Text;
        }
    }

    fn name_in_backticks(&mut self, start: usize) -> Token {
        let inside = start.saturating_add(1);
        let end = run(self.text, inside, |next| next != b'`' && next != b'\n');
        self.at = end.saturating_add(1);
        if part(self.text, inside, end).starts_with(b"information_schema") { Token::Catalogue } else { Token::Name }
    }

    /// `[name]` of SQL Server, or a placeholder; anything longer is not one.
    fn bracketed(&mut self, start: usize) -> Token {
        let inside = start.saturating_add(1);
        let end = run(self.text, inside, is_word);
        if byte(self.text, end) == b']' && end > inside {
            self.at = end.saturating_add(1);
            return Token::Name;
        }
        self.at = inside;
        Token::Filler
    }

    fn number(&mut self, start: usize) -> Token {
        let mut end = run(self.text, start, |next| next.is_ascii_digit() || next == b'.');
        if end == start.saturating_add(1) && matches!(byte(self.text, end), b'x' | b'b') {
            let digits = run(self.text, end.saturating_add(1), |next| next.is_ascii_hexdigit());
            if digits > end.saturating_add(1) {
                self.at = digits;
                return Token::Number;
            }
        }
        if byte(self.text, end) == b'e' {
            let sign = end.saturating_add(1);
            let digits = if matches!(byte(self.text, sign), b'+' | b'-') { sign.saturating_add(1) } else { sign };
            let exponent = run(self.text, digits, |next| next.is_ascii_digit());
            if exponent > digits || !is_word(byte(self.text, sign)) {
                end = exponent.max(sign);
            }
        }
        // `1and`, `1or`, `1union` are a number and a word to MySQL; `3rd`, `2x` are words to us.
        if is_word(byte(self.text, end)) {
            let word_end = run(self.text, end, is_word);
            let word = part(self.text, end, word_end);
            if matches!(word, b"and" | b"or" | b"union" | b"order" | b"having" | b"div" | b"like" | b"from" | b"xor") {
                self.at = end;
                return Token::Number;
            }
            self.at = word_end;
            return Token::Name;
        }
        self.at = end;
        Token::Number
    }

    fn variable(&mut self, start: usize) -> Token {
        let name = run(self.text, start, |next| next == b'@');
        let end = run(self.text, name, |next| is_word(next) || next == b'.');
        self.at = end.max(start.saturating_add(1));
        Token::Variable
    }

    fn word(&mut self, start: usize) -> Token {
        let end = run(self.text, start, is_word);
        self.at = end;
        let word = part(self.text, start, end);
        // Names with dots are one name: `time.sleep` is no `sleep`.
        if byte(self.text, end) == b'.'
            && (is_word(byte(self.text, end.saturating_add(1))) || byte(self.text, end.saturating_add(1)) == b'.')
        {
            let dotted = run(self.text, end, |next| is_word(next) || next == b'.' || next == b'`');
            self.at = dotted;
            return self.named(start, dotted);
        }
        match words::classify(word) {
            Token::Name => self.named(start, end),
            Token::Object if self.is_called(end) => Token::Function,
            Token::Like | Token::Insert | Token::Arithmetic | Token::Values | Token::Not
                if self.is_called(end) && words::function(word) == Token::Function =>
            {
                Token::Function
            }
            // `in(`, `and(` and the like are words all the same.
            token => token,
        }
    }

    fn is_called(&self, end: usize) -> bool {
        byte(self.text, skip_space(self.text, end)) == b'('
    }

    fn named(&mut self, start: usize, end: usize) -> Token {
        let name = part(self.text, start, end);
        let next = byte(self.text, end);
        if (next == b'\'' || next == b'"')
            && matches!(name, b"x" | b"n" | b"b" | b"q" | b"e" | b"u" | b"_utf8" | b"_latin1")
        {
            return self.quoted(end, next);
        }
        if name.contains(&b'.') && words::function(name) == Token::Grave {
            return Token::Grave;
        }
        if words::is_catalogue(name) {
            return Token::Catalogue;
        }
        let called = {
            let mut at = end;
            // A comment or a space may stand between a function and its parenthesis.
            at = skip_space(self.text, at);
            if byte(self.text, at) == b'/' && byte(self.text, at.saturating_add(1)) == b'*' {
                let limit = part(self.text, at, at.saturating_add(64));
                if let Some(close) = memchr::memmem::find(limit, b"*/") {
                    at = skip_space(self.text, at.saturating_add(close).saturating_add(2));
                }
            }
            byte(self.text, at) == b'('
        };
        if called {
            return words::function(name);
        }
        if matches!(name, b"xp_cmdshell" | b"master..xp_cmdshell" | b"sp_executesql" | b"sp_password") {
            Token::Grave
        } else {
            Token::Name
        }
    }
}

/// Whether a byte is one that the two quoted places end at.
pub(super) fn first_quote(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = memchr::memchr(quote, super::super::text::rest(text, at))?;
        let here = at.saturating_add(found);
        // A backslash before it may or may not escape it, by dialect and by what escaped the value before: the worse reading is that it does not.
        if !is_inside_word(text, here) {
            return Some(here);
        }
        at = here.saturating_add(1);
    }
}

/// An apostrophe between two letters (`don't`) is the writing of a word. As a quote it would be followed by a name, which is no SQL.
fn is_inside_word(text: &[u8], at: usize) -> bool {
    let before = byte(text, at.wrapping_sub(1));
    let after = byte(text, at.saturating_add(1));
    let is_letter = |b: u8| b.is_ascii_alphabetic() || b >= 0x80;
    if !(is_letter(before) && is_letter(after)) {
        return false;
    }
    // `x'or'1`, `a'and/*g*/1`, `x'union…` are no words.
    let end = run(text, at.saturating_add(1), is_word);
    let next = part(text, at.saturating_add(1), end);
    !(matches!(
        words::classify(next),
        Token::Logic
            | Token::Union
            | Token::Like
            | Token::Not
            | Token::Collate
            | Token::Sort
            | Token::Having
            | Token::Where
    ) && !is_space(byte(text, end))
        || matches!(
            next,
            b"and" | b"or" | b"union" | b"not" | b"collate" | b"glob" | b"like" | b"is" | b"having" | b"order"
        ))
}
