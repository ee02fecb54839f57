//! Which Latin letter a character shows.
//!
//! Not the confusables table of Unicode: the few hundred characters with which words are disguised in practice, by ranges where they have
//! some. A letter that shows no Latin one is folded to a byte above 0x7F of its own script's, so that lists in other scripts work the same way.

use std::sync::LazyLock;

/// What a character is in the normalised view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glyph {
    /// A letter.
    Letter(u8),
    /// Nothing that is seen: combining marks, zero-width characters, variation selectors.
    Nothing,
    /// `’`
    Apostrophe,
    /// `“` or `”`
    Quote,
    /// Between words.
    Gap,
}

/// Each letter, and characters beyond ASCII that show it.
const SHOWN: &[(u8, &str)] = &[
    (b'a', "àáâãäåāăąǎǟǡǻȁȃȧɐɑαаạảấầẩẫậắằẳẵặª∂λ"),
    (b'b', "ßƀɓвьβ฿Ь"),
    (b'c', "çćĉċčƈ¢сϲ©ς"),
    (b'd', "ďđɗԁð"),
    (b'e', "èéêëēĕėęěǝəεеёєҽ€ẹẻẽếềểễệ∈"),
    (b'f', "ƒғ"),
    (b'g', "ĝğġģǧǥɠԍ"),
    (b'h', "ĥħɦһнћ"),
    (b'i', "ìíîïĩīĭįıɨιіїίỉịǐ¡"),
    (b'j', "ĵјʝ"),
    (b'k', "ķĸκкқ"),
    (b'l', "ĺļľŀłɭⅼ"),
    (b'm', "мɱ"),
    (b'n', "ñńņňŉŋηпո∩"),
    (b'o', "òóôõöøōŏőơǒοо๏σ°ọỏốồổỗộớờởỡợ"),
    (b'p', "рρþ"),
    (b'q', "ԛ"),
    (b'r', "ŕŗřгɾ"),
    (b's', "śŝşšѕșʂ§"),
    (b't', "ţťŧτтț†"),
    (b'u', "ùúûüũūŭůűųưǔυµμцụủứừửữự"),
    (b'v', "νѵ∨"),
    (b'w', "ŵωԝшщ"),
    (b'x', "×хχ"),
    (b'y', "ýÿŷуүγ¥"),
    (b'z', "źżžƶʐ"),
];

/// Characters below this are looked up in a table; it ends behind the mathematical operators.
const TABLED: usize = 0x2300;
const GAP: u8 = 0;
const NOTHING: u8 = 1;
const APOSTROPHE: u8 = 2;
const QUOTE: u8 = 3;

static TABLE: LazyLock<Box<[u8; TABLED]>> = LazyLock::new(|| {
    let mut table = Box::new([GAP; TABLED]);
    for (code, entry) in (0u32..).zip(table.iter_mut()) {
        *entry = char::from_u32(code).map_or(GAP, entry_of);
    }
    table
});

/// What a character is.
pub(super) fn glyph(c: char) -> Glyph {
    let code = u32::from(c);
    if let Some(&entry) = TABLE.get(code as usize) {
        return match entry {
            GAP => Glyph::Gap,
            NOTHING => Glyph::Nothing,
            APOSTROPHE => Glyph::Apostrophe,
            QUOTE => Glyph::Quote,
            letter => Glyph::Letter(letter),
        };
    }
    match code {
        // Circled, full-width, squared and mathematical letters; regional indicators.
        0x249C..=0x24B5 => nth(code, 0x249C),
        0x24B6..=0x24CF => nth(code, 0x24B6),
        0x24D0..=0x24E9 => nth(code, 0x24D0),
        0xFE00..=0xFE0F | 0xFE20..=0xFE2F | 0xFEFF => Glyph::Nothing,
        0xFF21..=0xFF3A => nth(code, 0xFF21),
        0xFF41..=0xFF5A => nth(code, 0xFF41),
        0x1D400..=0x1D6A3 => nth(code, 0x1D400),
        0x1F130..=0x1F149 => nth(code, 0x1F130),
        0x1F150..=0x1F169 => nth(code, 0x1F150),
        0x1F170..=0x1F189 => nth(code, 0x1F170),
        0x1F1E6..=0x1F1FF => nth(code, 0x1F1E6),
        // Scripts that no list is written in, most of them without borders between words: what is Latin among them stands alone.
        _ => Glyph::Gap,
    }
}

/// The table's entry of a character.
fn entry_of(c: char) -> u8 {
    match u32::from(c) {
        0..0x80 => return if c.is_ascii_alphabetic() { c.to_ascii_lowercase() as u8 } else { GAP },
        // Soft hyphen, combining marks, zero-width characters, directions.
        0xAD
        | 0x300..=0x36F
        | 0x483..=0x487
        | 0x1AB0..=0x1AFF
        | 0x1DC0..=0x1DFF
        | 0x200B..=0x200F
        | 0x202A..=0x202E
        | 0x2060..=0x2064
        | 0x20D0..=0x20FF => return NOTHING,
        0x2018 | 0x2019 | 0xB4 => return APOSTROPHE,
        0x201C..=0x201E => return QUOTE,
        _ => {}
    }
    let small = c.to_lowercase().next().unwrap_or(c);
    match SHOWN.iter().find(|(_, shown)| shown.contains(small)) {
        Some(&(letter, _)) => letter,
        None if c.is_alphabetic() => 0x80 | (u32::from(small) & 0x7F) as u8, // its own: neighbours in a script stay apart
        None => GAP,
    }
}

fn nth(code: u32, first: u32) -> Glyph {
    let letter = u8::try_from((code - first) % 26).unwrap_or(0);
    Glyph::Letter(b'a' + letter)
}
