//! The policy file and the command line.

use std::path::PathBuf;

use ringwall::guard::inspect::Kind;
use ringwall::settings::{
    CommandLine, Inputs, Price, Settings, SocketTransport, Source, ToolAccess, ToolKind, ToolPattern, UpstreamTarget,
};

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
    let (agent, gold) = (&policy.agents[0].access, &policy.tiers["gold"].access);
    let everything = ToolPattern { upstream: Some("everything".into()), tool: "*".into() };
    assert_eq!(agent.tools.as_ref().unwrap()[2], everything);
    assert_eq!((agent.deny_tools.len(), &gold.tools, gold.deny_tools[0].tool.as_str()), (0, &None, "*_delete"));
    assert_eq!((&policy.principals.door, &policy.principals.agent), (gold, &ToolAccess::default()));
    assert_eq!(policy.tiers["gold"].limits.spend_per_day_microusd, Some(50_000_000));
    let tool = policy.tool("crm", "send_sms").unwrap();
    assert_eq!((tool.kind, tool.price), (Some(ToolKind::Message), Some(Price::PerSegment { microusd: 7900 })));
    assert_eq!(tool.arguments["to"], Kind::Phone);
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
        (
            "a credential for a command",
            "[upstream.a]\ncommand = [\"x\"]\ncredential = \"b\"\n",
            "upstream.a.credential",
            "with a URL",
        ),
        (
            "a credential for lines",
            "[upstream.a]\nurl = \"tcp://a:1\"\ncredential = \"b\"\n",
            "upstream.a.credential",
            "no headers",
        ),
        (
            "no credential",
            "[upstream.a]\nurl = \"http://a/\"\ncredential_as = \"basic\"\n",
            "upstream.a.credential_as",
            "has no credential",
        ),
        (
            "a way of others",
            "[upstream.a]\nurl = \"http://a/\"\ncredential = \"b\"\ncredential_as = \"digest\"\n",
            "upstream.a.credential_as",
            "not accepted",
        ),
        (
            "a header of ours",
            "[upstream.a]\nurl = \"http://a/\"\ncredential = \"b\"\ncredential_as = { header = \"Host\" }\n",
            "upstream.a.credential_as.header",
            "not accepted",
        ),
        (
            "two of one header",
            "[upstream.a]\nurl = \"http://a/\"\ncredential = \"b\"\nheader.authorization = \"x\"\n",
            "upstream.a.header.Authorization",
            "contradicts",
        ),
        (
            "a credential of no name",
            "[upstream.a]\nurl = \"http://a/\"\ncredential = \"a/b\"\n",
            "upstream.a.credential",
            "not accepted",
        ),
        ("tools that are no list", "[tier.a]\ntools = \"x\"\n", "tier.a.tools", "is not accepted"),
        ("a tool of no name", "[principal.door]\ntools = [\"\"]\n", "principal.door.tools", "entry"),
        ("a number for a tool", "[tier.a]\ndeny_tools = [7]\n", "tier.a.deny_tools", "entry"),
        ("a tool of no upstream", "[tier.a]\ntools = [{ tool = \"x\" }]\n", "tier.a.tools", "entry"),
        ("an unknown upstream's", "[tier.a]\ntools = [{ upstream = \"x\" }]\n", "tier.a.tools", "no such upstream"),
        (
            "too much of a tool",
            "[upstream.a]\nurl = \"http://a/\"\n[tier.a]\ntools = [{ upstream = \"a\", tols = \"x\" }]\n",
            "tier.a.tools.tols",
            "no such key",
        ),
        ("an unknown principal", "[principal.dor]\ntools = []\n", "principal.dor", "did you mean door?"),
        ("another key of one", "[principal.door]\ndeny = []\n", "principal.door.deny", "no such key"),
        ("a scheme of others", "[upstream.a]\nurl = \"udp://a:1\"\n", "upstream.a.url", "scheme that is not known"),
        ("another name of tls", "[upstream.a]\nurl = \"tcps://a:1\"\n", "upstream.a.url", "tls://"),
        ("lines without port", "[upstream.a]\nurl = \"tcp://a\"\n", "upstream.a.url", "has no port"),
        ("lines with a path", "[upstream.a]\nurl = \"tcp://a:1/mcp\"\n", "upstream.a.url", "path"),
        (
            "headers for lines",
            "[upstream.a]\nurl = \"tls://a:1\"\nheader.X = \"b\"\n",
            "upstream.a.header",
            "no headers",
        ),
        ("a CA for plain ws", "[upstream.a]\nurl = \"ws://a/\"\nca_file = \"b\"\n", "upstream.a.ca_file", "wss://"),
        (
            "a name for plain tcp",
            "[upstream.a]\nurl = \"tcp://a:1\"\nserver_name = \"b\"\n",
            "upstream.a.server_name",
            "tls://",
        ),
        ("env for a socket", "[upstream.a]\nurl = \"ws://a/\"\nenv.A = \"b\"\n", "upstream.a.env", "command"),
        (
            "instances of HTTP",
            "[upstream.a]\nurl = \"http://a/\"\nmax_instances = 2\n",
            "upstream.a.max_instances",
            "is not for",
        ),
        (
            "a header of the WebSocket handshake",
            "[upstream.a]\nurl = \"ws://a/\"\nheader.Sec-WebSocket-Protocol = \"b\"\n",
            "upstream.a.header.Sec-WebSocket-Protocol",
            "sets itself",
        ),
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
        ("segments of no text", "[tool.a]\nprice = { per_segment_usd = 1 }\n", "tool.a.price", "needs text"),
        ("a figure of no price", "[tool.a]\nsettle = \"/price\"\n", "tool.a.settle", "no price"),
        ("a cap of no price", "[tool.a]\nlimits = { spend_per_day_usd = 1 }\n", "tool.a.limits", "no price"),
        (
            "a price that is none",
            "[tool.a]\nprice = { fixed_usd = \"0.0000001\" }\n",
            "tool.a.price.fixed_usd",
            "not accepted",
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
fn servers_on_sockets_are_read() {
    let text = "[upstream.lines]\nurl = \"tls://mcp.internal:9500\"\nca_file = \"ca.pem\"\nserver_name = \"b\"\n\
                max_instances = 2\n[upstream.ws]\nurl = \"ws://10.0.0.5/mcp?key=hidden\"\nheader.Authorization = \"hidden\"\n";
    let loaded = Settings::load(&policy(text)).unwrap_or_else(|faults| panic!("{faults}"));
    let [lines, ws] = loaded.settings.policy.upstreams.as_slice() else { panic!("two upstreams") };
    let UpstreamTarget::Socket(socket) = &lines.target else { panic!("no socket") };
    assert_eq!((socket.scheme(), socket.transport, socket.max_instances), ("tls", SocketTransport::Lines, 2));
    assert_eq!(lines.tls.server_name.as_deref(), Some("b"));
    let UpstreamTarget::Socket(socket) = &ws.target else { panic!("no socket") };
    assert_eq!((socket.scheme(), socket.port, socket.path_and_query.as_str()), ("ws", 80, "/mcp?key=hidden"));
    assert_eq!(ws.headers[0].value.expose(), b"hidden");
    let shown = |name: &str| loaded.effective.iter().find(|one| one.name == name).unwrap().value_shown.clone();
    assert_eq!(shown("upstream.lines.url"), "tls://mcp.internal:9500");
    assert_eq!(shown("upstream.ws.url"), "ws://10.0.0.5/mcp?…");
    assert!(loaded.effective.iter().all(|one| !one.value_shown.contains("hidden")));
    let warned = |name: &str| loaded.warnings.iter().any(|warning| warning.name == name);
    assert!(warned("upstream.ws.header"), "a header that goes in clear to another machine is warned of");
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

#[test]
fn a_credential_without_a_key_is_warned_of() {
    let mut inputs = policy("[upstream.a]\nurl = \"http://a/\"\ncredential = \"b\"\n");
    let warned = |inputs: &Inputs| {
        let loaded = Settings::load(inputs).unwrap_or_else(|faults| panic!("{faults}"));
        loaded.warnings.iter().any(|warning| warning.name == "upstream.a.credential")
    };
    assert!(warned(&inputs));
    inputs.environment.push(("CREDENTIALS_ENCRYPTION_KEY".into(), "0123456789abcdef".repeat(4).into()));
    assert!(!warned(&inputs));
}
