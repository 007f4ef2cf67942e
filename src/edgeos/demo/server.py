"""The demo's web server: a page for every path, a little later. Prints a line when it is ready; ends with its stdin."""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!doctype html><title>edgeos</title>" + b"<p>one featherweight process for each client</p>\n" * 80
DELAY_SECONDS = 0.02


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and page in one segment, so that no delayed acknowledgement slows the answer
    timeout = 30

    def do_GET(self) -> None:
        time.sleep(DELAY_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that go away are part of the demo


def main() -> None:
    """Serves on the address and port given as arguments until stdin is closed, which the end of the parent does too."""
    with _Server((sys.argv[1], int(sys.argv[2])), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
