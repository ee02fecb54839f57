#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::rpc::Parser;

fn cut(raw: &str, allowed: &[&str]) -> Result<String, Unclear> {
    let envelope = Parser::new(64).parse(raw.as_bytes()).expect(raw);
    let mut edits = Vec::new();
    keep_tools(&envelope, raw.as_bytes(), |name, _| allowed.contains(&name), &mut edits)?;
    let mut out = Vec::new();
    splice::splice(raw.as_bytes(), &edits, &mut out).expect(raw);
    Ok(String::from_utf8(out).unwrap())
}

fn response(result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}")
}

#[test]
fn members_are_cut_and_what_is_left_is_as_it_came() {
    let t = |name: &str| format!("{{\"name\":\"{name}\"}}");
    let (a, b, c) = (t("a"), t("b"), t("c"));
    for (allowed, want) in [
        (&["a", "b", "c"][..], format!("[ {a} ,{b},\n {c} ]")),
        (&["b", "c"], format!("[ {b},\n {c} ]")),
        (&["a", "c"], format!("[ {a} ,{c} ]")),
        (&["a", "b"], format!("[ {a} ,{b} ]")),
        (&["a"], format!("[ {a} ]")),
        (&["b"], format!("[ {b} ]")),
        (&["c"], format!("[ {c} ]")),
        (&[], "[  ]".to_owned()),
    ] {
        let raw = response(&format!("{{ \"x\":1.0, \"tools\":[ {a} ,{b},\n {c} ] ,\"nextCursor\":\"p2\" }}"));
        let want = response(&format!("{{ \"x\":1.0, \"tools\":{want} ,\"nextCursor\":\"p2\" }}"));
        assert_eq!(cut(&raw, allowed).unwrap(), want, "{allowed:?}");
    }
    assert_eq!(cut(&response("{\"tools\":[]}"), &[]).unwrap(), response("{\"tools\":[]}"));
}

