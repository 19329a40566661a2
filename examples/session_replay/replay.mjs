// Reads a recorded session back through Partita, plays it with rrweb's Replayer in a real Chromium, and compares the
// page it ends on with the page that was recorded. Exit code 1 if they differ.
//
//   node replay.mjs --url http://127.0.0.1:8080 --session ID --expect DIR      (DIR: what record.mjs --out wrote)
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { describe, launch, rrwebScript } from "./browser.mjs";
import { chunk, chunks } from "./client.mjs";

/// Returns the differing lines: none means that the replay ends on the recorded page.
export async function replay({ url, session, batches, final }) {
  const listed = await chunks(url, session, batches.length);
  const payloads = [];
  for (const each of listed) payloads.push(await chunk(url, session, each));
  const differences = payloads.length === batches.length ? [] : [`${payloads.length} chunks for ${batches.length} batches`];
  batches.forEach((batch, i) => {
    if (payloads[i] && !batch.equals(payloads[i])) differences.push(`batch ${i} came back as another one`);
  });
  const replayed = await play(payloads.flatMap((payload) => JSON.parse(payload)));
  for (let i = 0; i < Math.max(final.length, replayed.length); i++) {
    if (final[i] !== replayed[i]) differences.push(`line ${i + 1}: recorded ${final[i]}\n${" ".repeat(9)}replayed ${replayed[i]}`);
  }
  return differences;
}

/// Plays the events to their end and returns the state of the page then.
async function play(events) {
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
    await page.addScriptTag({ path: rrwebScript });
    await page.evaluate((events) => new Promise((resolve) => {
      window.player = new rrweb.Replayer(events, { root: document.body, speed: 4, showWarning: true });
      window.player.on("finish", resolve);
      window.player.play();
    }), events);
    return await page.evaluate(`(${describe})(window.player.iframe.contentDocument.body)`);
  } finally {
    await browser.close();
  }
}

/// What record.mjs --out wrote.
export async function kept(folder) {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".json")).sort();
  const batches = await Promise.all(names.map((name) => readFile(path.join(folder, name))));
  const final = (await readFile(path.join(folder, "final.txt"), "utf8")).trimEnd().split("\n");
  return { batches, final };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { url: { type: "string" }, session: { type: "string" }, expect: { type: "string" } } });
  if (!values.url || !values.session || !values.expect) throw new Error("--url, --session and --expect are needed");
  const differences = await replay({ ...values, ...(await kept(values.expect)) });
  for (const difference of differences.slice(0, 20)) console.error(difference);
  console.log(differences.length === 0 ? "replayed to the same page" : `${differences.length} differences`);
  process.exitCode = differences.length === 0 ? 0 : 1;
}
