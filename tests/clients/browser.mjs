// Opens browser_page.html in headless Chromium and prints what it has done: node browser.mjs CHROMIUM URL TOKEN PAGE ORIGIN
//
// The page is served here, on port 3000 where that is free. ORIGIN is the name that the page is opened under; every name means this
// machine. Prints one JSON line a step; see run.py.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const [executablePath, url, token, page, host] = process.argv.slice(2);
const html = await readFile(page);
const server = createServer((_, response) => response.setHeader("Content-Type", "text/html").end(html));
const listen = (port) =>
  new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server.address().port));
  });
const port = await listen(3000).catch(() => listen(0));

const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const rules = `--host-resolver-rules=MAP ${host} 127.0.0.1`;
const browser = await chromium.launch({ executablePath, headless: true, args: [...quiet, rules] });
try {
  const tab = await browser.newPage();
  await tab.goto(`http://${host}:${port}/#${encodeURIComponent(JSON.stringify({ url, token }))}`);
  await tab.waitForFunction(() => document.title !== "running", undefined, { timeout: 60_000 });
  console.log((await tab.textContent("#steps")).trim());
} finally {
  await browser.close();
  server.close();
}
