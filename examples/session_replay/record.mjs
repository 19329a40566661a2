// Opens the shop in a real Chromium, uses it, and posts what rrweb records: a batch of events is a task, the session's
// id is its key.
//
//   node record.mjs --url http://127.0.0.1:8080 --session ID [--out DIR]
//
// With --out the batches are kept as they were sent (000.json, …) beside the page's last state (final.txt).
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { describe, launch, rrwebScript } from "./browser.mjs";
import { post } from "./client.mjs";

/// Records one session and returns { batches, final }: what was sent, and the page's last state.
export async function record({ url, session, out }) {
  const shop = await serveShop();
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 1100, height: 720 } });
    await page.goto(`http://127.0.0.1:${shop.address().port}/index.html`);
    await page.addScriptTag({ path: rrwebScript });
    await page.evaluate(() => {
      window.recorded = [];
      rrweb.record({ emit: (event) => window.recorded.push(event), sampling: { mousemove: 20 } });
    });
    const batches = [];
    const send = async () => {
      const events = await page.evaluate(() => window.recorded.splice(0));
      if (events.length === 0) return;
      const batch = Buffer.from(JSON.stringify(events));
      await post(url, session, batch, "application/json");
      batches.push(batch);
    };
    await use(page, send);
    await settled(page);
    await send();
    const final = await page.evaluate(`(${describe})(document.body)`);
    if (out) await keep(out, batches, final);
    return { batches, final };
  } finally {
    await browser.close();
    shop.close();
  }
}

/// One visit to the shop. `send` is called after every few actions, as a page would on a timer.
async function use(page, send) {
  const work = (id) => page.locator(`[data-work="${id}"]`);
  await send();
  for (const id of [0, 1, 4]) await work(id).locator(".look").click();
  for (const id of [0, 2, 2, 5]) await work(id).locator(".buy").click();
  await send();
  await page.fill("#filter", "");
  await page.locator("#filter").pressSequentially("partita", { delay: 15 });
  await page.locator("#shelf .buy:enabled").first().click();
  await send();
  await page.locator("#filter").fill("");
  for (const order of ["price", "composer"]) {
    await page.selectOption("#sort", order);
    await page.locator("#shelf .look").nth(7).click();
    await send();
  }
  await page.check("#in-print");
  for (let y = 100; y <= 900; y += 200) {
    await page.locator("#shelf").evaluate((shelf, top) => shelf.scrollTo(0, top), y);
    await page.mouse.move(100 + y / 2, 300 + y / 9, { steps: 12 });
  }
  await work(20).locator(".buy").click();
  await send();
  await page.locator("#basket button").nth(1).click();
  await page.locator("#name").pressSequentially("Anna Magdalena", { delay: 10 });
  await page.locator("#note").pressSequentially("Please, large print.\nAnd no page turns in the gigue.", { delay: 5 });
  await page.check("[value=collect]");
  await send();
  await page.click("form button");
  await page.uncheck("#in-print");
}

/// Waits until the page has painted and rrweb's throttled observers have emitted what they held back.
function settled(page) {
  return page.evaluate(async () => {
    let seen;
    do {
      seen = window.recorded.length;
      await new Promise((resolve) => setTimeout(resolve, 600));
    } while (window.recorded.length !== seen);
  });
}

async function serveShop() {
  const folder = path.join(import.meta.dirname, "page");
  const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
  const server = createServer(async (request, response) => {
    const name = path.basename(request.url);
    try {
      const body = await readFile(path.join(folder, name));
      response.writeHead(200, { "content-type": types[path.extname(name)] }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

async function keep(out, batches, final) {
  await mkdir(out, { recursive: true });
  await Promise.all(batches.map((batch, i) => writeFile(path.join(out, `${String(i).padStart(3, "0")}.json`), batch)));
  await writeFile(path.join(out, "final.txt"), final.join("\n") + "\n");
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { url: { type: "string" }, session: { type: "string" }, out: { type: "string" } } });
  if (!values.url || !values.session) throw new Error("--url and --session are needed");
  const { batches } = await record(values);
  console.log(`${batches.length} batches, ${batches.reduce((sum, b) => sum + b.length, 0)} bytes`);
}
