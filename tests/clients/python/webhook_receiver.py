"""A service that gets its tasks delivered: it checks each with the official libraries and keeps the order of each key."""

import json
import os
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook

KEYS, TASKS = 12, 25
url = os.environ["PARTITA_URL"]
webhook = Webhook(os.environ["SECRET"])
done, seen, lock = {}, {}, threading.Lock()
problems = []


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            status, headers = self.receive(dict(self.headers), body)
        except Exception as error:  # noqa: BLE001
            problems.append(repr(error))
            status, headers = 422, {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def receive(self, headers, body):
        webhook.verify(body, {name.lower(): value for name, value in headers.items()})
        event = from_http_event(HTTPMessage(headers={name.lower(): value for name, value in headers.items()}, body=body))
        key, number = event.get_extension("partitionkey"), event.get_data()["number"]
        assert event.get_source() == "/python" and event.get_type() == "com.example.count", event
        assert event.get_id() == f"{key}/{number}" and event.get_extension("tenant") == "a b%", event
        with lock:
            tries = seen[(key, number)] = seen.get((key, number), 0) + 1
            # Some are told to come again, in both ways; one of a key is refused for good.
            if number % 10 == 3 and tries == 1:
                return 503, {"Retry-After": "1"}
            if number % 10 == 7 and tries < 3:
                return 500, {}
            if number == 11:
                return 422, {}
            done.setdefault(key, []).append(number)
            return 204, {}

    def log_message(self, *_):
        pass


def post(key, number):
    data = json.dumps({"number": number}).encode()
    request = urllib.request.Request(f"{url}/v1/tasks", data, {
        "ce-specversion": "1.0", "ce-id": f"{key}/{number}", "ce-source": "/python", "ce-type": "com.example.count",
        "ce-partitionkey": key, "ce-tenant": "a%20b%25", "Content-Type": "application/json",
    })
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def state(receipt):
    place = f"{receipt['partition']}-{receipt['offset']}"
    with urllib.request.urlopen(f"{url}/v1/tasks/{place}?wait=done&timeout=60s") as answer:
        return json.load(answer)


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver)
receipts = {}
for number in range(TASKS):
    for key in range(KEYS):
        receipts[(key, number)] = post(f"counter-{key}", number)
# Only now: until then the service was away, and tasks waited for it.
time.sleep(1)
threading.Thread(target=server.serve_forever, daemon=True).start()
for (key, number), receipt in receipts.items():
    told = state(receipt)
    expected = "rejected" if number == 11 else "done"
    assert told["state"] == expected, (key, number, told)
    assert expected == "done" or "422" in told["reason"], told
assert not problems, problems
expected = [number for number in range(TASKS) if number != 11]
for key in range(KEYS):
    assert done[f"counter-{key}"] == expected, (key, done[f"counter-{key}"])
print(f"python receiver: {KEYS * TASKS} tasks delivered, each key in order", file=sys.stderr)
