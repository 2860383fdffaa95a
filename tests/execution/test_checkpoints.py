"""A checkpoint is whole, or it is refused."""

from __future__ import annotations

import pytest

from dialin.errors import DataError
from dialin.execution.checkpoints import load_checkpoint, save_checkpoint


class Run:
    def __init__(self, state="new", torn=False):
        self.state, self.torn = state, torn

    def save(self, folder):
        (folder / "state").write_text(self.state)
        if self.torn:
            raise OSError("no space left on device")

    def load(self, folder):
        self.state = (folder / "state").read_text()


def test_what_is_saved_is_loaded(tmp_path):
    save_checkpoint(Run("one"), tmp_path / "epoch-0001")
    save_checkpoint(Run("two"), tmp_path / "epoch-0001")
    run = Run()
    load_checkpoint(run, tmp_path / "epoch-0001")
    assert run.state == "two"


def test_a_crash_while_saving_leaves_the_one_before(tmp_path):
    save_checkpoint(Run("one"), tmp_path / "epoch-0001")
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(Run("two", torn=True), tmp_path / "epoch-0001")
    run = Run()
    load_checkpoint(run, tmp_path / "epoch-0001")
    assert run.state == "one"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "state").write_text("onf"), "state was changed"),
        (lambda folder: (folder / "state").write_text("on"), "state was changed"),
        (lambda folder: (folder / "state").unlink(), "state is missing"),
        (lambda folder: (folder / "digests.json").unlink(), "digests.json is missing or cannot be read"),
        (lambda folder: (folder / "digests.json").write_text("{"), "digests.json is missing or cannot be read"),
    ],
)
def test_damage_is_seen(tmp_path, damage, message):
    folder = tmp_path / "epoch-0001"
    save_checkpoint(Run("one"), folder)
    damage(folder)
    run = Run()
    with pytest.raises(DataError, match=message):
        load_checkpoint(run, folder)
    assert run.state == "new"
