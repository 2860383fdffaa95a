"""Ending what a killed `dialin up` has left, known by its mark."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from dialin.supervisor.processes import MARK, end_marked, end_orphans_here
from tests.faults.harness import wait_until
from tests.server.harness import is_alive

# A process whose parent is gone, in a session of its own, which has overwritten what the system shows of its
# environment, as Ray's workers do; and its sibling, which has not.
DAEMONS = """
import subprocess, sys
hidden = "import sys, time; time.sleep(600)"
first = subprocess.Popen([sys.executable, "-c", "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], env={}); "
    "print(child.pid, flush=True); time.sleep(600)"], start_new_session=True)
print(first.pid, flush=True)
"""


def test_daemons_and_children_without_the_mark_are_found_and_others_left():
    mark = secrets.token_hex(8)
    environment = {**os.environ, MARK: mark}
    with subprocess.Popen([sys.executable, "-c", DAEMONS], stdout=subprocess.PIPE, env=environment, text=True) as one:
        daemons = sorted(int(one.stdout.readline()) for _ in range(2))
        wait_until(lambda: not is_alive(one.pid), 10, "their parent has ended")
        assert all(map(is_alive, daemons))
        assert end_marked("another", guards_too=True) == 0
        assert end_marked(mark, guards_too=False) == 2
        assert not any(map(is_alive, daemons))
        assert end_marked(mark, guards_too=True) == 0


def test_a_process_that_adopts_none_ends_no_children_of_its_own():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert end_orphans_here([]) == 0
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(10) is not None
