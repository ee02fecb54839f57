// Lists and calls tools with the official TypeScript SDKs: node npm_client.mjs SDK URL TOKEN SERVER MODE
//
// SDK is v1 (@modelcontextprotocol/sdk) or v2 (@modelcontextprotocol/client), SERVER one of everything-stdio, everything-http,
// time-stdio, fixture-stdio, fixture-http, MODE legacy (initialize) or modern (2026-07-28; v2 alone has it).
// Prints one JSON line a step: {"step", "ok", "detail"}; see run.py.

import assert from "node:assert/strict";

const [sdk, url, token, server, mode] = process.argv.slice(2);
const modern = mode === "modern";
const [kind, transport] = server.split("-");
const requestInit = token ? { headers: { Authorization: `Bearer ${token}` } } : {};
const sampled = { model: "none", role: "assistant", content: { type: "text", text: "sampled by npm" } };

async function step(name, work) {
  try {
    const detail = await work();
    console.log(JSON.stringify({ step: name, ok: true, detail: detail ?? "" }));
  } catch (error) {
    console.log(JSON.stringify({ step: name, ok: false, detail: `${error?.message ?? error}`.slice(0, 400) }));
  }
}

function holds(value, expected) {
  const text = JSON.stringify(value);
  assert.ok(text.includes(expected), `no ${expected} in ${text.slice(0, 300)}`);
  return expected;
}

/** What differs between the two SDKs. */
async function load() {
  if (sdk === "v1") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const types = await import("@modelcontextprotocol/sdk/types.js");
    return {
      make: (capabilities) => new Client({ name: "npm-v1", version: "1" }, { capabilities }),
      transport: (options) => new StreamableHTTPClientTransport(new URL(url), { requestInit, ...options }),
      call: (client, params, options) => client.callTool(params, undefined, options),
      request: (client, request, options) => client.request(request, types.CallToolResultSchema, options),
      onRequest: (client, method, handler) =>
        client.setRequestHandler(
          { "sampling/createMessage": types.CreateMessageRequestSchema, "roots/list": types.ListRootsRequestSchema }[method],
          handler,
        ),
      onLog: (client, handler) => client.setNotificationHandler(types.LoggingMessageNotificationSchema, handler),
    };
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const versionNegotiation = { mode: modern ? { pin: "2026-07-28" } : "legacy" };
  return {
    make: (capabilities) => new Client({ name: "npm-v2", version: "1" }, { capabilities, versionNegotiation }),
    transport: (options) => new StreamableHTTPClientTransport(new URL(url), { requestInit, ...options }),
    call: (client, params, options) => client.callTool(params, options),
    onRequest: (client, method, handler) => client.setRequestHandler(method, handler),
    onLog: (client, handler) => client.setNotificationHandler("notifications/message", handler),
  };
}

const api = await load();
const capabilities = { sampling: {}, roots: { listChanged: true } };
const client = api.make(capabilities);
const logs = [];
api.onRequest(client, "sampling/createMessage", async () => sampled);
api.onRequest(client, "roots/list", async () => ({ roots: [{ uri: "file:///probe", name: "probe" }] }));
api.onLog(client, (notification) => logs.push(notification.params));

const call = (name, args = {}, options = undefined) => api.call(client, { name, arguments: args }, options);

const cases = {
  everything: { tool: "echo", args: { message: "through the wall" }, says: "through the wall", listed: "get-sum" },
  time: { tool: "get_current_time", args: { timezone: "UTC" }, says: "UTC", listed: "convert_time" },
  fixture: { tool: "test_simple_text", args: {}, says: "simple text response", listed: "test_error_handling" },
}[kind];
const slow = kind === "everything" ? ["trigger-long-running-operation", { duration: 0.6, steps: 3 }] : ["test_tool_with_progress", {}];

let connected = false;
await step("connect", async () => {
  await client.connect(api.transport());
  connected = true;
  return client.getServerVersion()?.name ?? "";
});
if (!connected) process.exit(0);

await step("tools/list", async () => holds(await client.listTools(), cases.listed));
await step("tools/call", async () => holds(await call(cases.tool, cases.args), cases.says));
await step("unknown tool", async () => {
  let refused = false;
  try {
    refused = (await call("no-such-tool")).isError === true;
  } catch {
    refused = true;
  }
  assert.ok(refused);
  return "refused";
});
await step("50 at once", async () => {
  const all = await Promise.all(Array.from({ length: 50 }, () => call(cases.tool, cases.args)));
  all.forEach((result) => holds(result, cases.says));
  return "50 answers";
});

