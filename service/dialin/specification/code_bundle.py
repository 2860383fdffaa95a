"""A person's own files as one archive: packed where they lie, and unpacked where they run. Trusts no archive.

Nothing of an archive is written before all of it was found to be regular files, few and small enough, with names that
stay below the target.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from dialin.errors import BundleError

MOST_FILES = 1_000
MOST_BYTES = 10 * 2**20
"""The size of an archive, at most."""
MOST_UNPACKED_BYTES = 50 * 2**20
"""The size of all its files together, at most."""
MOST_NAME_BYTES = 240
"""The length of one file's path, at most; file systems take 255 bytes for each part of it."""
_LEFT_OUT = ("__pycache__",)  # and whatever begins with a dot
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK_BYTES = 2**16
_DISK_BLOCK_BYTES = 4096
# What zipfile raises for archives that were damaged or made to harm.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def pack(folder: Path, files: Iterable[Path] | None = None) -> bytes:
    """The files below `folder` as an archive; the same files give the same bytes.

    `files`: which ones; None: all but hidden ones and __pycache__. Raises BundleError for a link, anything else that is
    not a regular file, a file outside the folder, and more than the limits allow.
    """
    chosen = sorted(_relative(folder, file) for file in (files if files is not None else _all_below(folder)))
    _check_names([name.as_posix() for name in chosen])
    sizes = {name: _plain_size(folder, name) for name in chosen}
    _check_size(sum(sizes.values()), MOST_UNPACKED_BYTES, "unpacked", sizes)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in chosen:
            entry = zipfile.ZipInfo(name.as_posix())  # without a date, so that the bytes depend on the files alone
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, (folder / name).read_bytes())
    data = buffer.getvalue()
    _check_size(len(data), MOST_BYTES, "packed", sizes)
    return data


def unpack(data: bytes, target: Path) -> None:
    """Write the files of an archive to `target`, a new folder: all of them or none.

    Raises BundleError for an archive that `pack` would not have made, and for a target that exists.
    """
    if len(data) > MOST_BYTES:
        raise BundleError(f"the bundle has {len(data)} bytes; at most {MOST_BYTES} are taken")
    if target.exists():
        raise BundleError(f"{target} exists already")
    # Renamed at the end, so that whoever sees the target sees all of it.
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    contents = _read(data)
    try:
        partial.mkdir(parents=True)
        for name, content in contents:
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def disk_bytes(data: bytes) -> int:
    """The bytes that the files of an archive will take on a disk, in whole blocks. Raises BundleError as `unpack` does
    for the list of files."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries)
    except _DAMAGE as error:
        raise BundleError(f"the bundle is damaged: {error}") from None
    return sum(-(-entry.file_size // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES for entry in entries)


def _all_below(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder")
    for here, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = [name for name in folders if not _is_left_out(name) and name not in links]
        yield from (Path(here) / name for name in (*files, *links) if not _is_left_out(name))


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT


def _relative(folder: Path, file: Path) -> Path:
    try:
        return (folder / file).relative_to(folder)
    except ValueError:
        raise BundleError(f"{file} lies outside {folder}") from None


def _plain_size(folder: Path, name: Path) -> int:
    """The size of a regular file. Raises for a link, or for one on the way to it."""
    for part in (name, *name.parents[:-1]):
        if (folder / part).is_symlink():
            raise BundleError(f"{part} is a link; a bundle holds regular files only")
    try:
        found = (folder / name).stat()
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{name} is not a regular file")
    return found.st_size


def _read(data: bytes) -> list[tuple[str, bytes]]:
    """Every file of an archive, by its path, when all of them may be had."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries)
            return [(entry.filename, _content(archive, entry)) for entry in entries]
    except _DAMAGE as error:
        raise BundleError(f"the bundle is damaged: {error}") from None


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The content, which is never longer than its entry said, whatever is packed there."""
    # An entry's size is what its archive says: a bomb unpacks to more, and is stopped when it does.
    content = bytearray()
    with archive.open(entry) as packed:
        while block := packed.read(_BLOCK_BYTES):
            content += block
            if len(content) > entry.file_size:
                raise BundleError(f"{_show(entry.filename)} is longer than the bundle says")
    if len(content) != entry.file_size:
        raise BundleError(f"{_show(entry.filename)} is shorter than the bundle says")
    return bytes(content)


def _check_entries(entries: Sequence[zipfile.ZipInfo]) -> None:
    _check_names([entry.filename for entry in entries])
    for entry in entries:
        name, kind = _show(entry.filename), stat.S_IFMT(entry.external_attr >> 16)
        if entry.orig_filename != entry.filename:
            raise BundleError(f"{_show(entry.orig_filename)} is not a file name")
        if kind == stat.S_IFLNK:
            raise BundleError(f"{name} is a link; a bundle holds regular files only")
        if kind not in (0, stat.S_IFREG):
            raise BundleError(f"{name} is not a regular file")
        if entry.flag_bits & 1:
            raise BundleError(f"{name} is encrypted")
        if entry.compress_type not in _METHODS:
            raise BundleError(f"{name} is packed by method {entry.compress_type}; deflate is what is taken")
    sizes = {Path(entry.filename): entry.file_size for entry in entries}
    _check_size(sum(sizes.values()), MOST_UNPACKED_BYTES, "unpacked", sizes)


def _check_names(names: Sequence[str]) -> None:
    """Raises for no names, too many, and names that leave the folder, mean two things, or stand twice."""
    if not names:
        raise BundleError("the bundle is empty")
    if len(names) > MOST_FILES:
        raise BundleError(f"the bundle has {len(names)} files; at most {MOST_FILES} are taken")
    for name in names:
        _check_name(name)
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:  # some file systems do not tell Train.py from train.py
            raise BundleError(f"{_show(name)} appears twice in the bundle")
        seen.add(name.casefold())
    for name in names:
        above = next((str(up) for up in PurePosixPath(name).parents if str(up).casefold() in seen), None)
        if above is not None:
            raise BundleError(f"{_show(above)} is both a file and a folder of {_show(name)}")


def _check_name(name: str) -> None:
    shown = _show(name)
    if name.startswith("/"):
        raise BundleError(f"{shown} is an absolute path")
    if name.endswith("/"):
        raise BundleError(f"{shown} is a folder; a bundle holds regular files only")
    if "\\" in name or ":" in name or not name.isprintable():
        raise BundleError(f"{shown}: no backslash, colon or control character may stand in a file's name")
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise BundleError(f"{shown}: no part of a path may be empty, '.' or '..'")
    if len(name.encode(errors="replace")) > MOST_NAME_BYTES:
        raise BundleError(f"{shown}: the path has more than {MOST_NAME_BYTES} bytes")


def _check_size(size: int, most: int, what: str, sizes: dict[Path, int]) -> None:
    if size > most:
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
        named = ", ".join(f"{_show(str(name))} {count / 2**20:.1f} MiB" for name, count in largest)
        raise BundleError(
            f"{size / 2**20:.1f} MiB {what}; a bundle has at most {most / 2**20:.0f} (the largest: {named})"
        )


def _show(name: str) -> str:
    return ascii(name) if len(name) <= 80 else f"{name[:77]!a}..."
