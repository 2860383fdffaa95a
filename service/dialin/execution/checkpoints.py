"""Checkpoints are folders. They are written completely or not at all, and verified before they are loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from dialin.errors import DataError
from dialin.objectives.base import Run

DIGESTS = "digests.json"
"""The file in a checkpoint with the SHA-256 of each of its other files."""
KEPT = 2
"""Checkpoints kept of a trial: the newest, and the one before in case the newest is damaged."""


def checkpoint_name(number: int, epoch: int) -> str:
    """Return a checkpoint's path below the folder of the study's checkpoints; the study's storage keeps this path."""
    return f"{number:04d}/epoch-{epoch:04d}"


def checkpoint_folder(checkpoints: Path, stored: str) -> Path:
    """Return the folder of a stored checkpoint.

    Earlier versions stored absolute paths, of which only the last two components are used: a study that was copied or
    moved then uses its own files and not those of the original.
    """
    return checkpoints.joinpath(*Path(stored).parts[-2:])


def epoch_of(folder: Path) -> int:
    """Return the epoch in the name of a checkpoint's folder."""
    return int(folder.name.removeprefix("epoch-"))


def newest_first(checkpoints: Path, stored: str | None) -> list[Path]:
    """Return a trial's stored checkpoint and those before it, newest first; an empty list for a trial without one."""
    if stored is None:
        return []
    newest = checkpoint_folder(checkpoints, stored)
    found = (folder for folder in newest.parent.glob("epoch-*") if epoch_of(folder) < epoch_of(newest))
    return [newest, *sorted(found, key=epoch_of, reverse=True)]


def keep_newest(trial: Path) -> None:
    """Remove all but the newest `KEPT` checkpoints from the folder of a trial."""
    for folder in sorted(trial.glob("epoch-*"), key=epoch_of)[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def save_checkpoint(run: Run, folder: Path) -> None:
    """Write the run's state as `folder`, with the SHA-256 of each file.

    A crash never leaves `folder` with only a part of the new state.
    """
    partial = folder.with_name(f"partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    run.save(partial)
    files = sorted(file for file in partial.rglob("*") if file.is_file())
    digests = {file.relative_to(partial).as_posix(): _digest(file) for file in files}
    (partial / DIGESTS).write_text(json.dumps(digests))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_checkpoint(run: Run, folder: Path) -> None:
    """Load the state in `folder` into a run. Raises DataError if a file is missing or was changed."""
    try:
        digests = json.loads((folder / DIGESTS).read_text())
    except (OSError, ValueError):
        raise DataError(f"checkpoint {folder} is damaged: {DIGESTS} is missing or cannot be read") from None
    for name, digest in digests.items():
        file = folder / name
        if not file.is_file() or _digest(file) != digest:
            raise DataError(
                f"checkpoint {folder} is damaged: {name} {'was changed' if file.is_file() else 'is missing'}"
            )
    run.load(folder)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
