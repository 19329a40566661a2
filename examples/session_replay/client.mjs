// The front door, as a client sees it.
import { createHash } from "node:crypto";

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/// Posts one task until it is durable. A 503 says that it was not written; it is repeated after Retry-After, so the order
/// of a key's tasks stands. Anything else is an error.
export async function post(url, key, body, contentType = "application/octet-stream") {
  for (;;) {
    const answer = await fetch(`${url}/v1/tasks/${encodeURIComponent(key)}`, {
      method: "POST",
      headers: { "content-type": contentType },
      body,
    });
    const text = await answer.text();
    if (answer.status === 202) return JSON.parse(text);
    if (answer.status !== 503) throw new Error(`${answer.status}: ${text}`);
    const seconds = Number(answer.headers.get("retry-after") ?? 1);
    await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(seconds, 0.1)));
  }
}

/// A key's chunks, in order, once there are at least `count` of them.
export async function chunks(url, key, count, patience = 60_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    const answer = await fetch(`${url}/v1/recordings/${encodeURIComponent(key)}`);
    if (answer.status !== 200 && answer.status !== 404) throw new Error(`${answer.status}: ${await answer.text()}`);
    const found = answer.status === 404 ? (await answer.text(), []) : (await answer.json()).chunks;
    if (found.length >= count) return found;
    if (Date.now() > deadline) throw new Error(`${key}: ${found.length} of ${count} chunks after ${patience} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/// One chunk's payload, byte for byte.
export async function chunk(url, key, { partition, offset, sha256: digest }) {
  const answer = await fetch(`${url}/v1/recordings/${encodeURIComponent(key)}/chunks/${partition}-${offset}`);
  if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
  const bytes = Buffer.from(await answer.arrayBuffer());
  if (sha256(bytes) !== digest) throw new Error(`${key} ${partition}-${offset} is not what its digest says`);
  return bytes;
}
