"""The official CloudEvents SDK for Python as a client of `POST /v1/tasks`."""

import json
import os
import sys
import time

import requests
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

URL = os.environ["PARTITA_URL"]


def post(message):
    answer = requests.post(f"{URL}/v1/tasks", data=message.body, headers=message.headers, timeout=30)
    assert answer.status_code == 202, (answer.status_code, answer.text)
    return answer.json()


def batch(events):
    """The SDK has nothing for batches: its structured events are JSON, and a batch is an array of them."""
    bodies = [to_structured_event(event).body for event in events]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    return HTTPMessage(headers=headers, body=b"[" + b",".join(bodies) + b"]")


def recorded(key, count):
    """What the recorder has of a key, once it has so many chunks."""
    for _ in range(300):
        answer = requests.get(f"{URL}/v1/recordings/{key}", timeout=30)
        chunks = answer.json()["chunks"] if answer.status_code == 200 else []
        if len(chunks) == count:
            content = requests.get(f"{URL}/v1/recordings/{key}/content", timeout=30).content
            return chunks, content
        time.sleep(0.1)
    raise AssertionError(f"{key} has not {count} chunks")


def main():
    key = "python session é"
    attributes = {"type": "com.example.click", "source": "/python sdk", "subject": key, "tenant": "a b%"}
    expected = []
    for number in range(20):
        event = CloudEvent({**attributes, "id": f"b-{number}"}, {"number": number})
        receipt = post(to_binary_event(event))
        assert receipt["id"] == f"b-{number}", receipt
        event = CloudEvent({**attributes, "id": f"s-{number}"}, {"number": number})
        receipt = post(to_structured_event(event))
        assert receipt["id"] == f"s-{number}", receipt
        raw = bytes([number]) * 1000
        image = {**attributes, "id": f"i-{number}", "datacontenttype": "image/png"}
        post(to_structured_event(CloudEvent(image, raw)))
        post(to_binary_event(CloudEvent({**image, "id": f"j-{number}"}, raw)))
        expected += [number, number, raw, raw]
    ids = [f"a-{number}" for number in range(3)]
    results = post(batch(CloudEvent({**attributes, "id": id}, {"number": id}) for id in ids))
    assert [(result["status"], result["id"]) for result in results["results"]] == [("accepted", id) for id in ids], results
    assert (results["accepted"], results["retry"], results["rejected"]) == (len(ids), 0, 0), results
    expected += ids
    chunks, content = recorded(requests.utils.quote(key), len(expected))
    assert [chunk["type"] for chunk in chunks] == ["com.example.click"] * len(expected)
    for chunk, payload in zip(chunks, expected):
        piece, content = content[: chunk["size"]], content[chunk["size"] :]
        if isinstance(payload, bytes):
            assert piece == payload and chunk["content_type"] == "image/png", chunk
        else:
            assert json.loads(piece) == {"number": payload}, piece
    print(f"python: {len(expected)} events, in order")


if __name__ == "__main__":
    sys.exit(main())
