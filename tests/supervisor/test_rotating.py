"""Logs that never grow beyond their bound."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from dialin.supervisor.rotating import LEAST_BYTES, RotatingLog
from tests.faults.harness import ROOT, wait_until

ENDLESS = """
import sys, time
line = "x" * 1000 + "\\n"
for number in range(2_000):
    sys.stderr.write(f"{number} {line}")
sys.stderr.flush()
print("the last word", flush=True)
"""


def sizes(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_the_two_files_together_stay_within_twice_the_bound(tmp_path):
    log = RotatingLog(tmp_path / "log", LEAST_BYTES)
    for number in range(1_000):
        log.write(f"{number:06} {'x' * 1_000}\n".encode())
        assert sum(sizes(tmp_path).values()) <= 2 * LEAST_BYTES
    log.write(b"y" * 5 * LEAST_BYTES)
    assert max(sizes(tmp_path).values()) <= LEAST_BYTES
    log.write(b"the end")
    log.close()
    assert (tmp_path / "log").read_bytes().endswith(b"the end")
    assert set(sizes(tmp_path)) == {"log", "log.1"}


def test_it_goes_on_with_what_is_there_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    path.chmod(0o644)
    log = RotatingLog(path, LEAST_BYTES)
    log.write(b"after\n")
    log.close()
    assert path.read_text() == "before\nafter\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("")
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        RotatingLog(tmp_path / "log", LEAST_BYTES)


def test_a_log_that_others_write_is_kept_short(tmp_path):
    """By the one that watches it, while a process and its child append to it."""
    program = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from dialin.supervisor.rotating import watch_length\n"
        "watch_length(Path(sys.argv[1]), 10_000, 0.01)\n"
        "subprocess.run([sys.executable, '-c', 'print(\"child\")'])\n"
        "input()\n"
    )
    path = tmp_path / "driver.log"
    command = [sys.executable, "-c", program, str(path)]
    with path.open("ab") as log, subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log) as process:
        for _ in range(5):
            log.write(b"x" * 20_000)
            log.flush()
            wait_until(lambda: path.stat().st_size < 20_000, 20, "it is short again")
        process.stdin.close()
    log_and_before = sizes(tmp_path)
    assert max(log_and_before.values()) <= 40_000
    assert set(log_and_before) == {"driver.log", "driver.log.1"}


def test_a_command_that_prints_without_end_fills_no_disk(tmp_path):
    """2 MB through the guard, of which 128 KiB are kept, the last word among them."""
    guard = ["-m", "dialin.supervisor.guard", "--log", str(tmp_path / "log"), "--log-bytes", str(LEAST_BYTES), "--"]
    command = [sys.executable, *guard, sys.executable, "-c", ENDLESS]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.wait(60) == 0
    assert sum(sizes(tmp_path).values()) <= 2 * LEAST_BYTES
    assert (tmp_path / "log").read_text().endswith("the last word\n")
    wait_until(lambda: set(sizes(tmp_path)) == {"log", "log.1"}, 5, "both files")
