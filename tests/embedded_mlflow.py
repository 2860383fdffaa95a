"""MLflow's server of `dialin up`, alone: a real process over a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dialin.paths import OutputFolder
from dialin.settings import MLFLOW_SECRET
from dialin.tracking.mirror import answers
from tests.faults.harness import free_port

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mlflow:
    uri: str
    secret: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_mlflow(out: Path, secret: str = "of this start") -> Iterator[Mlflow]:
    folder, port = OutputFolder(out), free_port()
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dialin.server.mlflow_server", "--port", str(port)]
    command += ["--database", str(folder.mlflow_database), "--artifacts", str(folder.mlflow_artifacts)]
    environment = {**os.environ, MLFLOW_SECRET: secret}
    uri, log = f"http://127.0.0.1:{port}", out / "mlflow.log"
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 90
        while not answers(uri, secret=secret):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Mlflow(uri, secret, process)
    finally:
        process.terminate()
        process.wait(30)
