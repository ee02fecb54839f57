//! Path traversal: whether a value leads out of the directory that it is meant for.
//!
//! A climb or two is everyday (`../docs/readme.md`, `import '../../x'`), so what counts is where it ends: at a file of the system, or higher than
//! a project is deep. A path is read as lenient file systems and decoders read it: with both slashes, doubled ones, `./` between, dots
//! in overlong encodings. In a `path` argument any climb is refused.

use super::phrases::List;
use super::rules::{Finding, Looker, RuleId};
use super::text::{Marks, byte, find, is_space, is_word, part, rest, run};

/// So many climbs in a row lead out of any project, wherever they end.
const MANY_CLIMBS: usize = 5;

/// Looks for traversal in a value in lower case.
pub(super) fn look(look: &Looker<'_>, is_path: bool) -> Option<Finding> {
    let has_slash = look.marks.any(Marks::SLASH.or(Marks::BACKSLASH));
    let climb = if look.marks.any(Marks::DOT) && (has_slash || is_path) { climbs(look, is_path) } else { None };
    climb
        .or_else(|| files(look, is_path))
        .or_else(|| odd_dots(look))
        .or_else(|| if has_slash { dotted_segment(look).or_else(|| padded(look)) } else { None })
}

const fn is_slash(next: u8) -> bool {
    matches!(next, b'/' | b'\\')
}

/// Chains of `..` and separators.
fn climbs(look: &Looker<'_>, is_path: bool) -> Option<Finding> {
    let text = look.text;
    let mut at = 0;
    for dots in memchr::memmem::find_iter(text, b"..") {
        if dots < at {
            continue;
        }
        let chain = Chain::read(text, dots);
        at = chain.seen.max(dots.saturating_add(2));
        if chain.climbs == 0 {
            continue;
        }
        let before = byte(text, dots.wrapping_sub(1));
        let named = part(text, dots.saturating_sub(10), dots);
        if named.ends_with(b"filename=\"") || named.ends_with(b"filename=") {
            return look.found(RuleId::PathClimb, dots);
        }
        if dots > 0 && (is_word(before) || before == b'.') && !is_path {
            continue;
        }
        let target = part(
            text,
            chain.end,
            run(text, chain.end, |next| {
                !is_space(next) && !matches!(next, b'"' | b'\'' | b'`' | b'<' | b'>' | b'|' | b';' | b')' | b',')
            }),
        );
        // `/../x`, `/./../x` from the begin of a value climbs over the root.
        let over_root = dots <= 12
            && dots > 0
            && part(text, 0, dots).iter().all(|&next| is_slash(next) || next == b'.')
            && !part(text, 0, dots).contains(&b' ');
        let leads = chain.climbs >= MANY_CLIMBS
            || over_root
            || is_system(part(text, chain.end, chain.end.saturating_add(160)))
            || chain.odd && chain.climbs >= 2
            || look.peeled && chain.climbs >= 3;
        if is_path || leads || chain.climbs >= 3 && !is_project(target) {
            return look.found(RuleId::PathClimb, dots);
        }
    }
    None
}

/// A run of climbs: `../..\.//../`.
struct Chain {
    climbs: usize,
    /// One past it: where the rest of the path begins.
    end: usize,
    /// One past what was looked at.
    seen: usize,
    /// It has what no honest path has: three dots, doubled or mixed slashes.
    odd: bool,
}

impl Chain {
    fn read(text: &[u8], at: usize) -> Self {
        let mut chain = Self { climbs: 0, end: at, seen: at, odd: false };
        let mut last_slash = 0u8;
        loop {
            let dots_end = run(text, chain.end, |next| next == b'.');
            let dots = dots_end.saturating_sub(chain.end);
            let slash_end = run(text, dots_end, is_slash);
            let slashes = slash_end.saturating_sub(dots_end);
            chain.seen = slash_end;
            if dots == 0 || slashes == 0 {
                // `..` at the end of the value climbs too.
                if dots == 2
                    && (chain.climbs > 0 || is_slash(byte(text, at.wrapping_sub(1))))
                    && !is_word(byte(text, dots_end))
                {
                    chain.climbs = chain.climbs.saturating_add(1);
                    chain.end = dots_end;
                }
                return chain;
            }
            if dots >= 2 {
                chain.climbs = chain.climbs.saturating_add(1);
            }
            let slash = byte(text, dots_end);
            // `..\\..` is how a single backslash is often written.
            chain.odd |= dots > 2 || slashes > 1 && slash == b'/' || last_slash != 0 && last_slash != slash;
            last_slash = slash;
            chain.end = slash_end;
        }
    }
}

