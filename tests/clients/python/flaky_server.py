"""A client that is run against a server which fails in every way before it takes the task: what docs/clients.md has to paste gets through.

flaky_server.py COMMAND...: PARTITA_URL tells the command where the server is. Ends with 1 where it gave up or did what a client must not.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 60
RECEIPT = json.dumps({"id": "3-7", "topic": "t", "partition": 3, "offset": 7}).encode()
# The answers in turn, each with the pause in seconds that it has to be followed by at least: what it asks for, else what a client waits by
# itself. A date is a proxy's, and none of its business.
SCRIPT = [
    ((503, {"Retry-After": "1"}, b"{}"), 1),
    ((503, {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, b"{}"), 0.1),
    ("hangs up", 0.1),
    ("breaks off", 0.1),
    ((504, {}, b"{}"), 0.1),
    ((202, {"Content-Type": "application/json"}, RECEIPT), 0),
]
requests = []


class Flaky(BaseHTTPRequestHandler):
    """Speaks HTTP/1.0. Every request is on a connection of its own: on a used one Go's client sends the same again by itself."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        requests.append((time.monotonic(), self.path, self.headers["Idempotency-Key"], body))
        answer, _ = SCRIPT[min(len(requests), len(SCRIPT)) - 1]
        if answer == "hangs up":
            return
        if answer == "breaks off":
            answer = (202, {"Content-Length": str(len(RECEIPT))}, RECEIPT[:9])
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def run(command, port):
    """What the client printed, or why it is not known."""
    environment = os.environ | {"PARTITA_URL": f"http://127.0.0.1:{port}"}
    try:
        client = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"no end within {PATIENCE} s"
    return client.stdout.decode().strip() if client.returncode == 0 else f"exit status {client.returncode}"


def problems(printed):
    if printed != "3-7":
        yield f"it ended with {printed!r} instead of the receipt's id"
    if len(requests) != len(SCRIPT):
        yield f"it made {len(requests)} requests instead of {len(SCRIPT)}"
    if len({path for _, path, _, _ in requests}) > 1 or requests and requests[0][1] != "/v1/tasks/session%2F1":
        yield f"the paths are {[path for _, path, _, _ in requests]}"
    names = {name for _, _, name, _ in requests}
    if len(names) != 1 or None in names:
        yield f"the Idempotency-Keys are {names}"
    if {body for _, _, _, body in requests} != {b'{"event":"click"}'}:
        yield f"the bodies are {[body for _, _, _, body in requests]}"
    for (answer, least), (before, *_), (after, *_) in zip(SCRIPT, requests, requests[1:]):
        if after - before < least:
            yield f"after {answer} it paused for {after - before:.3f} s instead of {least} s"


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = list(problems(run(sys.argv[1:], server.server_port)))
    for problem in found:
        print(f"{' '.join(sys.argv[1:])}: {problem}", file=sys.stderr)
    if not found:
        print(f"{sys.argv[1]}: the same task {len(SCRIPT)} times, and a receipt")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