#[test]
fn names_are_compared_decoded() {
    let raw = response(r#"{"\u0074ools":[{"n\u0061me":"\u0061"},{"name":"b\u0000"},{"name":"b"}]}"#);
    assert_eq!(cut(&raw, &["a"]).unwrap(), response(r#"{"\u0074ools":[{"n\u0061me":"\u0061"}]}"#));
    assert_eq!(cut(&raw, &["b"]).unwrap(), response(r#"{"\u0074ools":[{"name":"b"}]}"#));
}

#[test]
fn what_has_no_plain_name_is_cut() {
    let raw = response(
        r#"{"tools":[1,null,"a",["name","a"],{},{"title":"a"},{"name":1},{"name":"a","Name":"b"},{"NAME":"a"},{"x":{"name":"b"},"name":"a"}]}"#,
    );
    assert_eq!(cut(&raw, &["a"]).unwrap(), response(r#"{"tools":[{"x":{"name":"b"},"name":"a"}]}"#));
}

#[test]
fn a_list_that_could_be_another_is_unclear() {
    for result in [
        r#"{"tools":{"name":"a"}}"#,
        r#"{"tools":null}"#,
        r#"{"tools":[{"name":"a"}],"Tools":[{"name":"b"}]}"#,
        r#"{"TOOLS":[{"name":"b"}]}"#,
        "{\"tool\u{17f}\":[{\"name\":\"b\"}]}",
    ] {
        assert_eq!(cut(&response(result), &["a"]), Err(Unclear), "{result}");
    }
    // A key that stands twice never comes as far as here.
    let twice = response(r#"{"tools":[],"\u0074ools":[{"name":"b"}]}"#);
    assert!(Parser::new(64).parse(twice.as_bytes()).is_err());
}

#[test]
fn what_lists_nothing_is_left_alone() {
    for raw in [
        response("{}"),
        response("7"),
        response(r#"{"content":[{"name":"a"}],"structuredContent":{"tools":[{"name":"a"}]}}"#),
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m","data":{"tools":[1]}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"tools":[1]}}"#.to_owned(),
    ] {
        assert_eq!(cut(&raw, &[]).unwrap(), raw);
    }
}

#[test]
fn a_list_that_was_cut_is_private() {
    for (scope, want) in [(r#""public""#, r#""private""#), (r#""private""#, r#""private""#), ("7", r#""private""#)] {
        for (before, after) in
            [(format!("\"cacheScope\":{scope},"), String::new()), (String::new(), format!(",\"cacheScope\":{scope}"))]
        {
            let raw = response(&format!("{{{before}\"tools\":[{{\"name\":\"b\"}}]{after}}}"));
            let expected = raw.replace(&format!(":{scope}"), &format!(":{want}")).replace("{\"name\":\"b\"}", "");
            assert_eq!(cut(&raw, &[]).unwrap(), expected);
        }
    }
}

/// A member of a list as a server might spell it.
fn member() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec![
        r#""a""#,
        r#""\u0061""#,
        r#""b""#,
        r#""\u0062""#,
        r#""a]},{""#,
        r#""a\"b""#,
        r#""A""#,
        r#""é""#,
        r#""\u00e9""#,
        r#""""#,
        "1",
        "null",
    ]);
    let key = proptest::sample::select(vec!["name", "n\\u0061me", "Name", "names", "title"]);
    let more = proptest::sample::select(vec![
        "",
        r#","inputSchema":{"type":"object","properties":{"name":{"enum":["a","]}"]}}}"#,
        r#", "description" : "]}, {\"name\":\"b\"}\\""#,
        r#","NAME":"b""#,
        r#","tools":[{"name":"c"}]"#,
    ]);
    let object = (key, name, more, blanks())
        .prop_map(|(key, name, more, blank)| format!("{{{blank}\"{key}\" :{blank}{name}{more}{blank}}}"));
    prop_oneof![8 => object, 1 => Just("null".to_owned()), 1 => Just("[{\"name\":\"a\"}]".to_owned())]
}

fn blanks() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["", " ", "\n\t", "\r\n"])
}

/// Whether a client that reads plain JSON finds an allowed tool there, and one that folds case no other.
fn is_allowed(member: &Value, allowed: &[String]) -> bool {
    let Value::Object(members) = member else { return false };
    let folds = members.keys().any(|key| key != "name" && key.eq_ignore_ascii_case("name"));
    !folds && members.get("name").and_then(Value::as_str).is_some_and(|name| allowed.iter().any(|one| one == name))
}

proptest! {
    /// Against serde_json: exactly the allowed members, each in its own bytes, and everything else as it was.
    #[test]
    fn exactly_the_allowed_subset_is_left(
        members in proptest::collection::vec((member(), blanks(), blanks()), 0..8),
        allowed in proptest::collection::vec(proptest::sample::select(vec!["a", "b", "c", "é", "a]},{", "a\"b", ""]).prop_map(str::to_owned), 0..4),
        before in proptest::sample::select(vec!["", r#""_meta":{"tools":[{"name":"b"}]},"#, r#""nextCursor":"]","#]),
        key in proptest::sample::select(vec!["tools", "\\u0074ools"]),
        after in proptest::sample::select(vec!["", r#","nextCursor":"c""#, r#", "ttlMs":5 ,"cacheScope":"private""#]),
    ) {
        let list: Vec<String> = members.iter().map(|(one, before, after)| format!("{before}{one}{after}")).collect();
        let raw = response(&format!("{{{before}\"{key}\": [{}]{after}}}", list.join(",")));
        // What has a key twice does not pass the parser.
        prop_assume!(Parser::new(64).parse(raw.as_bytes()).is_ok());
        let names: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let left = cut(&raw, &names).unwrap();

        let mut expected: Value = serde_json::from_str(&raw).unwrap();
        let tools = expected["result"]["tools"].as_array_mut().unwrap();
        tools.retain(|member| is_allowed(member, &allowed));
        prop_assert_eq!(&serde_json::from_str::<Value>(&left).unwrap(), &expected);

        let kept: Vec<&String> = members
            .iter()
            .map(|(member, ..)| member)
            .filter(|member| is_allowed(&serde_json::from_str(member).unwrap(), &allowed))
            .collect();
        let envelope = Parser::new(64).parse(left.as_bytes()).unwrap();
        let list = scan::member(left.as_bytes(), envelope.result.unwrap(), "tools").unwrap();
        let found: Vec<&str> =
            scan::elements(left.as_bytes(), list).map(|span| std::str::from_utf8(span.of(left.as_bytes())).unwrap()).collect();
        prop_assert_eq!(found, kept);
        prop_assert!(left.len() <= raw.len());
    }

    /// Whatever a server sends, and however much of it: no panic, and what is left is a message.
    #[test]
    fn any_message_is_cut_to_a_message(at in any::<prop::sample::Index>(), with in ".{0,3}") {
        let raw = response(r#"{"tools":[{"name":"a"},{"name":"b","x":[{}]},{"name":"\u0061"}],"cacheScope":"public"}"#);
        let mut hostile = raw.clone();
        let at = at.index(raw.len());
        hostile.replace_range(at..=at, &with);
        if let Ok(envelope) = Parser::new(64).parse(hostile.as_bytes()) {
            let mut edits = Vec::new();
            if keep_tools(&envelope, hostile.as_bytes(), |name, _| name == "a", &mut edits).is_ok() {
                let mut out = Vec::new();
                splice::splice(hostile.as_bytes(), &edits, &mut out).unwrap();
                prop_assert!(Parser::new(64).parse(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
            }
        }
    }
}
