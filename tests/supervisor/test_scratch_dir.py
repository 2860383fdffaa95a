from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest

from dialin.errors import UsageError
from dialin.supervisor import scratch_dir as scratch
from dialin.supervisor.scratch_dir import remove_scratch, scratch_folder, scratch_for_ray

KEEPS_ONE = """
import sys, time
from pathlib import Path
from dialin.supervisor.scratch_dir import scratch_folder
print(scratch_folder("x-", Path(sys.argv[1])), flush=True)
time.sleep(600)
"""


@pytest.fixture
def dead():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_folders_of_the_dead_are_removed_and_no_others(tmp_path, dead):
    mine = scratch_folder("x-", tmp_path)
    others = [tmp_path / name for name in ("y-1-a", "x-text-a", "x-1-of-init", mine.name)]
    abandoned = tmp_path / f"x-{dead}-a"
    for folder in (*others, abandoned):
        folder.mkdir(exist_ok=True)
    again = scratch_folder("x-", tmp_path)
    assert again.name.startswith(f"x-{os.getpid()}-")
    assert sorted(tmp_path.iterdir()) == sorted([*others, again])
    remove_scratch(mine)
    remove_scratch(again)


def test_nobody_else_can_enter_it(tmp_path):
    folder = scratch_folder("x-", tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    remove_scratch(folder)
    assert not folder.exists()


def test_a_link_and_a_file_of_such_a_name_are_not_followed(tmp_path, dead):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    link, file = tmp_path / f"x-{dead}-link", tmp_path / f"x-{dead}-file"
    link.symlink_to(kept)
    file.write_text("a file")
    remove_scratch(scratch_folder("x-", tmp_path))
    assert (kept / "file").read_text() == "mine"
    assert link.is_symlink()
    assert file.read_text() == "a file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder somebody else's")
def test_what_is_somebody_elses_stays(tmp_path, dead):
    folder = tmp_path / f"x-{dead}-a"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    remove_scratch(scratch_folder("x-", tmp_path))
    assert folder.is_dir()


def test_a_folder_in_use_stays_though_its_process_id_is_unknown_here(tmp_path, dead):
    """As with a process in another container that shares /tmp: what looks like its id is nobody's here."""
    command = [sys.executable, "-c", KEEPS_ONE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        folder = type(tmp_path)(other.stdout.readline().strip())
        renamed = folder.rename(tmp_path / f"x-{dead}-elsewhere")  # a lock goes with its folder
        remove_scratch(scratch_folder("x-", tmp_path))
        assert renamed.is_dir()
        other.kill()
        other.wait()
        deadline = time.monotonic() + 10
        while renamed.is_dir() and time.monotonic() < deadline:
            remove_scratch(scratch_folder("x-", tmp_path))
        assert not renamed.exists()


def test_a_path_too_long_for_rays_sockets_is_refused(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(scratch.os, "access", lambda *_: False)
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(long))
    with pytest.raises(UsageError, match="name a shorter one with TMPDIR"):
        scratch_for_ray("dialin-ray-")
    assert list(long.iterdir()) == []
