"""A small HTTP server for tests: it serves a folder, with range requests and planned failures."""

import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not (server.has_ranges and found):
            super().do_GET()
            return
        path = self.translate_path(self.path)
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the base class hands out text
                data = file.read()
        except OSError:
            self.send_error(404)
            return
        first, last = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
        server.requests.append((first, last))
        if len(server.requests) in server.failing:
            self.send_error(503)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes" if self.server.has_ranges else "none")
        super().end_headers()

    def log_message(self, *_):
        pass


class FileServer(ThreadingHTTPServer):
    """Serves a folder on loopback; use as a context manager.

    Args:
        folder: What to serve.
        has_ranges: Whether a download may begin in the middle.
    """

    daemon_threads = True

    def __init__(self, folder, *, has_ranges=True):
        def handler(*arguments):
            return _Handler(*arguments, directory=str(folder))

        super().__init__(("127.0.0.1", 0), handler)
        self.has_ranges = has_ranges
        self.requests = []
        self.failing = set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
