//! The token: from a file or the environment, never from the command line, where every user of the machine could read it.

use std::io::Read;
use std::path::Path;

use super::failure::Failure;
use super::target::Door;
use crate::settings::Secret;

/// Longest token, bytes. The gateway's heads hold 16 KiB in all.
const MAX_BYTES: u64 = 8 * 1024;

/// The token of `door`: the file's, else the door's own variable, else `RINGWALL_TOKEN`. `None` where there is none.
pub(super) fn find(
    door: Door,
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, Failure> {
    if let Some(path) = file {
        let text = read(path)
            .map_err(|why| Failure::Usage(format!("cannot read the token file {}: {why}", path.display())))?;
        return check(&text, &path.display().to_string()).map(Some);
    }
    for name in [door.token_variable(), "RINGWALL_TOKEN"] {
        if let Some(text) = variable(name).filter(|text| !text.is_empty()) {
            return check(&text, name).map(Some);
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// What can stand in a header field behind `Bearer`. Says where the fault is, not what stands there.
fn check(text: &str, source: &str) -> Result<Secret, Failure> {
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::Usage(format!("{source} holds no token")));
    }
    if token.len() as u64 > MAX_BYTES {
        return Err(Failure::Usage(format!("the token of {source} is longer than {MAX_BYTES} bytes")));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage(format!(
            "the token of {source} holds a blank or a character that a token cannot have"
        )));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_then_the_doors_own_variable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "of-the-file\n").unwrap();
        let both = |name: &str| Some(format!("of-{name}"));
        let general = |name: &str| (name == "RINGWALL_TOKEN").then(|| "general".to_owned());
        let found = |door, file: Option<&Path>, variable: &dyn Fn(&str) -> Option<String>| {
            find(door, file, variable)
                .map(|token| token.map(|token| String::from_utf8(token.expose().to_vec()).unwrap()))
        };
        assert_eq!(found(Door::Tcp, Some(&path), &both).unwrap().as_deref(), Some("of-the-file"));
        assert_eq!(found(Door::Tcp, None, &both).unwrap().as_deref(), Some("of-TCP_AUTH_TOKEN"));
        assert_eq!(found(Door::Ws, None, &both).unwrap().as_deref(), Some("of-WS_AUTH_TOKEN"));
        assert_eq!(found(Door::Http, None, &general).unwrap().as_deref(), Some("general"));
        assert_eq!(found(Door::Http, None, &|_| None).unwrap(), None);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", " \n", "two secret-words", "secret-\u{1}", "secret-ü", &"s".repeat(9000)] {
            let path = folder.path().join("token");
            std::fs::write(&path, text).unwrap();
            let Err(failure) = find(Door::Ws, Some(&path), |_| None) else { panic!("{text:?}") };
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
        assert!(find(Door::Ws, Some(&folder.path().join("none")), |_| None).is_err());
    }
}
