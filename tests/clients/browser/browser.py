"""Two servers, a page of an origin that they know and one of an origin that they do not, and a browser that opens both."""

import contextlib
import hashlib
import json
import os
import pathlib
import queue
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path(__file__).parent
PATIENCE = 60
reports = queue.Queue()


def free_port():
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Site(BaseHTTPRequestHandler):
    """Serves the page, and takes what the page found."""

    page = b""

    def do_GET(self):
        known = self.path.startswith("/page")
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if known:
            self.wfile.write(self.page)

    def do_POST(self):
        reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def partita(servers, home, origin, **settings):
    """Starts a server that knows the origin, and adds it to the others; returns where it is."""
    front = free_port()
    settings |= {
        "PARTITA_FRONT_DOOR__LISTEN": f"127.0.0.1:{front}",
        "PARTITA_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        "PARTITA_FRONT_DOOR__CORS_ORIGINS": f"https://example.com, {origin}",
    }
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARTITA")}
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [os.environ["PARTITA"], "serve"], cwd=home, env=environment | settings, stdout=log, stderr=log
        )
    servers.append(server)
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", front)):
            return f"http://127.0.0.1:{front}"
        time.sleep(0.1)
    sys.exit("the server does not listen")


def visit(url, profile, then=lambda: None):
    """Opens a page and returns what it reports, and what is so `then`, before the browser is gone."""
    browser = subprocess.Popen(
        [os.environ["CHROMIUM"], "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return reports.get(timeout=PATIENCE), then()
    except queue.Empty:
        sys.exit(f"{url}: the browser has reported nothing within {PATIENCE} s")
    finally:
        browser.kill()
        browser.wait()


def recorded(url, key):
    try:
        with urllib.request.urlopen(f"{url}/v1/recordings/{key}") as answer:
            return json.load(answer)["chunks"]
    except urllib.error.HTTPError:
        return []


def recorded_soon(url, key, count):
    """What a browser sends by itself comes when it comes."""
    until = time.monotonic() + 10
    while len(chunks := recorded(url, key)) < count and time.monotonic() < until:
        time.sleep(0.1)
    return chunks


def content(url, key):
    with urllib.request.urlopen(f"{url}/v1/recordings/{key}/content") as answer:
        return answer.read().decode()


def last_words(url):
    """What came of what a page sends at its end, and of a beacon."""
    # One task of the session is from when the page was opened.
    recorded_soon(url, "session%2F1", 3)
    return content(url, "session%2F1"), recorded_soon(url, "beacon-text", 1)


def snippet(page, language):
    return re.search(f"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]


def main():
    docs = pathlib.Path(sys.argv[1]).read_text()
    # What is for Node as well is marked `javascript`, what is for a page alone `js`.
    pasted, last = snippet(docs, "javascript"), snippet(docs, "js")
    home, servers, failed = pathlib.Path(tempfile.mkdtemp()), [], ["the run came to no end"]
    try:
        known, foreign, token = site(), site(), secrets.token_hex(16)
        open_to_all = partita(servers, home / "open", known)
        guarded = partita(servers, home / "guarded", known, PARTITA_FRONT_DOOR__TOKEN=token)
        given = {"open": open_to_all, "guarded": guarded, "token": token, "known": known}
        page = (HERE / "page.html").read_text()
        page = page.replace("/*GIVEN*/", json.dumps(given)).replace("/*PASTED*/", pasted).replace("/*LAST*/", last)
        Site.page = page.encode()

        def judge(what, ok, detail=""):
            print(f"{'ok    ' if ok else 'FAILED'} {what}{'' if ok else f': {detail}'}")
            if not ok:
                failed.append(what)

        of_known, (session, beacon) = visit(f"{known}/page", home / "profile-known", lambda: last_words(open_to_all))
        of_foreign, _ = visit(f"{foreign}/page", home / "profile-foreign")
        for found in of_known + of_foreign:
            judge(found["what"], found["ok"], found.get("detail"))
        for way in ("fetch", "beacon"):
            judge(f"the task is stored that the page sent at its end by {way}", session.count(f'"by":"{way}"') == 1, session)
        judge("a beacon of text is stored", len(beacon) == 1, beacon)
        refused = recorded(open_to_all, "beacon-json")
        judge("a beacon of JSON is not: its preflight is refused", refused == [], refused)
        large = recorded(open_to_all, "large")
        digest = hashlib.sha256(bytes(20_000_000)).hexdigest()
        judge("20 MB are stored byte for byte", [chunk["sha256"] for chunk in large] == [digest], large)
        packed = recorded(open_to_all, "packed")
        judge("what the page compressed is stored as it was before", [chunk["size"] for chunk in packed] == [100_000], packed)
        stored = recorded(open_to_all, "foreign")
        judge("nothing of a foreign page is stored that a preflight protects", stored == [], stored)
        del failed[0]
    finally:
        for server in servers:
            server.kill()
            server.wait()
        if failed:
            for log in home.glob("*/log"):
                print(log.read_text()[-4000:], file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
    sys.exit(f"{len(failed)} of a browser's expectations failed" if failed else 0)


main()
