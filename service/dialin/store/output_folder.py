"""Prepares the output folder. It holds specifications, training code and digests of tokens, so only the account that
runs dialin may have access to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from dialin.errors import UsageError
from dialin.paths import OutputFolder
from dialin.settings import Settings


def open_output(settings: Settings, say: Callable[[str], None] = lambda _text: None) -> None:
    """Create the output folder, or close an existing one to other accounts; `say` is called with a line if that changes
    its mode.

    A folder with nothing but dialin's files in it is closed as a whole (0700). One with other files in it (`--out .`),
    or of another account (`--out /tmp`), keeps its mode: then the databases and the subfolders are closed one by one. A
    folder with the setgid bit (`chmod g+s`) belongs to a group, and is closed to others only.

    Raises UsageError for a folder that cannot be used, and for one that everybody can write to in which another account
    has created a file or a folder of a name that dialin uses.
    """
    out = OutputFolder(settings.out)
    folder, entries = _create(out.root)
    if folder.st_mode & stat.S_IWOTH:
        _check_owners(out, entries, folder)
    ours = [entry for entry in entries if out.is_ours(entry)]
    if len(ours) == len(entries) and _is_private(folder):
        _close_folder(out, folder, say)
    else:
        ours += _create_subfolders(out)
    if settings.database_url is None and not out.database.exists():
        # SQLite gives its journal and its write-ahead log the mode of the database.
        _create_file(out.database, 0o666 & ~out.mask)
    for entry in ours:
        if entry != settings.data_dir:  # data sets are not confidential
            _close(entry, out.mask)


def _is_private(folder: os.stat_result) -> bool:
    """Whether a folder belongs to this account and is not meant for all accounts. A folder like /tmp has the sticky
    bit."""
    return folder.st_uid == os.geteuid() and not folder.st_mode & stat.S_ISVTX


def _close_folder(out: OutputFolder, folder: os.stat_result, say: Callable[[str], None]) -> None:
    if _close(out.root, out.mask):
        say(
            f"{out.root} was open to other accounts (mode {stat.S_IMODE(folder.st_mode):04o}), and is closed to them "
            "now; a folder that a group shares needs the setgid bit: chmod g+s"
        )


def _create(root: Path) -> tuple[os.stat_result, list[Path]]:
    """Create the folder if it is missing, and return its mode and owner and the entries that it had."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return root.stat(), list(root.iterdir())
    except FileExistsError:
        raise UsageError(f"{root} is a file; studies are kept in a folder") from None
    except OSError as error:
        raise UsageError(f"{root} cannot be used as the folder for studies: {error.strerror or error}") from None


def _check_owners(out: OutputFolder, entries: list[Path], folder: os.stat_result) -> None:
    for entry in entries:
        with suppress(FileNotFoundError):
            owner = entry.lstat().st_uid
            if out.is_ours(entry) and owner not in (os.geteuid(), folder.st_uid):
                raise UsageError(
                    f"{entry} belongs to another account (user id {owner}), and every account can write to {out.root}; "
                    "name another folder with --out"
                )


def _create_subfolders(out: OutputFolder) -> Iterator[Path]:
    for folder in (out.studies, out.bundles, out.server, out.mlflow_artifacts):
        with suppress(OSError):  # it exists already, and is closed with the other entries, or it cannot be created
            folder.mkdir(mode=0o777 & ~out.mask)
            yield folder


def _create_file(path: Path, mode: int) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
    except FileExistsError:  # another process was faster
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be created: {error.strerror or error}") from None


def _close(path: Path, mask: int) -> bool:
    """Remove the permission bits of `mask` from a file or folder, and return whether it had any of them. Links and
    what belongs to another account are left unchanged."""
    with suppress(OSError):
        found = path.lstat()
        if found.st_mode & mask and not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(found.st_mode) & ~mask)
            return True
    return False
