//! The policy file and the command line.

use std::path::PathBuf;

use ringwall::settings::{CommandLine, Inputs, Price, Settings, Source, ToolKind, UpstreamTarget, ValueClass};

fn policy(text: &str) -> Inputs {
    Inputs { policy: Some((PathBuf::from("ringwall.toml"), text.into())), ..Inputs::default() }
}

#[test]
fn a_policy_is_read_whole() {
    let mut inputs = policy(include_str!("../../ringwall.example.toml"));
    inputs.environment.push(("MCP_CRM_KEY".into(), "unused".into()));
    let loaded = Settings::load(&inputs).unwrap_or_else(|faults| panic!("{faults}"));
    let policy = &loaded.settings.policy;
    let names: Vec<_> = policy.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["crm", "everything"]);
    let UpstreamTarget::Http(http) = &policy.upstreams[0].target else { panic!("no URL") };
    assert_eq!((http.host.as_str(), http.port, http.path_and_query.as_str()), ("127.0.0.1", 3001, "/mcp"));
    assert_eq!(policy.upstreams[0].headers[0].value.expose(), b"blue");
    let UpstreamTarget::Stdio(stdio) = &policy.upstreams[1].target else { panic!("no command") };
    assert_eq!((stdio.command[0].as_str(), stdio.max_instances), ("npx", 4));
    assert_eq!(policy.agents[0].tier.as_deref(), Some("gold"));
    assert_eq!(policy.tiers["gold"].spend_per_day_microusd, Some(50_000_000));
    let tool = policy.tool("crm", "send_sms").unwrap();
    assert_eq!((tool.kind, tool.price), (Some(ToolKind::Message), Some(Price::PerSegment { microusd: 7900 })));
    assert_eq!(tool.arguments["to"], ValueClass::Phone);
    assert_eq!(
        policy.tool("crm", "make_call").unwrap().price,
        Some(Price::PerMinute { microusd: 14_000, max_minutes: 30 })
    );
    assert!(policy.tool("crm", "other").is_none());
}

#[test]
fn a_policy_s_faults_name_their_place() {
    for (name, text, at_fault, says) in [
        ("no TOML", "[upstream\n", "ringwall.toml", "line 1"),
        ("an unknown section", "[upstreams.a]\nurl = \"http://a/\"\n", "upstreams", "did you mean upstream?"),
        (
            "an unknown key",
            "[upstream.a]\nurl = \"http://a/\"\nmax_inflight = 1\n",
            "upstream.a.max_inflight",
            "did you mean max_in_flight?",
        ),
        ("ws", "[upstream.a]\nurl = \"ws://a/\"\n", "upstream.a.url", "not supported by this version"),
        ("tcp", "[upstream.a]\nurl = \"tcp://a:1\"\n", "upstream.a.url", "not supported by this version"),
        ("neither", "[upstream.a]\n", "upstream.a.url", "is missing"),
        ("both", "[upstream.a]\nurl = \"http://a/\"\ncommand = [\"a\"]\n", "upstream.a.command", "contradicts url"),
        ("an empty command", "[upstream.a]\ncommand = []\n", "upstream.a.command", "not a command"),
        ("a command of numbers", "[upstream.a]\ncommand = [\"a\", 1]\n", "upstream.a.command", "not a command"),
        ("quotes in stdio:", "[upstream.a]\nurl = \"stdio:sh -c 'x y'\"\n", "upstream.a.url", "use command"),
        ("a name with a blank", "[upstream.\"a b\"]\nurl = \"http://a/\"\n", "upstream.a b", "name"),
        (
            "a number out of range",
            "[upstream.a]\nurl = \"http://a/\"\nmax_in_flight = 0\n",
            "upstream.a.max_in_flight",
            "not accepted",
        ),
        (
            "a variable that is not set",
            "[upstream.a]\nurl = \"http://a/\"\nheader.X-Key = { env = \"NO_SUCH\" }\n",
            "upstream.a.header.X-Key",
            "NO_SUCH is not set",
        ),
        (
            "a header of ours",
            "[upstream.a]\nurl = \"http://a/\"\nheader.Host = \"b\"\n",
            "upstream.a.header.Host",
            "sets itself",
        ),
        (
            "a header with a line break",
            "[upstream.a]\nurl = \"http://a/\"\nheader.X = \"a\\r\\nb\"\n",
            "upstream.a.header.X",
            "character",
        ),
        ("env for a URL", "[upstream.a]\nurl = \"http://a/\"\nenv.A = \"b\"\n", "upstream.a.env", "command"),
        ("a CA for plain http", "[upstream.a]\nurl = \"http://a/\"\nca_file = \"b\"\n", "upstream.a.ca_file", "https"),
        ("an agent without token", "[agent.a]\n", "agent.a.token_sha256", "is missing"),
        ("the token itself", "[agent.a]\ntoken_sha256 = \"my-token\"\n", "agent.a.token_sha256", "not accepted"),
        (
            "the hash of no token",
            "[agent.a]\ntoken_sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
            "agent.a.token_sha256",
            "not accepted",
        ),
        (
            "a tier that does not exist",
            "[agent.a]\ntoken_sha256 = \"1111111111111111111111111111111111111111111111111111111111111111\"\ntier = \"x\"\n",
            "agent.a.tier",
            "no such tier",
        ),
        (
            "one token for two",
            "[agent.a]\ntoken_sha256 = \"1111111111111111111111111111111111111111111111111111111111111111\"\n[agent.b]\ntoken_sha256 = \"1111111111111111111111111111111111111111111111111111111111111111\"\n",
            "agent.b.token_sha256",
            "agent a",
        ),
        ("a kind that does not exist", "[tool.a]\nkind = \"mesage\"\n", "tool.a.kind", "not accepted"),
        (
            "two prices",
            "[tool.a]\nprice = { fixed_usd = 1, per_segment_usd = 1 }\n",
            "tool.a.price",
            "contradicts itself",
        ),
        ("a minute without maximum", "[tool.a]\nprice = { per_minute_usd = 1 }\n", "tool.a.price", "not complete"),
        ("an upstream that does not exist", "[tool.a]\nupstream = \"x\"\n", "tool.a.upstream", "no such upstream"),
        (
            "a class that does not exist",
            "[tool.a]\narguments = { x = \"prose\" }\n",
            "tool.a.arguments.x",
            "not accepted",
        ),
    ] {
        let faults = Settings::load(&policy(text)).err().unwrap_or_else(|| panic!("{name} accepted")).faults;
        assert_eq!(faults.len(), 1, "{name}: {faults:#?}");
        assert_eq!((faults[0].name.as_str(), faults[0].source), (at_fault, Source::Policy), "{name}");
        assert!(faults[0].why.contains(says), "{name}: {}", faults[0]);
    }
}

