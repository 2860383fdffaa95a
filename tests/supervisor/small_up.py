"""Two small services, supervised as those of `dialin up`: small_up.py FOLDER MARK PORT PORT TIMEOUT_SECONDS

Each service answers HTTP, and has a child in another session that keeps none of its files open. The program prints what
the supervisor reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from dialin.study_flow.signals import Interrupts
from dialin.supervisor.ports import free_port
from dialin.supervisor.processes import MARK, adopt_orphans
from dialin.supervisor.service import Service, probe_http
from dialin.supervisor.supervise import Supervisor

SERVER = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.getpid()} {child.pid}".encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


def main(folder: Path, mark: str, ports: list[int], timeout_seconds: float) -> None:
    adopt_orphans()
    environment = {**os.environ, MARK: mark}

    def maker(name: str, wanted: int) -> Callable[[], Service]:
        ports = iter([wanted])

        def make() -> Service:
            port = next(ports, None) or free_port()
            command = [sys.executable, "-c", SERVER, str(port)]
            print(f"{name} at {port}", flush=True)
            url = f"http://127.0.0.1:{port}"
            log = folder / f"{name}.log"
            return Service(name, command, environment, log, port, lambda: probe_http(url, timeout_seconds=1.0))

        return make

    supervisor = Supervisor(
        [maker("first", ports[0]), maker("second", ports[1])], timeout_seconds, lambda text: print(text, flush=True)
    )
    with Interrupts():
        try:
            supervisor.start()
            print("all is up", flush=True)
            supervisor.keep_running()
        except KeyboardInterrupt:
            pass
        finally:
            supervisor.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(port) for port in sys.argv[3:5]], float(sys.argv[5]))
