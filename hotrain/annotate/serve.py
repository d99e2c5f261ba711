"""Serves one review page on this machine alone, and saves what it sends back.

Three things are served, all below a random token that only the printed address holds: the page, its verdicts, and
their replacement. No path of a request ever reaches the file system. Requests under another host's name (DNS
rebinding) or from another site's page are refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hotrain.annotate.files import write_atomic
from hotrain.annotate.review import PAGE, parse_review, review_text
from hotrain.annotate.state import VERDICTS
from hotrain.errors import AnnotateError

HOST = "127.0.0.1"
_MAX_BYTES = 16 * 2**20
_SECONDS = 30  # for a request to arrive


class ReviewServer(ThreadingHTTPServer):
    """Serves the page in an annotation's folder.

    Args:
        folder: holds `review.html`; `review.json` is written there.
        port: 0 takes a free one.
        on_save: called with the number of verdicts after each save.

    Raises:
        AnnotateError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, on_save: Callable[[int], None] = lambda verdicts: None) -> None:
        self.folder, self.on_save, self.token = folder, on_save, secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise AnnotateError(f"port {port}: {error.strerror or error}; choose another --port") from error

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"{self.origin}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "hotrain", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        route = self._route()
        if route == "":
            self._send((self.server.folder / PAGE).read_bytes(), "text/html; charset=utf-8")
        elif route == VERDICTS:
            saved = self.server.folder / VERDICTS
            self._send(saved.read_bytes() if saved.is_file() else b'{"frames": {}}', "application/json")
        elif route is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        route = self._route()
        if route is None:
            return None
        if route != VERDICTS:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        if self.headers.get("Origin", self.server.origin) != self.server.origin:
            return self._refuse(HTTPStatus.FORBIDDEN, "from another site")
        if self.headers.get_content_type() != "application/json":
            return self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self._refuse(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
        if int(length) > _MAX_BYTES:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
        try:
            found = parse_review(self.rfile.read(int(length)), "the page's review")
            write_atomic(self.server.folder / VERDICTS, review_text(found))
        except AnnotateError as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        self.server.on_save(len(found.frames))
        self._send(b"saved", "text/plain")
        return None

    def _route(self) -> str | None:
        """What follows the token; None, and an answer, where the token or the host is another."""
        own = f"{HOST}:{self.server.server_address[1]}"
        start = f"/{self.server.token}/"
        if self.headers.get("Host") != own:
            self._refuse(HTTPStatus.FORBIDDEN, "another host")
            return None
        if not secrets.compare_digest(self.path[: len(start)].encode(), start.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "no such page; open the address that hotrain review printed")
            return None
        return self.path[len(start) :]

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._send(why.encode(), "text/plain; charset=utf-8", status)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the command says what was saved."""