#[test]
fn the_command_line_takes_the_place_of_the_policy_s_upstreams() {
    let mut inputs = policy("[upstream.a]\nurl = \"http://a/\"\n");
    inputs.overrides.upstream_url = Some("https://b.example/mcp?key=hidden".into());
    let loaded = Settings::load(&inputs).ok().unwrap();
    assert_eq!(loaded.settings.policy.upstreams.len(), 1);
    assert_eq!(loaded.settings.policy.upstreams[0].name, "default");
    let shown: Vec<_> = loaded.effective.iter().filter(|one| one.name.starts_with("upstream.")).collect();
    assert_eq!(
        (shown.len(), shown[0].value_shown.as_str(), shown[0].source),
        (1, "https://b.example/mcp?…", Source::CommandLine)
    );

    inputs.overrides.stdio_command = Some(vec!["x".into()]);
    let faults = Settings::load(&inputs).err().unwrap().faults;
    assert_eq!((faults.len(), faults[0].source), (1, Source::CommandLine));

    let overrides = CommandLine { upstream_url: None, stdio_command: Some(vec!["npx".into(), "--key=hidden".into()]) };
    let loaded = Settings::load(&Inputs { overrides, ..Inputs::default() }).ok().unwrap();
    assert!(
        matches!(&loaded.settings.policy.upstreams[0].target, UpstreamTarget::Stdio(stdio) if stdio.command.len() == 2)
    );
    assert!(loaded.effective.iter().all(|one| !one.value_shown.contains("hidden")));
}

#[test]
fn a_tool_s_exact_name_comes_before_patterns() {
    let text =
        "[tool.\"*\"]\nkind = \"other\"\n[tool.\"send_*\"]\nkind = \"message\"\n[tool.send_mail]\nkind = \"email\"\n";
    let policy = Settings::load(&policy(text)).ok().unwrap().settings.policy;
    for (tool, kind) in [("send_mail", ToolKind::Email), ("send_sms", ToolKind::Message), ("look_up", ToolKind::Other)]
    {
        assert_eq!(policy.tool("any", tool).and_then(|tool| tool.kind), Some(kind), "{tool}");
    }
}
