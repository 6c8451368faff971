"""The page and its answers over HTTP, for people on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from thinking_rl.report.pictures import KINDS, picture_file
from thinking_rl.report.view.answers import annotate, answer, run_of
from thinking_rl.report.view.run import RunView

PAGE = Path(__file__).with_name("page.html")
INDEX_EVERY_S = 1.0
INDEX_AT_ONCE = 2000
"""Responses that are taken into one run's index before the next run's turn."""
LARGEST_NOTE_BYTES = 100_000
COOKIE = "thinking_rl_token"
INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Server(ThreadingHTTPServer):
    """Serves some runs until it is shut down."""

    daemon_threads = True

    def __init__(
        self, runs: Sequence[RunView], host: str = "127.0.0.1", port: int = 0, token: str = ""
    ) -> None:
        """
        Args:
            port: 0: any that is free.
            token: what a visitor must know; needed where `host` is not this machine alone.

        Raises:
            ValueError: another host without a token.
            OSError: the port is taken.
        """
        if not is_loopback(host) and not token:
            raise ValueError(
                f"host {host} can be reached from other machines: give a --token that visitors "
                "must know, or leave --host out"
            )
        self.runs, self.token = runs, token
        self.page = PAGE.read_bytes()
        self.policy = content_policy(self.page.decode())
        super().__init__((host, port), Handler)
        self._closing = threading.Event()
        threading.Thread(target=self._index, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self.server_address[:2]
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")

    def _index(self) -> None:
        """Follow what the runs write."""
        while not self._closing.is_set():
            done = [run.index.update(INDEX_AT_ONCE) for run in self.runs]
            if all(done):
                self._closing.wait(INDEX_EVERY_S)
            else:
                time.sleep(0.01)  # lets requests come in between

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who left in the middle is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        self._closing.set()
        super().server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """The page, an answer, or a picture."""
        url = urlsplit(self.path)
        asked = dict(parse_qsl(url.query))
        if not self._may(asked):
            return
        if url.path == "/":
            self._send(200, self.server.page, "text/html; charset=utf-8")
        elif url.path.startswith("/api/"):
            self._answer(lambda: answer(self.server.runs, url.path.removeprefix("/api/"), asked))
        elif url.path.startswith("/images/"):
            self._picture(url.path.removeprefix("/images/"), asked)
        else:
            self._send(404, b"not here", "text/plain")

    def do_POST(self) -> None:
        """A note."""
        if not self._may({}):
            return
        size = int(self.headers.get("Content-Length") or 0)
        same = urlsplit(self.headers.get("Origin") or "").netloc in ("", self.headers.get("Host"))
        is_json = self.headers.get_content_type() == "application/json"
        if not (same and is_json and 0 < size <= LARGEST_NOTE_BYTES):
            self.close_connection = True
            self._send(403, b"a note comes from the page itself, as JSON", "text/plain")
            return
        body = self.rfile.read(size)
        self._answer(lambda: annotate(self.server.runs, json.loads(body)))

    def _may(self, asked: dict[str, str]) -> bool:
        """Whether the visitor may ask at all; where not, the visitor has been told.

        On this machine alone, the name by which the server is called must be this machine's: a page
        from elsewhere can have its own name point here.
        """
        if self.server.token:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
            given = (asked.get("token", ""), cookie.value if cookie else "")
            allowed = any(
                hmac.compare_digest(one.encode(), self.server.token.encode()) for one in given
            )
        else:
            allowed = is_loopback(urlsplit(f"//{self.headers.get('Host', '')}").hostname or "")
        if not allowed:
            self.close_connection = True
            self._send(403, b"not allowed: open the address that the command printed", "text/plain")
        return allowed

    def _answer(self, call: Any) -> None:
        try:
            value = call()
        except (ValueError, KeyError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            self._send(400, json.dumps({"error": reason}).encode(), "application/json")
        else:
            body = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
            self._send(200, body, "application/json")

    def _picture(self, key: str, asked: dict[str, str]) -> None:
        try:
            file = picture_file(run_of(self.server.runs, asked).folder, key)
        except ValueError:
            file = None
        if file is None:
            self._send(404, b"no such picture", "text/plain")
        else:
            self._send(200, file.read_bytes(), KINDS[file.suffix[1:]][0], "max-age=86400")

    def _send(self, status: int, body: bytes, kind: str, cache: str = "no-store") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": cache,
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if self.server.token and status == 200:
            headers["Set-Cookie"] = f"{COOKIE}={self.server.token}; HttpOnly; SameSite=Strict"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the console is for what matters."""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, and no other's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def content_policy(page: str) -> str:
    """What a browser lets the page do: its own script by its hash, pictures and answers from its
    own server, nothing from elsewhere."""
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in INLINE.findall(page)
    ]
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
