"""What the embedded server counts, in the names and the text that TensorFlow Serving gives Prometheus."""

import bisect
import collections
import http.server
import threading

PATH = "/monitoring/prometheus/metrics"
COUNT, LATENCY = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
BUCKETS = [10.0 * 1.8**i for i in range(33)]
"""Upper bounds of latencies, in microseconds, as TensorFlow Serving's."""


class Counters:
    """Requests by model and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._latencies: dict[tuple[str, str], list[int]] = {}
        self._sums: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, model: str, api: str, status: str, seconds: float) -> None:
        """A request that was answered or refused."""
        micros = int(1e6 * seconds)
        with self._lock:
            self._counts[model, status] += 1
            held = self._latencies.setdefault((model, api), [0] * (len(BUCKETS) + 1))
            held[bisect.bisect_left(BUCKETS, micros)] += 1
            self._sums[model, api] += micros

    def text(self) -> str:
        """In Prometheus' format."""
        with self._lock:
            lines = [f"# TYPE {COUNT} counter"]
            lines += [
                f'{COUNT}{{model_name="{_quoted(model)}",status="{status}"}} {count}'
                for (model, status), count in sorted(self._counts.items())
            ]
            lines.append(f"# TYPE {LATENCY} histogram")
            for (model, api), held in sorted(self._latencies.items()):
                labels, total = f'model_name="{_quoted(model)}",API="{api}",entrypoint="GRPC"', 0
                for bound, count in zip([*map("{:g}".format, BUCKETS), "+Inf"], held, strict=True):
                    total += count
                    lines.append(f'{LATENCY}_bucket{{{labels},le="{bound}"}} {total}')
                lines.append(f"{LATENCY}_sum{{{labels}}} {self._sums[model, api]}")
                lines.append(f"{LATENCY}_count{{{labels}}} {total}")
        return "\n".join([*lines, ""])


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def serve(counters: Counters, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """Answer GET of `PATH` until it is shut down.

    Raises:
        OSError: the port is taken.
    """

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.split("?")[0] == PATH
            body = counters.text().encode() if found else b"metrics are at " + PATH.encode() + b"\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((host, port), Answer)
    threading.Thread(target=server.serve_forever, name="tfig-metrics", daemon=True).start()
    return server