if (kind !== "time") {
  await step("progress", async () => {
    const seen = [];
    await call(...slow, { onprogress: (progress) => seen.push(progress.progress) });
    assert.equal(seen.length, 3);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    return "3 of 3, in order";
  });
  await step("two with progress", async () => {
    const counts = [0, 0];
    await Promise.all(counts.map((_, index) => call(...slow, { onprogress: () => counts[index]++ })));
    assert.deepEqual(counts, [3, 3]);
    return "3 and 3";
  });
  await step("cancel", async () => {
    const stop = new AbortController();
    const long = kind === "everything" ? ["trigger-long-running-operation", { duration: 20, steps: 2 }] : slow;
    const pending = call(...long, { signal: stop.signal });
    setTimeout(() => stop.abort("enough"), kind === "everything" ? 300 : 20);
    await assert.rejects(pending);
    holds(await call(cases.tool, cases.args), cases.says);
    return "and the next call works";
  });
  await step("resources", async () => {
    const { resources } = await client.listResources();
    return holds(await client.readResource({ uri: resources[0].uri }), resources[0].uri);
  });
  await step("prompts", async () => {
    const prompt = kind === "everything" ? "simple-prompt" : "test_simple_prompt";
    holds(await client.listPrompts(), prompt);
    return holds(await client.getPrompt({ name: prompt }), "messages");
  });
  if (kind === "fixture") {
    await step("completion", async () => {
      const ref = { type: "ref/prompt", name: "test_prompt_with_arguments" };
      return holds(await client.complete({ ref, argument: { name: "arg1", value: "par" } }), "paris");
    });
  }
  await step("sampling", async () => {
    const tool = kind === "everything" ? "trigger-sampling-request" : modern ? "test_input_required_result_sampling" : "test_sampling";
    return holds(await call(tool, { prompt: "Say something", maxTokens: 10 }), "sampled by npm");
  });
  if (kind === "everything") {
    await step("roots", async () => holds(await call("get-roots-list"), "file:///probe"));
  } else if (modern) {
    await step("roots", async () => holds(await call("test_input_required_result_list_roots"), "file:///probe"));
  }
  if (!modern) {
    await step("logs", async () => {
      if (kind === "everything") {
        await client.setLoggingLevel("debug");
        await call("toggle-simulated-logging");
        await new Promise((resolve) => setTimeout(resolve, 500));
        await call("toggle-simulated-logging");
      } else {
        await call("test_tool_with_logging");
      }
      assert.ok(logs.length >= 1, "no log came");
      return "came";
    });
  }
}

// A call whose client loses its connection goes on on the server: a second connection with the same session takes it up.
if (sdk === "v1" && kind === "everything" && transport === "http") {
  await step("resume", async () => {
    const first = api.make(capabilities);
    const firstTransport = api.transport();
    await first.connect(firstTransport);
    let last;
    let seen = 0;
    const params = { name: "trigger-long-running-operation", arguments: { duration: 2, steps: 4 }, _meta: { progressToken: "resumed" } };
    const options = { onresumptiontoken: (id) => { last = id; seen++; }, timeout: 10_000 };
    const lost = api.request(first, { method: "tools/call", params }, options).catch(() => "lost");
    while (seen < 2) await new Promise((resolve) => setTimeout(resolve, 20));
    const sessionId = firstTransport.sessionId;
    await first.close(); // no DELETE: the session lives on
    assert.equal(await lost, "lost");
    // server-everything's store replays what is there; it does not go on with a call that is still under way.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const second = api.make(capabilities);
    await second.connect(api.transport({ sessionId }));
    const request = { method: "tools/call", params };
    const result = await api.request(second, request, { resumptionToken: last, onresumptiontoken: () => {}, timeout: 10_000 });
    await second.close();
    return holds(result, "Long running operation completed");
  });
}
// The server ends the stream half way; the SDK comes back with Last-Event-ID by itself.
if (kind === "fixture" && transport === "http" && !modern) {
  await step("resume", async () => holds(await call("test_reconnection"), "Still here"));
}
await step("close", async () => {
  await client.transport?.terminateSession?.();
  await client.close();
});
process.exit(0);
