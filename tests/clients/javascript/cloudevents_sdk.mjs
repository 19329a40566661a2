// The official CloudEvents SDK for JavaScript as a client of `POST /v1/tasks`.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { CloudEvent, HTTP, Mode, emitterFor } from "cloudevents";

const url = process.env.PARTITA_URL;

const send = async (message) => {
  const answer = await fetch(`${url}/v1/tasks`, { method: "POST", headers: message.headers, body: message.body });
  const text = await answer.text();
  assert.equal(answer.status, 202, text);
  return JSON.parse(text);
};

const recorded = async (key, count) => {
  for (let look = 0; look < 300; look++) {
    const answer = await fetch(`${url}/v1/recordings/${encodeURIComponent(key)}`);
    const { chunks = [] } = answer.status === 200 ? await answer.json() : {};
    if (chunks.length === count) {
      const content = await fetch(`${url}/v1/recordings/${encodeURIComponent(key)}/content`);
      return [chunks, Buffer.from(await content.arrayBuffer())];
    }
    await sleep(100);
  }
  throw new Error(`${key} has not ${count} chunks`);
};

const key = "javascript/session-1";
const common = { type: "com.example.click", source: "/javascript", subject: key };
const expected = [];
const structured = emitterFor(send, { mode: Mode.STRUCTURED });
for (let number = 0; number < 20; number++) {
  const binary = HTTP.binary(new CloudEvent({ ...common, id: `b-${number}`, data: { number } }));
  assert.equal((await send(binary)).id, `b-${number}`);
  assert.equal((await structured(new CloudEvent({ ...common, id: `s-${number}`, data: { number } }))).id, `s-${number}`);
  const bytes = new Uint8Array(1000).fill(number);
  await structured(new CloudEvent({ ...common, id: `i-${number}`, datacontenttype: "image/png", data: bytes }));
  expected.push({ number }, { number }, bytes);
}
// The SDK has no serializer for batches: its events are JSON, and a batch is an array of them.
const batch = [1, 2, 3].map((number) => new CloudEvent({ ...common, id: `a-${number}`, data: { number } }));
const answer = await send({ headers: { "content-type": "application/cloudevents-batch+json" }, body: JSON.stringify(batch) });
assert.deepEqual(answer.results.map(({ status, id }) => [status, id]), batch.map(({ id }) => ["accepted", id]));
expected.push({ number: 1 }, { number: 2 }, { number: 3 });

const [chunks, content] = await recorded(key, expected.length);
let start = 0;
chunks.forEach((chunk, index) => {
  const piece = content.subarray(start, (start += chunk.size));
  if (expected[index] instanceof Uint8Array) {
    assert.deepEqual(new Uint8Array(piece), expected[index]);
    assert.equal(chunk.content_type, "image/png");
  } else {
    assert.deepEqual(JSON.parse(piece.toString()), expected[index]);
  }
});
console.log(`javascript: ${expected.length} events, in order`);
