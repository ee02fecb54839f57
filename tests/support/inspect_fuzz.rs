//! The body of the fuzz target `inspect`, also run by plain `cargo test` over the kept inputs.

use ringwall::guard::inspect::{Inspector, Kind, Kinds, Rules, Scratch};

/// Whatever `raw` is, nothing may panic; what is found lies in the value; and what is found in a message has a sign that the first look goes by.
/// The time is the fuzzer's to judge: it reports an input that takes longer than its `-timeout`.
pub(crate) fn inspect(raw: &[u8]) {
    let inspector = Inspector::new(&Rules::default());
    let mut scratch = Scratch::default();
    let text = String::from_utf8_lossy(raw);
    for kind in Kind::ALL {
        if let Some(finding) = inspector.inspect_text(kind, &text, &mut scratch) {
            // A disguise that is off is never longer than it was.
            assert!(finding.at <= text.len(), "{kind:?} {finding:?}");
        }
    }
    let again = inspector.inspect_text(Kind::Text, &text, &mut Scratch::default());
    assert_eq!(
        inspector.inspect_text(Kind::Text, &text, &mut scratch),
        again,
        "what was looked at before does not matter"
    );
    let _ = inspector.inspect_key(&text, &mut scratch);
    let _ = inspector.inspect_call(raw, &Kinds::default(), &mut scratch);
}