/// Directories and files at the root of systems, and what attackers ask servers for.
const ROOTS: [&[u8]; 36] = [
    b"etc",
    b"proc",
    b"windows",
    b"winnt",
    b"boot.ini",
    b"win.ini",
    b"var/log",
    b"var/www",
    b"var/lib",
    b"var/run",
    b"usr/",
    b"root",
    b"home",
    b"system32",
    b"inetpub",
    b"xampp",
    b"wamp",
    b"apache",
    b"opt/",
    b"boot",
    b"dev/",
    b"sys/",
    b"web-inf",
    b"windows",
    b"program files",
    b"programdata",
    b"users/",
    b"documents and settings",
    b"autoexec.bat",
    b"config.sys",
    b"php.ini",
    b"mysql",
    b"php/",
    b"logs/",
    b"var/adm",
    b"private/etc",
];

/// Does the path begin at a system's root?
fn is_system(target: &[u8]) -> bool {
    ROOTS.iter().any(|root| {
        target
            .strip_prefix(*root)
            .is_some_and(|tail| tail.is_empty() || root.ends_with(b"/") || !is_word(byte(tail, 0)))
    }) || SECRETS.iter().any(|secret| find(target, 0, secret).is_some())
}

/// Does the path go on as one of a project does: into a directory or file with an everyday name?
fn is_project(target: &[u8]) -> bool {
    const EXTENSIONS: [&[u8]; 24] = [
        b"md", b"mdx", b"png", b"svg", b"jpg", b"gif", b"ts", b"tsx", b"js", b"jsx", b"mjs", b"py", b"rs", b"go",
        b"css", b"scss", b"html", b"json", b"toml", b"yaml", b"yml", b"txt", b"h", b"c",
    ];
    let path_end = run(target, 0, |next| !matches!(next, b'#' | b'?' | b'%'));
    let path = part(target, 0, path_end);
    let name = path.rsplit(|&next| is_slash(next)).next().unwrap_or_default();
    let extension = name.rsplit(|&next| next == b'.').next().unwrap_or_default();
    let has_extension = extension.len() < name.len();
    if path.is_empty() {
        return true;
    }
    has_extension && EXTENSIONS.contains(&extension) && path_end == target.len()
        || !has_extension && path.iter().all(|&next| is_word(next) || matches!(next, b'/' | b'-' | b'@'))
}

/// Files that tell a system's secrets, wherever they are named with their path.
pub(super) const SECRETS: &[&[u8]] = &[
    b"etc/passwd",
    b"etc\\passwd",
    b"etc/shadow",
    b"etc/gshadow",
    b"etc/master.passwd",
    b"etc/security/passwd",
    b"etc/sudoers",
    b"etc/subuid",
    b"etc/group-",
    b"etc/issue",
    b"proc/self/",
    b"proc/version",
    b"proc/cmdline",
    b"proc/net/tcp",
    b"proc/net/arp",
    b"boot.ini",
    b"win.ini",
    b"windows/system32",
    b"windows\\system32",
    b"winnt/system32",
    b"winnt\\system32",
    b"system32/drivers",
    b"system32\\drivers",
    b".ssh/id_rsa",
    b".ssh/id_dsa",
    b".ssh/id_ed25519",
    b".ssh/authorized_keys",
    b".aws/credentials",
    b"web-inf/web.xml",
    b"inetpub/wwwroot",
    b"inetpub\\wwwroot",
    b"inetpubwwwroot",
    b"web-infweb.xml",
    b"/.htpasswd",
    b".bash_history",
    b"config/master.key",
    b"etcpasswd",
];

/// Paths to files that tell secrets, without a climb.
fn files(look: &Looker<'_>, is_path: bool) -> Option<Finding> {
    let text = look.text;
    for secret in look.has.of(List::Secrets) {
        let Some(found) = find(text, 0, secret) else { continue };
        // Talked about in a long text, it is talked about.
        let alone = text.len() <= 240 && words_before(text, found) <= 8;
        let before = byte(text, found.wrapping_sub(1));
        if (alone || is_path) && !(is_word(before) && found > 0 && secret.first().is_some_and(u8::is_ascii_alphabetic))
            || look.peeled && alone
        {
            return look.found(RuleId::PathFile, found);
        }
    }
    None
}

