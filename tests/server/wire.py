"""A server's wire: bytes sent over a socket, and what came back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from tests.faults.harness import ROOT, free_port


def exchange(port: int, data: bytes, seconds: float = 10.0) -> bytes:
    """Whatever came back until the server closed, or said nothing more for so long; the request should ask to close."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        # The server may have answered and closed before it read everything.
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(data)
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError, TimeoutError):
        while part := connection.recv(65536):
            received += part
    return received


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status(answer: bytes) -> int | None:
    """Of the first answer in those bytes; None: there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None


def document(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@contextmanager
def listening(config: uvicorn.Config):
    """The port of a server in a thread."""
    server, bound = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        bound.close()


class ServerProcess:
    """`dialin.server.serve` as a process of its own, whose Ray and MLflow are not there. A context manager."""

    def __init__(self, folder: Path, files: int | None = None, **environment: str) -> None:
        self.port, self.log, self.out = free_port(), folder / "server.log", folder / "data"
        self.out.mkdir(parents=True, exist_ok=True)
        self._limit = f"ulimit -n {files}; " if files else ""
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DIALIN_")},
            "DIALIN_OUT": str(self.out),
            "DIALIN_RAY_ADDRESS": f"http://127.0.0.1:{free_port()}",
            **environment,
        }

    def __enter__(self):
        command = f"{self._limit}exec {sys.executable} -m dialin.server.serve --port {self.port}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", command], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            with suppress(OSError):
                if status(exchange(self.port, get("/healthz"))) == 200:
                    return self
            time.sleep(0.1)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
