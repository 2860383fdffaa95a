"""Makes the data folder of an older dialin that the tests of upgrades open: `make_folder.py CHECKOUT ARCHIVE`.

CHECKOUT is a worktree of that commit (`git worktree add --detach CHECKOUT 9fc48be`), ARCHIVE the .tar.gz that is
written. The studies are made with that commit's own command line and server, by the installed packages; the README
beside this file says what is in the folder.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path

MAIN = "import sys; from service.cli import main; sys.exit(main())"
SPECS = {
    "curves.yaml": """\
name: curves
objective:
  dataset: synthetic
space:
  optimizer: [sgd, adam]
  lr: {min: 1e-5, max: 10, log: true}
  momentum: {min: 0.0, max: 0.99, when: {optimizer: sgd}}
  batch_size: {min: 16, max: 512, log: true}
budget: {trials: 8, epochs: 9}
resources: {concurrency: 2}
""",
    "digits.yaml": """\
name: digits
objective:
  dataset: digits
space:
  model: small_cnn
  width: 8
  depth: 2
  optimizer: [sgd, adam]
  lr: {min: 1e-3, max: 0.1, log: true}
  batch_size: [16, 32]
search: {seed: 0}
early_stopping: {asha: {grace_epochs: 1, reduction_factor: 3}}
budget: {trials: 12, epochs: 9}
resources: {cpus: 1, concurrency: 2}
""",
    "own.yaml": """\
name: own
objective:
  python: "train.py:train"
  metric: score
space:
  x: {min: 0.0, max: 1.0}
budget: {trials: 5, epochs: 4}
resources: {concurrency: 2}
""",
    "train.py": '''\
"""A function to tune: how well x is guessed."""


def train(config, trial):
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        trial.report(epoch, 1 - abs(config["x"] - 0.3) - 1 / (epoch + 1))
        if trial.should_stop:
            return
''',
    "broken.yaml": """\
name: broken
objective:
  python: "broken.py:train"
  metric: score
space:
  x: {min: 0.0, max: 1.0}
budget: {trials: 4, epochs: 4}
resources: {concurrency: 2}
""",
    "broken.py": '''\
"""A function that always fails."""


def train(config, trial):
    raise ValueError(f"no file for x={config['x']:.2f}")
''',
}


def main(checkout: Path, archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dialin-old-") as temporary:
        folder = Path(temporary)
        specs = folder / "specs"  # a function travels to a server with all of its folder
        specs.mkdir()
        for name, text in SPECS.items():
            (specs / name).write_text(text)
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "DIALIN_OUT": str(folder / "out"),
            "DIALIN_DATA_DIR": str(folder / "data"),
            "DIALIN_ALLOW_CODE": "1",
            "OMP_NUM_THREADS": "1",
        }

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-P", "-c", MAIN, *arguments]
            return subprocess.Popen(command, cwd=specs, env=environment)

        def run(*arguments: str) -> int:
            return start(*arguments).wait(300)

        assert run("run", "curves.yaml") == 0
        assert run("run", "broken.yaml") == 1
        driver = start("run", "digits.yaml")
        wait_for(lambda: waiting_trials(folder / "out" / "dialin.db") >= 2)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) == 130
        assert waiting_trials(folder / "out" / "dialin.db") >= 2
        port = free_port()
        server, address = start("up", "--port", str(port)), f"http://127.0.0.1:{port}"
        wait_for(lambda: run("list", "--server", address) == 0)
        assert run("submit", "own.yaml", "--server", address, "--watch") == 0
        server.send_signal(signal.SIGINT)
        server.wait(60)
        fold_logs(folder / "out")
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(folder / "out", "out", filter=wanted)


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def waiting_trials(database: Path) -> int:
    query = "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name LIKE 'digits%' AND state = ?"
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute(query, ["WAITING"]).fetchone()[0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def fold_logs(out: Path) -> None:
    """Move what lies in the write-ahead logs into the databases themselves, and drop free pages."""
    for name in ("dialin.db", "mlflow.db"):
        with closing(sqlite3.connect(out / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")


def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """All but Ray Tune's own files, which dialin does not read, and the server's logs and data sets."""
    parts = Path(entry.name).parts
    if "ray" in parts or parts[1:2] in (("server",), ("data",)):
        return None
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
