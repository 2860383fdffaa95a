"""What all tests share. Real data sets are looked for beside the repository; tests that need them skip without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("DIALIN_TEST_DATA") or ROOT.parent / "shared")

# Two trials at a time on two cores are meant to have a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith("DIALIN_") and name not in ("DIALIN_TEST_DATA")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    """A data folder with CIFAR-10 and Fashion-MNIST, laid out by the script that comes with them."""
    script = SHARED / "tools" / "datasets.py"
    if not script.exists():
        pytest.skip(f"no real data sets: {script} is not there")
    folder = tmp_path_factory.mktemp("real-data")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def dialin(tmp_path):
    """Runs the command line as a person does, in a process of its own: dialin("plan", "digits") -> CompletedProcess."""

    def run(*arguments: str, check: bool = False, timeout: float = 240) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dialin", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=check, timeout=timeout, capture_output=True, text=True)

    return run
