"""A process that must not outlive the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.faults.harness import descendants, wait_until
from tests.server.harness import is_alive

# A command with a child that does not listen to SIGTERM.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "dialin.supervisor.guard", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("how", ["closed", "terminated"])
def test_a_stubborn_family_is_ended(how):
    with start(sys.executable, "-c", STUBBORN) as guard:
        child = int(guard.stdout.readline())
        wait_until(lambda: len(list(descendants(guard.pid))) >= 2, 30, "the family")
        family = [pid for pid, _ in descendants(guard.pid)]
        assert child in family
        if how == "closed":
            guard.stdin.close()
        else:
            guard.send_signal(signal.SIGTERM)
        guard.wait(60)
        assert not any(map(is_alive, family))


def test_children_of_a_killed_command_are_ended_too():
    with start(sys.executable, "-c", STUBBORN) as guard:
        child = int(guard.stdout.readline())
        command = next(pid for pid, _ in descendants(guard.pid) if pid != child)
        os.kill(command, signal.SIGKILL)
        assert guard.wait(60) == 128 + signal.SIGKILL
        assert not is_alive(child)


def test_the_commands_exit_code_is_passed_on():
    with start(sys.executable, "-c", "raise SystemExit(7)") as guard:
        assert guard.wait(60) == 7


def test_a_command_ends_with_its_guard():
    """By the system, when the guard has no time to do it: SIGKILL."""
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with start(sys.executable, "-c", program) as guard:
        command = int(guard.stdout.readline())
        guard.kill()
        guard.wait(10)
        wait_until(lambda: not is_alive(command), 10, "the command has ended")
