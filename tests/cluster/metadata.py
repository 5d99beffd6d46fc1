"""What stands in for the metadata service of an AWS machine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Metadata:
    """Where it answers, and the time of the end that is announced, as AWS writes it, if any."""

    def __init__(self) -> None:
        self.url = ""
        self.end: str | None = None


@contextlib.contextmanager
def metadata_service() -> Iterator[Metadata]:
    """Answer as version 2 of the service: to a token of its own alone, 404 until there is news."""
    about = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200 if self.path == "/latest/api/token" else 404, "token")

        def do_GET(self) -> None:
            if self.headers["X-aws-ec2-metadata-token"] != "token":
                return self._answer(401, "")
            known = self.path == "/latest/meta-data/spot/instance-action" and about.end
            action = {"action": "terminate", "time": about.end}
            return self._answer(200 if known else 404, json.dumps(action))

        def _answer(self, code: int, content: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    about.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield about
    finally:
        server.shutdown()
        server.server_close()
