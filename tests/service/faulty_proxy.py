"""A proxy in front of an S3 server that fails on demand: answers in the server's place, falls silent, loses replies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Fault = int | str
"""An HTTP status to answer with, `silence` (no answer until the client gives up), or `lost` (done, but no reply)."""
Rule = Callable[[str, str], Fault | None]
"""Given method and target of a request: what goes wrong with it; None: nothing."""

HOP = {"connection", "transfer-encoding", "keep-alive"}


class FaultyProxy(ThreadingHTTPServer):
    """A proxy.

    Attributes:
        rule: What goes wrong; asked for each request.
        before: Called before a request is passed on.
    """

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.rule: Rule = lambda _method, _target: None
        self.before: Callable[[str, str], None] = lambda _method, _target: None
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        """The URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run one."""
    server = FaultyProxy(upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.before(self.command, self.path)
        fault = self.server.rule(self.command, self.path)
        if fault == "silence":
            while not self.server.closing.wait(0.05) and not self._given_up():
                time.sleep(0.05)
            self.close_connection = True
            return
        if isinstance(fault, int):
            self._answer(fault, {}, b"<Error><Code>InternalError</Code></Error>")
            return
        with closing(HTTPConnection(*self.server.upstream, timeout=30)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the host, too: it is signed
                connection.putheader(name, value)
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was said: the answer counts
                connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(answer.status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the library's names

    def _given_up(self) -> bool:
        """Has the client closed the connection?"""
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        length = headers.pop("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
