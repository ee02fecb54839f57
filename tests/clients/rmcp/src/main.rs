//! Lists and calls tools with the official Rust SDK: `ringwall-client-rmcp URL TOKEN SERVER MODE`, where SERVER is everything,
//! time or fixture, and MODE is legacy (initialize) or modern (2026-07-28). Prints one JSON line a step; see run.py.
// Sampling is deprecated since 2026-07-28; servers ask for it all the same.
#![allow(deprecated)]

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, ClientConfig, CreateMessageRequestParams, CreateMessageResult, ErrorData,
    GetPromptRequestParams, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams, Role,
    SamplingMessage, SamplingMessageContentBlock,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};

/// A client with a model that always says the same, and a count of the progress it was told of.
#[derive(Clone, Default)]
struct Probe {
    progress: Arc<AtomicUsize>,
}

impl ClientHandler for Probe {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        if let Ok(capabilities) = serde_json::from_value(json!({ "sampling": {} })) {
            info.capabilities = capabilities;
        }
        info
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let said = SamplingMessage::new(Role::Assistant, SamplingMessageContentBlock::text("sampled by rmcp"));
        Ok(CreateMessageResult::new(said, "none".to_owned()))
    }

    async fn on_progress(&self, _params: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::SeqCst);
    }
}

/// Prints how a step went.
fn report<T, E: Debug>(step: &str, outcome: Result<T, E>, check: impl FnOnce(&T) -> Result<String, String>) {
    let judged = outcome.map_err(|error| format!("{error:?}")).and_then(|value| check(&value));
    let ok = judged.is_ok();
    let detail = judged.unwrap_or_else(|why| why);
    println!("{}", json!({ "step": step, "ok": ok, "detail": detail }));
}

/// `Ok` if what came, as JSON, holds `expected`.
fn holds(value: &impl serde::Serialize, expected: &str) -> Result<String, String> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    if text.contains(expected) { Ok(expected.to_owned()) } else { Err(format!("no {expected:?} in {text}")) }
}

fn call(name: &'static str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(name).with_arguments(arguments.as_object().cloned().unwrap_or_default())
}

async fn steps(client: &RunningService<RoleClient, Probe>, server: &str) {
    // A tool that is there, one that answers, with what arguments, and what the answer holds.
    let (listed, tool, arguments, expected) = match server {
        "everything" => ("get-sum", "echo", json!({"message": "through the wall"}), "through the wall"),
        "time" => ("convert_time", "get_current_time", json!({"timezone": "UTC"}), "UTC"),
        _ => ("test_error_handling", "test_simple_text", json!({}), "simple text response"),
    };
    report("tools/list", client.list_all_tools().await, |tools| holds(tools, listed));
    report("tools/call", client.call_tool(call(tool, arguments)).await, |result| holds(result, expected));
    report(
        "unknown tool",
        client.call_tool(call("no-such-tool", json!({}))).await.map_or_else(Ok, |result| {
            if result.is_error == Some(true) { Ok(rmcp::ServiceError::TransportClosed) } else { Err("it answered") }
        }),
        |_| Ok("refused".into()),
    );
    if server == "time" {
        return;
    }

    let (tool, arguments) = match server {
        "everything" => ("trigger-long-running-operation", json!({"duration": 0.6, "steps": 3})),
        _ => ("test_tool_with_progress", json!({})),
    };
    let before = client.service().progress.load(Ordering::SeqCst);
    let outcome = client.call_tool(call(tool, arguments)).await;
    // A notification is handled beside the answer, not before it.
    for _ in 0..50 {
        if client.service().progress.load(Ordering::SeqCst) - before >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = client.service().progress.load(Ordering::SeqCst) - before;
    report("progress", outcome, |_| if told == 3 { Ok("3 of 3".into()) } else { Err(format!("{told} of 3")) });

    let resources = client.list_all_resources().await;
    let first = resources.as_ref().ok().and_then(|all| all.first()).map(|one| one.uri.clone()).unwrap_or_default();
    report("resources/list", resources, |all| holds(all, "uri"));
    report("resources/read", client.read_resource(ReadResourceRequestParams::new(first.clone())).await, |read| {
        holds(read, &first)
    });
    let prompt = if server == "everything" { "simple-prompt" } else { "test_simple_prompt" };
    report("prompts/list", client.list_all_prompts().await, |all| holds(all, prompt));
    report("prompts/get", client.get_prompt(GetPromptRequestParams::new(prompt)).await, |got| holds(got, "messages"));
}

async fn sampling(client: &RunningService<RoleClient, Probe>, server: &str, modern: bool) {
    let tool = match (server, modern) {
        ("everything", _) => "trigger-sampling-request",
        ("fixture", false) => "test_sampling",
        ("fixture", true) => "test_input_required_result_sampling",
        _ => return,
    };
    let outcome = client.call_tool(call(tool, json!({"prompt": "Say something", "maxTokens": 10}))).await;
    report("sampling", outcome, |result| holds(result, "sampled by rmcp"));
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, server, mode] = arguments.as_slice() else {
        eprintln!("usage: ringwall-client-rmcp URL TOKEN SERVER MODE");
        std::process::exit(2);
    };
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
    if !token.is_empty() {
        config = config.auth_header(token.as_str());
    }
    let modern = mode == "modern";
    let lifecycle = if modern {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = match Probe::default().serve_with_lifecycle(transport, lifecycle).await {
        Ok(client) => client,
        Err(error) => return report("connect", Err::<(), _>(error), |()| Ok(String::new())),
    };
    let info = client.peer_info().map(|info| format!("{info:?}"));
    report("connect", info.ok_or("no server info"), |info| Ok(info.chars().take(60).collect()));
    steps(&client, server).await;
    sampling(&client, server, modern).await;
    report("close", client.cancel().await, |_| Ok(String::new()));
}
