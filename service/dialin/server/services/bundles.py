"""The files that callers send for functions of their own: kept by digest while a study uses them, within quotas."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa

from dialin import schemas
from dialin.errors import ForbiddenError, NotFoundError, TooLargeError
from dialin.lifecycle import Role, check_role
from dialin.paths import OutputFolder
from dialin.settings import ServerSettings, Settings
from dialin.specification.code_bundle import MOST_BYTES, disk_bytes, unpack
from dialin.store.bundles import Bundles
from dialin.store.tokens import Identity

_LOG = logging.getLogger(__name__)

CLEAN_SECONDS = 600.0  # between two removals of unused bundles
_PARTIAL_SECONDS = 3600.0  # after which a folder that is still partial was left behind by a crash


class BundleService:
    """The bundles below the output folder. Thread safe. `clock`: seconds since 1970."""

    def __init__(self, settings: Settings, limits: ServerSettings, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._limits, self._clock = OutputFolder(settings.out).bundles, limits, clock
        self._is_allowed = settings.allow_code
        self._rows = Bundles(settings.database)
        self._lock = threading.Lock()  # two callers may send the same files at the same time
        self._ended = threading.Event()

    def close(self) -> None:
        """Have `run` end, and close the connections to the database."""
        self._ended.set()
        self._rows.close()

    def check_allowed(self) -> None:
        """Raise ForbiddenError where this server does not run callers' code."""
        if not self._is_allowed:
            raise ForbiddenError(
                "this server does not run users' code; its administrator can allow it with DIALIN_ALLOW_CODE=1"
            )

    def receive(self, caller: Identity, data: bytes) -> schemas.Bundle:
        """Keep the files of a caller. Raises ForbiddenError, and as `add`."""
        check_role(caller.name, caller.role, Role.SUBMITTER, "send files")
        self.check_allowed()
        digest, files = self.add(caller.name, data)
        return schemas.Bundle(bundle=digest, files=files)

    def add(self, owner: str, data: bytes) -> tuple[str, int]:
        """Unpack an archive. Returns its digest and its number of files.

        Raises BundleError for an archive that may not be unpacked, TooLargeError for one that does not fit.
        """
        if len(data) > MOST_BYTES:
            raise TooLargeError(f"the bundle has {len(data)} bytes; at most {MOST_BYTES} are taken")
        digest, size = hashlib.sha256(data).hexdigest(), disk_bytes(data)
        try:
            self._record(owner, digest, size)
        except TooLargeError:
            if not self.remove_unused():
                raise
            self._record(owner, digest, size)
        folder = self._folder / digest
        with ExitStack() as undo, self._lock:
            undo.callback(self._rows.remove, owner, digest)
            if not folder.exists():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                unpack(data, folder)
            undo.pop_all()
        return digest, sum(file.is_file() for file in folder.rglob("*"))

    def find(self, digest: str) -> Path:
        """The folder of a bundle, whose time until it is removed begins anew. Raises NotFoundError."""
        is_digest = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        if not is_digest or not (self._folder / digest).is_dir() or not self._rows.touch(digest, self._clock()):
            raise NotFoundError(f"no bundle {digest[:80]!r}; send it first")
        return self._folder / digest

    def remove_unused(self) -> int:
        """Remove the bundles that no study uses and that were sent long enough ago. Returns how many these were."""
        unused = self._rows.remove_unused(self._clock() - 3600.0 * self._limits.bundle_hours)
        with self._lock:
            for digest in unused:
                shutil.rmtree(self._folder / digest, ignore_errors=True)
        if unused:
            _LOG.info("%d bundles that no study uses were removed", len(unused))
        return len(unused)

    def run(self) -> None:
        """Remove unused bundles every CLEAN_SECONDS, until `close`."""
        self.adopt_unknown()
        while not self._ended.wait(CLEAN_SECONDS):
            try:
                self.remove_unused()
            except sa.exc.SQLAlchemyError as error:  # the database may be away; the next round tries again
                _LOG.warning("unused bundles were not removed: %s", error)

    def _record(self, owner: str, digest: str, size: int) -> None:
        most = {"most_of_owner": self._limits.bundle_bytes, "most_of_all": self._limits.all_bundles_bytes}
        self._rows.add(owner, digest, size, self._clock(), **most)

    def adopt_unknown(self) -> None:
        """Record the folders that older versions left without a row, and remove those that were left half unpacked."""
        if not self._folder.is_dir():
            return
        sizes = {}
        for folder in self._folder.iterdir():
            if not folder.name.startswith("partial-"):
                sizes[folder.name] = sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))
            elif self._clock() - folder.stat().st_mtime > _PARTIAL_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        self._rows.adopt(sizes, self._clock())
