//! Cross-site scripting: markup that runs a script, attributes that do where the value lands inside of a tag, and URLs and code that do.
//!
//! Markup is read as browsers do, and once more as those do that mind quotes less: filters before us have been passed by the difference. A tag alone
//! is no attack; a handler, a script's URL, an element that embeds active content is. In an `html` argument only what runs a script is refused.
//!
//! Linear: each reading goes forward only.

use super::phrases::List;
use super::rules::{Finding, Looker, RuleId};
use super::text::{Marks, byte, find, is_space, is_word, part, rest, run, skip_space};

/// So much of a style is read.
const STYLE_BYTES: usize = 1024;

/// Looks for script-capable markup in a value in lower case.
pub(super) fn look(look: &Looker<'_>) -> Option<Finding> {
    let when =
        |signs: Marks, read: fn(&Looker<'_>) -> Option<Finding>| if look.marks.any(signs) { read(look) } else { None };
    when(Marks::LESS, tags)
        .or_else(|| when(Marks::EQUALS, events))
        .or_else(|| if look.has.any(List::Schemes) { urls(look) } else { None })
        .or_else(|| when(Marks::MORE, breakout))
}

/// Each tag, as a browser reads it.
fn tags(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    let mut quotes_end = [false; 2];
    // A style is looked at once, and so much of it.
    let mut styled = 0;
    while let Some(open) = memchr::memchr(b'<', rest(text, at)).map(|found| at.saturating_add(found)) {
        at = open.saturating_add(1);
        if let Some(finding) = declaration(look, open) {
            return Some(finding);
        }
        let closes = byte(text, at) == b'/';
        let name_at = if closes { at.saturating_add(1) } else { skip_noise(text, at) };
        if !byte(text, name_at).is_ascii_alphabetic() {
            continue;
        }
        let name_end = run(text, name_at, |next| is_word(next) || matches!(next, b':' | b'-'));
        let name = part(text, name_at, name_end);
        let tag =
            Tag { look, open, name: name.rsplit(|&next| next == b':').next().unwrap_or(name), closes, end: name_end };
        if tag.name == b"style" && !closes && open >= styled {
            styled = open.saturating_add(STYLE_BYTES);
            if let Some(finding) = tag.style() {
                return Some(finding);
            }
        }
        if let Some(finding) = tag.element() {
            return Some(finding);
        }
        at = name_end;
        if let Some(finding) = attributes(&tag, &mut at, &mut quotes_end) {
            return Some(finding);
        }
    }
    None
}

/// Some parsers pass over control characters and slashes between `<` and the name.
fn skip_noise(text: &[u8], at: usize) -> usize {
    run(text, at, |next| next < b' ' && next != b'\n')
}

struct Tag<'l, 't> {
    look: &'l Looker<'t>,
    open: usize,
    name: &'t [u8],
    closes: bool,
    /// One past the name.
    end: usize,
}

impl Tag<'_, '_> {
    /// Elements that are active by themselves.
    fn element(&self) -> Option<Finding> {
        let next = byte(self.look.text, self.end);
        let ends = next == 0
            || is_space(next)
            || matches!(next, b'>' | b'/' | b'<' | b'"' | b'\'' | b'`' | b'=' | b'+' | b',' | b'{' | b'(');
        if self.name.starts_with(b"script")
            && (ends || self.name.len() > 6 && !self.closes)
            && !self.is_quoted_in_prose()
            && (ends || self.name != b"scripts")
        {
            return self.look.found(RuleId::XssScript, self.open);
        }
        if !ends || self.closes || self.is_quoted_in_prose() {
            return None;
        }
        match self.name {
            b"iframe" | b"object" | b"embed" | b"applet" | b"frame" | b"frameset" | b"bgsound" | b"isindex"
            | b"layer" | b"ilayer" | b"vmlframe" => self.look.found(RuleId::XssElement, self.open),
            b"handler" | b"set" | b"animate" | b"import" | b"foreignobject" if next != b'>' => {
                self.look.found(RuleId::XssElement, self.open)
            }
            _ => None,
        }
    }

    /// `<script>` in backticks is talked about.
    fn is_quoted_in_prose(&self) -> bool {
        byte(self.look.text, self.open.wrapping_sub(1)) == b'`'
    }

    fn style(&self) -> Option<Finding> {
        let window = part(self.look.text, self.end, self.end.saturating_add(STYLE_BYTES));
        let end = find(window, 0, b"</style").unwrap_or(window.len());
        if is_active_style(part(window, 0, end)) {
            return self.look.found(RuleId::XssStyle, self.open);
        }
        None
    }

    fn attribute(&self, name: &[u8], value: &[u8], at: usize) -> Option<Finding> {
        if is_event(name) && !value.is_empty() {
            return self.look.found(RuleId::XssEvent, at);
        }
        if is_script_url(value) {
            return self.look.found(RuleId::XssUrl, at);
        }
        let rule = match (self.name, name) {
            (_, b"style") if is_active_style(value) => RuleId::XssStyle,
            (_, b"srcdoc") | (b"a", b"xlink:href") => RuleId::XssElement,
            (b"base", b"href") | (b"meta", b"http-equiv") | (b"form", b"action") => RuleId::XssElement,
            (b"link", b"href" | b"rel") if value.starts_with(b"stylesheet") || value.starts_with(b"import") => {
                RuleId::XssElement
            }
            (b"xml" | b"html" | b"t" | b"v" | b"div" | b"span" | b"b", b"datasrc" | b"src") if self.name != b"html" => {
                RuleId::XssElement
            }
            (b"param", b"value") if value.contains(&b':') => RuleId::XssElement,
            (b"meta", b"charset") if value.starts_with(b"utf-7") || value.starts_with(b"x-") => RuleId::XssElement,
            (b"input" | b"image", b"type") if value == b"image" => return None,
            _ => return None,
        };
        self.look.found(rule, at)
    }
}

/// The attributes from `at` to the tag's end, which `at` is moved behind.
fn attributes(tag: &Tag<'_, '_>, at: &mut usize, quotes_end: &mut [bool; 2]) -> Option<Finding> {
    let text = tag.look.text;
    loop {
        *at = run(text, *at, |next| is_space(next) || matches!(next, b'/' | b'"' | b'\'' | b'`' | b','));
        let name_at = *at;
        match byte(text, name_at) {
            b'>' => {
                *at = name_at.saturating_add(1);
                return None;
            }
            b'<' => return None,
            _ if name_at >= text.len() => return None,
            _ => {}
        }
        let name_end = run(text, name_at.saturating_add(1), |next| {
            !is_space(next) && !matches!(next, b'=' | b'>' | b'/' | b'<' | b'"' | b'\'')
        });
        let equals = run(text, name_end, |next| is_space(next) || next == b'`');
        if byte(text, equals) != b'=' {
            *at = name_end;
            continue;
        }
        let value_at = skip_space(text, equals.saturating_add(1));
        let quote = byte(text, value_at);
        let index = usize::from(quote == b'\'');
        let inside = value_at.saturating_add(1);
        let closing = match quote {
            b'"' | b'\'' if !quotes_end.get(index).copied().unwrap_or(true) => {
                memchr::memchr(quote, rest(text, inside))
            }
            _ => None,
        };
        if matches!(quote, b'"' | b'\'') && closing.is_none() {
            // No such quote comes any more, so it is not looked for again.
            if let Some(ended) = quotes_end.get_mut(index) {
                *ended = true;
            }
        }
        let (from, to) = match closing {
            Some(found) => (inside, inside.saturating_add(found)),
            None => (value_at, run(text, value_at, |next| !is_space(next) && next != b'>')),
        };
        *at = if closing.is_some() { to.saturating_add(1) } else { to };
        if let Some(finding) = tag.attribute(part(text, name_at, name_end), part(text, from, to), name_at) {
            return Some(finding);
        }
    }
}

/// `<!ENTITY`, `<?xml-stylesheet`, `<!--#exec`, …: what is no element.
fn declaration(look: &Looker<'_>, open: usize) -> Option<Finding> {
    let inside = rest(look.text, open.saturating_add(1));
    let starts = |words: &[&[u8]]| words.iter().any(|word| inside.starts_with(word));
    if starts(&[b"!entity", b"?xml-stylesheet", b"?import", b"!attlist"])
        || inside.starts_with(b"!doctype") && has_subset(inside)
    {
        return look.found(RuleId::XssElement, open);
    }
    if starts(&[b"!--#exec", b"!--#include"]) {
        return look.found(RuleId::ShellCode, open);
    }
    if starts(&[b"![cdata["]) && inside.len() > 9 {
        return look.found(RuleId::XssElement, open);
    }
    None
}

/// A document type with an internal subset or an external one that is no public name.
fn has_subset(inside: &[u8]) -> bool {
    let head = part(inside, 0, 128);
    let end = memchr::memchr(b'>', head).unwrap_or(head.len());
    let head = part(head, 0, end);
    head.contains(&b'[') || find(head, 0, b" system").is_some()
}

/// `on…` of at least five letters.
fn is_event(name: &[u8]) -> bool {
    name.len() >= 5 && name.starts_with(b"on") && rest(name, 2).iter().take(3).all(u8::is_ascii_alphabetic)
}

/// Markup behind the end of an attribute that the value lands in: a quote and `>` before any `<`, and a tag behind.
fn breakout(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let sign = memchr::memchr2(b'<', b'>', text)?;
    let quoted = matches!(byte(text, sign.wrapping_sub(1)), b'"' | b'\'')
        || matches!(byte(text, sign.wrapping_sub(2)), b'"' | b'\'') && byte(text, sign.wrapping_sub(1)) == b'/';
    if sign == 0 || byte(text, sign) != b'>' || !quoted || part(text, 0, sign).contains(&b'\n') {
        return None;
    }
    let tag = memchr::memchr(b'<', rest(text, sign))?.saturating_add(sign);
    let name = byte(text, tag.saturating_add(1));
    if name.is_ascii_alphabetic() || matches!(name, b'/' | b'!' | b'?') {
        look.found(RuleId::XssElement, sign)
    } else {
        None
    }
}

/// A URL whose scheme runs a script. Browsers pass over control characters and spaces in front of a scheme, and over line ends and tabs inside of it.
fn is_script_url(value: &[u8]) -> bool {
    let mut letters = value.iter().copied().filter(|&next| next > b' ' && next != b'\\' && next < 0x80);
    let mut head = [0u8; 32];
    let mut len = 0usize;
    for place in &mut head {
        match letters.next() {
            Some(next) => {
                *place = next;
                len = len.saturating_add(1);
            }
            None => break,
        }
    }
    let head = part(&head, 0, len);
    let starts = |words: &[&[u8]]| words.iter().any(|word| head.starts_with(word));
    starts(&[
        b"javascript:",
        b"javascript#",
        b"vbscript:",
        b"livescript:",
        b"mocha:",
        b"feed:javascript:",
        b"view-source:javascript:",
        b"jar:",
        b"mhtml:",
    ]) || head.starts_with(b"&{")
        || starts(&[
            b"data:text/html",
            b"data:text/xml",
            b"data:application/xml",
            b"data:application/xhtml",
            b"data:image/svg",
            b"data:text/javascript",
            b"data:text/css",
            b"data:;base64",
            b"data:,",
            b"data:application/x-",
            b"data:xss",
        ])
}

fn is_active_style(value: &[u8]) -> bool {
    const SIGNS: [&[u8]; 8] = [
        b"expression(",
        b"javascript:",
        b"@import",
        b"-moz-binding",
        b"behavior:",
        b"behaviour:",
        b"expression/",
        b"vbscript:",
    ];
    // Comments and escapes split words where style sheets are read.
    let mut plain = [0u8; 512];
    let mut len = 0usize;
    let mut at = 0usize;
    while at < value.len() && len < plain.len() {
        if byte(value, at) == b'/' && byte(value, at.saturating_add(1)) == b'*' {
            at = find(value, at.saturating_add(2), b"*/").map_or(value.len(), |end| end.saturating_add(2));
            continue;
        }
        let next = byte(value, at);
        if next > b' ' && next != b'\\' {
            if let Some(place) = plain.get_mut(len) {
                *place = next;
            }
            len = len.saturating_add(1);
        }
        at = at.saturating_add(1);
    }
    let plain = part(&plain, 0, len);
    // Escapes have no use in an honest style but in names of fonts.
    let escapes = value.windows(3).filter(|three| matches!(three, [b'\\', b'0', b'0' | b'1'])).count();
    escapes >= 3 || SIGNS.iter().any(|sign| find(plain, 0, sign).is_some())
}

/// `on…=` in what is a tag to those that mind no quotes, and in a value that lands inside of one.
fn events(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    // Inside of a tag: from `<` and a letter to `>`.
    let mut tag = false;
    let mut scanned = 0;
    let first_quote = text.iter().position(|next| matches!(next, b'"' | b'\'' | b'`'));
    for on in memchr::memmem::find_iter(text, b"on") {
        let at = on.saturating_add(2);
        let name_end = run(text, at, |next| next.is_ascii_alphabetic());
        let before = byte(text, on.wrapping_sub(1));
        if name_end < at.saturating_add(3)
            || is_word(before) && before < 0x80
            || matches!(before, b'.' | b'-' | b'@' | b':' | b'$')
        {
            continue;
        }
        let equals = run(text, name_end, is_space);
        if byte(text, equals) != b'=' || byte(text, equals.saturating_add(1)) == b'=' {
            continue;
        }
        for next in part(text, scanned, on).windows(2) {
            match next {
                [b'<', name] if name.is_ascii_alphabetic() || matches!(name, b'!' | b'?' | b'/' | b'%') => tag = true,
                [b'>', _] => tag = false,
                _ => {}
            }
        }
        scanned = on.saturating_sub(1);
        let value = skip_space(text, equals.saturating_add(1));
        let is_known = is_known_event(part(text, at, name_end));
        let lands = on == 0 || first_quote.is_some_and(|quote| quote < on && on.saturating_sub(quote) < 512);
        if tag && !matches!(byte(text, value), b'{' | 0) || tag && is_known && byte(text, value) != b'{' {
            return look.found(RuleId::XssEvent, on);
        }
        if is_known && lands && byte(text, value) != b'{' && is_code(part(text, value, value.saturating_add(200))) {
            return look.found(RuleId::XssEvent, on);
        }
    }
    None
}

/// What an event's handler is in a value: a call or an assignment.
fn is_code(value: &[u8]) -> bool {
    let is_function = value.starts_with(b"function") || value.starts_with(b"(") && find(value, 0, b"=>").is_some();
    !is_function && value.iter().any(|next| matches!(next, b'(' | b'`' | b'=' | b'&'))
}

/// The stems of the events that browsers know.
fn is_known_event(stem: &[u8]) -> bool {
    const STEMS: [&[u8]; 92] = [
        b"abort",
        b"activate",
        b"after",
        b"animation",
        b"auxclick",
        b"before",
        b"begin",
        b"blur",
        b"bounce",
        b"cancel",
        b"canplay",
        b"cell",
        b"change",
        b"click",
        b"close",
        b"context",
        b"control",
        b"copy",
        b"cue",
        b"cut",
        b"data",
        b"dblclick",
        b"deactivate",
        b"drag",
        b"drop",
        b"duration",
        b"emptied",
        b"end",
        b"error",
        b"filter",
        b"finish",
        b"focus",
        b"form",
        b"fullscreen",
        b"got",
        b"hash",
        b"help",
        b"input",
        b"invalid",
        b"key",
        b"language",
        b"layout",
        b"load",
        b"losecapture",
        b"lost",
        b"media",
        b"message",
        b"mouse",
        b"move",
        b"moz",
        b"offline",
        b"online",
        b"outofsync",
        b"page",
        b"paste",
        b"pause",
        b"play",
        b"pointer",
        b"pop",
        b"progress",
        b"property",
        b"rate",
        b"ready",
        b"redo",
        b"repeat",
        b"reset",
        b"resize",
        b"resume",
        b"reverse",
        b"row",
        b"scroll",
        b"search",
        b"seek",
        b"select",
        b"show",
        b"stalled",
        b"start",
        b"stop",
        b"storage",
        b"submit",
        b"suspend",
        b"syncrestored",
        b"time",
        b"toggle",
        b"touch",
        b"track",
        b"transition",
        b"undo",
        b"unload",
        b"url",
        b"volume",
        b"w",
    ];
    STEMS.iter().any(|known| stem.starts_with(known)) || stem.starts_with(b"zoom")
}

/// What scripts' URLs and styles have.
pub(super) const SCHEMES: &[&[u8]] =
    &[b"script:", b"data:text/html", b"url(data:", b"expression(", b"-moz-binding", b"mhtml:"];

/// A script's URL outside of markup: followed at once by what is code.
fn urls(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    for scheme in look.has.of(List::Schemes) {
        for found in memchr::memmem::find_iter(text, scheme) {
            let at = found.saturating_add(scheme.len());
            let code = part(text, at, at.saturating_add(80));
            let code = part(code, 0, run(code, 0, |next| !is_space(next)));
            let named = match scheme {
                b"script:" => {
                    let before = super::text::word_before(text, found);
                    before.ends_with(b"java") || before.ends_with(b"vb") || before.ends_with(b"live")
                }
                b"expression(" => {
                    let before = part(text, found.saturating_sub(80), found);
                    if matches!(before.last(), Some(b':' | b' ')) && find(before, 0, b"style").is_some() {
                        return look.found(RuleId::XssStyle, found);
                    }
                    false
                }
                b"mhtml:" => found == 0,
                _ => true,
            };
            let is_code = code
                .iter()
                .any(|next| matches!(next, b'(' | b'=' | b'%' | b'[' | b'`' | b';' | b'{' | b'&' | b'<' | b','))
                || code.starts_with(b"/")
                || code.starts_with(b"\\");
            if named && is_code {
                return look.found(RuleId::XssUrl, found);
            }
        }
    }
    None
}
