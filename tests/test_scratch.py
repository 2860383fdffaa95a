from __future__ import annotations

import os
import subprocess
import sys

from service.scratch import scratch_folder


def test_the_folders_of_the_dead_are_removed_and_no_others(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = scratch_folder("x-", tmp_path)
    others = [tmp_path / name for name in ("y-1-a", "x-text-a", "x-1-of-init", mine.name)]
    dead = tmp_path / f"x-{process.pid}-a"
    for folder in (*others, dead):
        folder.mkdir(exist_ok=True)
    again = scratch_folder("x-", tmp_path)
    assert again.name.startswith(f"x-{os.getpid()}-")
    assert sorted(tmp_path.iterdir()) == sorted([*others, again])
