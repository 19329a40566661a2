// What recording and replaying share: a Chromium, rrweb's script, and the form in which two pages are compared.
import { chromium } from "playwright-core";
import { createRequire } from "node:module";
import path from "node:path";

const entry = createRequire(import.meta.url).resolve("rrweb");
export const rrwebScript = path.join(entry.slice(0, entry.lastIndexOf(`${path.sep}rrweb${path.sep}`)), "rrweb/umd/rrweb.min.js");

/// Starts the Chromium at $CHROMIUM (default: Debian's). Nothing is downloaded.
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
}

/// Runs in the browser: one line for each element and text of a document's body, in order, as a user would find it:
/// attributes sorted, what was typed and chosen included, scripts and styles left out, and so are the marks that the
/// replayer makes.
export function describe(body) {
  const lines = [];
  const replayed = /^rr_|^data-rr|^autocomplete$/; // the replayer sets autocomplete on every field
  const state = new Set(["value", "checked", "selected"]);
  const visit = (node, depth) => {
    if (node.nodeType === 3) {
      const text = node.data.replace(/\s+/g, " ").trim();
      if (text) lines.push(`${"  ".repeat(depth)}"${text}"`);
      return;
    }
    if (node.nodeType !== 1) return;
    const tag = node.tagName.toLowerCase();
    if (["script", "noscript", "style"].includes(tag)) return;
    const attributes = [...node.attributes]
      .filter((a) => !state.has(a.name) && !replayed.test(a.name))
      .map((a) => [a.name, a.name === "class" ? a.value.split(/\s+/).filter((c) => c && c !== ":hover").join(" ") : a.value])
      .filter(([name, value]) => name !== "class" || value !== "")
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ` ${name}=${JSON.stringify(value)}`)
      .join("");
    const isField = ["input", "textarea", "select"].includes(tag);
    const field = isField ? ` [value=${JSON.stringify(node.value)} checked=${Boolean(node.checked)}]` : "";
    lines.push(`${"  ".repeat(depth)}<${tag}${attributes}>${field}`);
    // What a textarea holds is its value, said above; its child text is only what it held at first.
    if (tag !== "textarea") for (const child of node.childNodes) visit(child, depth + 1);
  };
  visit(body, 0);
  return lines;
}