/// Words of a sentence in front of `at`.
fn words_before(text: &[u8], at: usize) -> usize {
    part(text, 0, at)
        .split(|&next| is_space(next))
        .filter(|word| word.len() > 1 && word.iter().all(u8::is_ascii_alphabetic))
        .count()
}

/// Written dots and slashes.
pub(super) const ODD: &[&[u8]] = &[
    b"0x2e0x2e",
    b"0x2e.",
    b"..0x2f",
    b"..0x5c",
    b".0x2f.",
    b"%c0%",
    b"%uff0e",
    b"%bg%qf",
    b"?.%c0",
    b"0x2e/",
    b"0x5c0x2e",
];

/// Dots, slashes and signs in mixtures that only a decoder of an attacker's choice reads as a path.
fn odd_dots(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    for sign in look.has.of(List::Odd) {
        if let Some(found) = find(text, 0, sign) {
            let again = find(text, found.saturating_add(1), sign).is_some();
            if again || matches!(sign, b"0x2e0x2e" | b"..0x2f" | b"..0x5c" | b"0x5c0x2e") {
                return look.found(RuleId::PathDisguise, found);
            }
        }
    }
    None
}

/// Longest name of a file that any file system in use has.
const LONGEST_NAME: usize = 255;

/// Paths padded until something cuts them off: `/./././`, `///x`, and names longer than there can be.
fn padded(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    if !is_slash(byte(text, 0)) {
        return None;
    }
    let slashes = run(text, 0, is_slash);
    if slashes >= 3
        && (is_word(byte(text, slashes)) || byte(text, slashes) == b'{')
        && text.len() <= 256
        && !text.iter().any(|&next| is_space(next))
    {
        return look.found(RuleId::PathDisguise, 0);
    }
    let name_end = run(text, 1, |next| next == byte(text, 1));
    if name_end > LONGEST_NAME {
        return look.found(RuleId::PathDisguise, 0);
    }
    let dotted = run(text, 0, |next| is_slash(next) || next == b'.');
    let steps = part(text, 0, dotted).windows(3).filter(|three| matches!(three, [b'/', b'.', b'/'])).count();
    if steps >= 3 { look.found(RuleId::PathDisguise, 0) } else { None }
}

/// A segment of many dots between slashes, or dots and a slash in a rhythm: `/....//....//`, `/.../.../`, `..;/..;/`, `.?/.?/`.
fn dotted_segment(look: &Looker<'_>) -> Option<Finding> {
    let text = look.text;
    let mut segments = 0usize;
    let mut first = 0usize;
    let mut at = 0usize;
    while let Some(slash) = memchr::memchr2(b'/', b'\\', rest(text, at)).map(|found| at.saturating_add(found)) {
        let segment = part(text, at, slash);
        let dots = segment.iter().filter(|&&next| next == b'.').count();
        let others = segment.len().saturating_sub(dots);
        let is_dotted = dots >= 1
            && segment.len() >= 2
            && others <= 1
            && segment.iter().all(|&next| matches!(next, b'.' | b';' | b'?' | b'*' | b','))
            || dots >= 3 && others == 0;
        if is_dotted && !(dots == 2 && others == 0) {
            if segments == 0 {
                first = at;
            }
            segments = segments.saturating_add(1);
            if segments >= 2 || dots >= 3 && is_slash(byte(text, at.wrapping_sub(1))) && at <= 4 {
                return look.found(RuleId::PathDisguise, first);
            }
        } else if !segment.is_empty() && dots != segment.len() {
            segments = 0;
        }
        at = slash.saturating_add(1);
    }
    // `/......etc`: dots glued to what they lead to.
    let tail = rest(text, at);
    let dots = run(tail, 0, |next| next == b'.');
    if at > 0 && dots >= 3 && dots < tail.len() && text.len() < 512 && at <= 4 && !is_space(byte(tail, dots)) {
        return look.found(RuleId::PathDisguise, at);
    }
    None
}
