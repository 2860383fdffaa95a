"""Image data sets: found, downloaded or read from a person's files, and laid out once a machine as plain arrays.

A prepared data set is a folder with x_train.npy, y_train.npy, x_test.npy, y_test.npy: images (n, channels, height,
width) uint8, labels (n,) int64 from 0. It is memory-mapped, so all trials of a machine share one copy.
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

from service.errors import DataError
from service.training.sources import Arrays, read_folder, read_named, read_npz

Progress = Callable[[str], None]
_PARTS = ("x_train", "y_train", "x_test", "y_test")
_LAYOUT = 1  # raised when the prepared form changes, so that old folders are not taken for new ones


@dataclass(frozen=True)
class ImageData:
    """Images (n, channels, height, width) uint8 and labels (n,) int64 of the two published splits."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    classes: int


def prepare(dataset: str, data_dir: Path, progress: Progress) -> Path:
    """The folder of a prepared data set, made on the first call on this machine.

    `dataset` is a name, `npz:PATH` or `folder:PATH`. Raises DataError when it cannot be had, which says what to put
    where, or when it is not what a data set must be.
    """
    target = _prepared_root(data_dir) / _key(dataset)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            _write(_read(dataset, data_dir, progress), target)
    return target


def load(folder: Path) -> ImageData:
    """A prepared data set, memory-mapped: read only as far as it is used, and never written back."""
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
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=target.parent))
    try:
        for name, array in zip(_PARTS, arrays, strict=True):
            np.save(partial / f"{name}.npy", np.ascontiguousarray(array))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _prepared_root(data_dir: Path) -> Path:
    """Below the data folder, or, where that cannot be written to, in the machine's temporary one."""
    root = data_dir / "prepared"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"dialin-{os.getuid()}" / hashlib.sha1(str(data_dir).encode()).hexdigest()[:12]


def _key(dataset: str) -> str:
    """A folder name; for a person's own files one that changes with them."""
    kind, _, path = dataset.partition(":")
    if not path:
        return f"{dataset}-v{_LAYOUT}"
    source = Path(path).expanduser().resolve()
    if not source.exists():
        raise DataError(f"{dataset}: {source} does not exist")
    files = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return f"{kind}-{digest.hexdigest()[:16]}-v{_LAYOUT}"
