"""People's files on a server: kept by digest, as long as a study uses them, and never more than their quota."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from dialin.errors import NotFoundError, TooLargeError
from dialin.paths import OutputFolder
from dialin.settings import ServerSettings, Settings
from dialin.specification.code_bundle import MOST_BYTES, disk_bytes, unpack
from dialin.store.bundles import Bundles

log = logging.getLogger("dialin.bundles")

CLEAN_SECONDS = 600.0  # between two looks for what is not used any more
_PARTIAL_SECONDS = 3600.0  # after which nobody unpacks there any more


class BundleKeeper:
    """The bundles below the output folder. Thread safe. `clock`: seconds since 1970."""

    def __init__(self, settings: Settings, server: ServerSettings, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._server, self._clock = OutputFolder(settings.out).bundles, server, clock
        self._rows = Bundles(settings.database)
        self._lock = threading.Lock()  # two who send the same files at the same time
        self._ended = threading.Event()

    def close(self) -> None:
        self._ended.set()
        self._rows.close()

    def add(self, owner: str, data: bytes) -> tuple[str, int]:
        """Keep an archive's files; its digest, and how many files there are. Raises BundleError for an archive that may
        not be unpacked, TooLargeError for one that does not fit."""
        if len(data) > MOST_BYTES:
            raise TooLargeError(f"the bundle has {len(data)} bytes; at most {MOST_BYTES} are taken")
        digest, size = hashlib.sha256(data).hexdigest(), disk_bytes(data)
        try:
            self._note(owner, digest, size)
        except TooLargeError:
            if not self.remove_unused():
                raise
            self._note(owner, digest, size)
        folder = self._folder / digest
        try:
            with self._lock:
                if not folder.exists():
                    self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    unpack(data, folder)
        except BaseException:
            self._rows.forget(owner, digest)
            raise
        return digest, sum(file.is_file() for file in folder.rglob("*"))

    def find(self, digest: str) -> Path:
        """The folder of a bundle, which is kept for a while from now on. Raises NotFoundError."""
        is_one = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        if not is_one or not (self._folder / digest).is_dir() or not self._rows.renew(digest, self._clock()):
            raise NotFoundError(f"no bundle {digest[:80]!r}; send it first")
        return self._folder / digest

    def remove_unused(self) -> int:
        """Remove the bundles that no study uses and that were sent long enough ago; how many there were."""
        unused = self._rows.take_unused(self._clock() - 3600.0 * self._server.bundle_hours)
        with self._lock:
            for digest in unused:
                shutil.rmtree(self._folder / digest, ignore_errors=True)
        if unused:
            log.info("%d bundles that no study uses were removed", len(unused))
        return len(unused)

    def keep_clean(self) -> None:
        """Remove what is not used, now and then, until `close`."""
        self._adopt()
        while not self._ended.wait(CLEAN_SECONDS):
            try:
                self.remove_unused()
            except sa.exc.SQLAlchemyError as error:  # the database is away; it will be asked again
                log.warning("unused bundles were not removed: %s", error)

    def _note(self, owner: str, digest: str, size: int) -> None:
        most = {"most_of_owner": self._server.bundle_bytes, "most_of_all": self._server.all_bundles_bytes}
        self._rows.add(owner, digest, size, self._clock(), **most)

    def _adopt(self) -> None:
        """Note bundles of a time when nobody noted them, and remove what was cut off while it was unpacked."""
        if not self._folder.is_dir():
            return
        sizes = {}
        for folder in self._folder.iterdir():
            if not folder.name.startswith("partial-"):
                sizes[folder.name] = sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))
            elif self._clock() - folder.stat().st_mtime > _PARTIAL_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        self._rows.adopt(sizes, self._clock())
