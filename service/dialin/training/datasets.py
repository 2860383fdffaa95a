"""Image data sets: found, downloaded or read from a person's files, and stored once on a machine as plain arrays.

A prepared data set is a folder with x_train.npy, y_train.npy, x_test.npy, y_test.npy: images (n, channels, height,
width) uint8, labels (n,) int64 from 0. It is memory-mapped, so all trials on a machine share one copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dialin.errors import DataError
from dialin.training.sources import NAMES, Arrays, packed_file, read_folder, read_named, read_npz

Progress = Callable[[str], None]
_PARTS = ("x_train", "y_train", "x_test", "y_test")
KINDS = ("npz", "folder")
# The version of the prepared form, in the folder's name: a folder of an older version is not taken for a new one.
_LAYOUT = 1


@dataclass(frozen=True)
class ImageData:
    """The two published splits of a data set."""

    x_train: NDArray[np.uint8]
    """Training images (n, channels, height, width)."""
    y_train: NDArray[np.int64]
    """Training labels (n,) from 0."""
    x_test: NDArray[np.uint8]
    """Test images."""
    y_test: NDArray[np.int64]
    """Test labels."""
    classes: int
    """Number of classes: the highest label plus 1."""


def prepare(dataset: str, data_dir: Path, progress: Progress) -> Path:
    """Return the folder of a prepared data set; the first call on a machine makes it.

    `dataset` is a name, `npz:PATH` or `folder:PATH`; `progress` is told of a download. Raises DataError for a data set
    that cannot be downloaded or read, or that has not the form of one; the message says what is allowed.
    """
    key = _key(dataset, data_dir)
    ready = data_dir / "prepared" / key
    if ready.is_dir():
        return ready
    target = _writable_root(data_dir) / key
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            _write(_read(dataset, data_dir, progress), target)
    return target


def load(folder: Path) -> ImageData:
    """Return a prepared data set, memory-mapped: only what is used is read, and changes are not written back."""
    parts = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _PARTS}
    return ImageData(**parts, classes=int(max(parts["y_train"].max(), parts["y_test"].max())) + 1)


def _read(dataset: str, data_dir: Path, progress: Progress) -> Arrays:
    kind, _, path = dataset.partition(":")
    if kind == "npz":
        return read_npz(Path(path).expanduser())
    if kind == "folder":
        return read_folder(Path(path).expanduser())
    return read_named(dataset, data_dir, progress)


def _write(arrays: Arrays, target: Path) -> None:
    """Write the folder completely or not at all. Called under its lock: a partial folder is that of a dead process."""
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name, array in zip(_PARTS, arrays, strict=True):
            np.save(partial / f"{name}.npy", np.ascontiguousarray(array))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _writable_root(data_dir: Path) -> Path:
    """A folder below the data folder, or below the machine's temporary one when the data folder is read-only."""
    root = data_dir / "prepared"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"dialin-{os.getuid()}" / hashlib.sha1(str(data_dir).encode()).hexdigest()[:12]


def _key(dataset: str, data_dir: Path) -> str:
    """A folder name, which for a person's own files changes with them. Raises DataError for an unknown kind or name."""
    kind, colon, path = dataset.partition(":")
    if not colon:
        packed = packed_file(dataset, data_dir)
        if packed is None:
            return f"{dataset}-v{_LAYOUT}"
        source = packed
    elif kind not in KINDS or not path:
        raise DataError(f"no data set {dataset!r}; allowed: npz:PATH, folder:PATH, or one of {', '.join(NAMES)}")
    else:
        source = _existing(dataset, path)
    files = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return f"{kind}-{digest.hexdigest()[:16]}-v{_LAYOUT}"


def _existing(dataset: str, path: str) -> Path:
    try:
        return Path(path).expanduser().resolve(strict=True)
    except FileNotFoundError:
        raise DataError(f"{dataset}: {Path(path).expanduser().resolve()} does not exist") from None
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, a circle of links, an unknown home
        raise DataError(f"{dataset}: not a path that can be read ({error})") from None
