// The whole example in one command: starts `partita serve`, puts a load of 10 KB to 100 MB tasks on it, records a browser
// session meanwhile, reads everything back, replays the session, and says whether it ends on the same page.
//
//   node run.mjs [--partita PATH] [--load-seconds 20]
//
// The binary: --partita, else $PARTITA_BIN, else target/release/partita, else target/debug/partita.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { once } from "node:events";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { chunks, post, sha256 } from "./client.mjs";
import { record } from "./record.mjs";
import { replay } from "./replay.mjs";

const { values: args } = parseArgs({
  options: { partita: { type: "string" }, "load-seconds": { type: "string", default: "20" } },
});
const target = path.join(import.meta.dirname, "../../target");
const candidates = [args.partita, process.env.PARTITA_BIN, path.join(target, "release/partita"), path.join(target, "debug/partita")];
const binary = candidates.find((candidate) => candidate && existsSync(candidate));
if (!binary) throw new Error("no partita binary: run `cargo build --release` first");

const home = await mkdtemp(path.join(os.tmpdir(), "partita-replay-"));
const [front, admin] = [await freePort(), await freePort()];
const url = `http://127.0.0.1:${front}`;
await writeFile(path.join(home, "partita.toml"), `[front_door]\nlisten = "127.0.0.1:${front}"\n[admin]\nlisten = "127.0.0.1:${admin}"\n`);
// To the binary a PARTITA_ variable is a setting, and this example's PARTITA_BIN is none.
const { PARTITA_BIN: _, ...env } = process.env;
const server = spawn(binary, ["serve", "--config", "partita.toml"], { cwd: home, env, stdio: ["ignore", "inherit", "inherit"] });
const ended = once(server, "exit");
try {
  await ready(`http://127.0.0.1:${admin}/readyz`);
  const stop = new AbortController();
  const loads = [1, 2, 3].map((client) => load(`load-${client}`, stop.signal));
  const session = `session-${Date.now()}`;
  const started = Date.now();
  const recorded = await record({ url, session });
  console.log(`recorded ${recorded.batches.length} batches as ${session}`);
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, started + 1000 * Number(args["load-seconds"]) - Date.now())));
  const differences = await replay({ url, session, ...recorded });
  stop.abort();
  for (const { key, sent } of await Promise.all(loads)) differences.push(...(await compare(key, sent)));
  for (const difference of differences.slice(0, 20)) console.error(difference);
  console.log(differences.length === 0 ? "PASS: replayed to the same page, the load came back whole and in order" : `FAIL: ${differences.length} differences`);
  process.exitCode = differences.length === 0 ? 0 : 1;
} finally {
  server.kill("SIGTERM");
  await ended;
  await rm(home, { recursive: true });
}

/// Posts tasks of 10 KB to 100 MB under one key, one after another, until told to stop.
async function load(key, signal) {
  const sent = [];
  while (!signal.aborted) {
    const body = randomBytes(Math.floor(10_000 * 10_000 ** Math.random()));
    await post(url, key, body);
    sent.push(sha256(body));
  }
  console.log(`${key}: ${sent.length} tasks`);
  return { key, sent };
}

/// What came back of a load, against what was sent.
async function compare(key, sent) {
  const back = (await chunks(url, key, sent.length)).map((each) => each.sha256);
  const same = back.length === sent.length && back.every((digest, i) => digest === sent[i]);
  return same ? [] : [`${key}: ${sent.length} tasks were sent, ${back.length} came back, or in another order`];
}

async function ready(address) {
  for (let attempt = 0; attempt < 300 && server.exitCode === null; attempt++) {
    const answer = await fetch(address).catch(() => undefined);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("partita did not get ready");
}

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
