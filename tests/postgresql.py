"""A PostgreSQL server of its own for a test: a folder, a port, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.harness import free_port


def programs() -> Path:
    """Where initdb and postgres are; skips the test where they are not."""
    places = [Path(found).parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.skip("no PostgreSQL server is installed")


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database."""
    pytest.importorskip("psycopg")
    place, data, port = programs(), folder / "postgresql", free_port()
    data.mkdir()
    user: list[str] = []
    if os.geteuid() == 0:  # as root it refuses to run
        if (
            shutil.which("runuser") is None
            or subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode
        ):
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        shutil.chown(data, "postgres")
        for above in (data, *data.parents):
            if above.stat().st_uid == 0 and above.is_relative_to("/tmp") and above != Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o011)  # pytest's folders are for their owner alone
        user = ["runuser", "-u", "postgres", "--"]
    made = [*user, str(place / "initdb"), "-D", str(data), "-U", "dialin", "--auth=trust", "-E", "UTF8"]
    subprocess.run(made, check=True, capture_output=True, cwd="/")
    control = [*user, str(place / "pg_ctl"), "-D", str(data), "-w", "-l", str(data / "log")]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd="/")
    try:
        yield f"postgresql+psycopg://dialin@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd="/")
