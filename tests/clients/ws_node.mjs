// Speaks MCP over a WebSocket with the npm package `ws`: node ws_node.mjs URL TOKEN MODE
//
// MODE says how the token is shown: `header` (Authorization of the upgrade) or `subprotocol` (`bearer.TOKEN` beside `mcp`). `refused`
// shows one that must not be let in, both ways. Prints one JSON line a step: {"step", "ok", "detail"}; see run.py.

import assert from "node:assert/strict";
import { once } from "node:events";
import WebSocket from "ws";

const [url, token, mode] = process.argv.slice(2);
const text = "through the wall";

async function step(name, work) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("not done after 30 s")), 30_000)));
  try {
    console.log(JSON.stringify({ step: name, ok: true, detail: `${await Promise.race([work(), late])}` }));
  } catch (error) {
    console.log(JSON.stringify({ step: name, ok: false, detail: `${error?.message ?? error}`.slice(0, 400) }));
  }
  clearTimeout(timer);
}

function open(how) {
  const inHeader = how === "header";
  const socket = inHeader ? new WebSocket(url, { headers: { Authorization: `Bearer ${token}` } }) : new WebSocket(url, ["mcp", `bearer.${token}`]);
  socket.on("error", () => {}); // told by what is awaited
  return socket;
}

function refusal(how) {
  return new Promise((resolve, reject) => {
    const socket = open(how);
    socket.on("open", () => reject(new Error("it was let in")));
    socket.on("unexpected-response", (request, response) => {
      request.destroy();
      resolve(response.statusCode);
    });
  });
}

if (mode === "refused") {
  for (const [name, how] of [["header", "header"], ["close", "subprotocol"]]) {
    await step(name, async () => {
      const status = await refusal(how);
      assert.ok([401, 403].includes(status), `${status}`);
      return status;
    });
  }
  process.exit(0);
}

const socket = open(mode);
const waiting = new Map();
let lastId = 0;
socket.on("message", (data, isBinary) => {
  const answer = JSON.parse(data);
  assert.ok(!isBinary);
  waiting.get(answer.id)?.(answer);
  waiting.delete(answer.id);
});

function ask(method, params = {}) {
  const id = ++lastId;
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
  });
}

const call = (name, args) => ask("tools/call", { name, arguments: args });

await step("connect", async () => {
  await once(socket, "open");
  assert.equal(socket.protocol, mode === "subprotocol" ? "mcp" : "");
  assert.equal(socket.extensions, "", "compression is declined");
  return socket.protocol || "no subprotocol";
});
await step("initialize", async () => {
  const clientInfo = { name: "ws", version: "1" };
  const { result } = await ask("initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo });
  socket.send(JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" }));
  return result.serverInfo.name;
});
await step("tools/list", async () => {
  const names = (await ask("tools/list")).result.tools.map((tool) => tool.name);
  assert.ok(names.includes("echo"), `${names}`);
  return names;
});
await step("tools/call", async () => {
  const answer = await call("echo", { text });
  assert.ok(JSON.stringify(answer.result).includes(text), JSON.stringify(answer));
  return text;
});
await step("50 at once", async () => {
  const all = await Promise.all(Array.from({ length: 50 }, (_, number) => call("echo", { text: `text ${number}.` })));
  all.forEach((answer, number) => assert.ok(JSON.stringify(answer.result).includes(`text ${number}.`), JSON.stringify(answer)));
  return "50 answers";
});
await step("unknown tool", async () => {
  const answer = await call("no-such-tool", {});
  assert.ok(answer.error || answer.result.isError, JSON.stringify(answer));
  return "refused";
});
await step("ping", async () => {
  socket.ping("there");
  const [payload] = await once(socket, "pong");
  assert.equal(payload.toString(), "there");
  return "pong";
});
await step("close", async () => {
  socket.close(1000);
  const [code] = await once(socket, "close");
  assert.equal(code, 1000);
  return code;
});
process.exit(0);
