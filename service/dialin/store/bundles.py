"""The code bundles that a server keeps, and their submitters: one row for each pair of a bundle and a submitter.

The files themselves are in the output folder; a bundle is named by the SHA-256 digest of its archive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import sqlalchemy as sa

from dialin.errors import TooLargeError
from dialin.store.database import Tables
from dialin.store.engine import serialized
from dialin.store.tables import BUNDLES, STUDIES, SUBMISSIONS

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_KEY = "bundles"
_MIB = 2**20


class Bundles(Tables):
    """The table of bundles in the database at an SQLAlchemy URL. Thread safe; a context manager, which closes its
    connections. Times are in seconds since 1970."""

    def add(self, owner: str, digest: str, size: int, now: float, *, most_of_owner: int, most_of_all: int) -> None:
        """Record that `owner` sent a bundle of `size` bytes at `now`, for the first time or again.

        Raises TooLargeError, and records nothing, if that owner's bundles would have more than `most_of_owner` bytes,
        or all bundles more than `most_of_all`.
        """
        with serialized(self._engine, _KEY) as connection:
            mine = (BUNDLES.c.digest == digest) & (BUNDLES.c.owner == owner)
            if connection.execute(sa.update(BUNDLES).where(mine).values(sent_at=now)).rowcount == 0:
                values = {"digest": digest, "owner": owner, "bytes": size, "sent_at": now}
                connection.execute(sa.insert(BUNDLES).values(**values))
                _check(connection, owner, size, most_of_owner, most_of_all)

    def adopt(self, sizes: Mapping[str, int], now: float) -> None:
        """Add rows, with an unknown owner, for bundles on the disk that have no row. `sizes`: bytes by digest."""
        with serialized(self._engine, _KEY) as connection:
            known = set(connection.execute(sa.select(BUNDLES.c.digest)).scalars())
            for digest in sizes.keys() - known:
                values = {"digest": digest, "owner": "", "bytes": sizes[digest], "sent_at": now}
                connection.execute(sa.insert(BUNDLES).values(**values))

    def touch(self, digest: str, now: float) -> bool:
        """Record that a submission refers to a bundle, which restarts the time for which an unused bundle is kept.
        Return False if the bundle is unknown."""
        with serialized(self._engine, _KEY) as connection:
            done = connection.execute(sa.update(BUNDLES).where(BUNDLES.c.digest == digest).values(sent_at=now))
        return done.rowcount > 0

    def remove(self, owner: str, digest: str) -> None:
        """Delete the row of a bundle that an owner sent."""
        with serialized(self._engine, _KEY) as connection:
            mine = (BUNDLES.c.digest == digest) & (BUNDLES.c.owner == owner)
            connection.execute(sa.delete(BUNDLES).where(mine))

    def remove_unused(self, before: float) -> list[str]:
        """Delete the rows of the bundles that were sent before a time and that no study uses, and return their digests.

        A study uses its bundle until it is archived, as one that has ended can be resumed or extended.
        """
        with serialized(self._engine, _KEY) as connection:
            last_sent = sa.func.max(BUNDLES.c.sent_at)
            query = sa.select(BUNDLES.c.digest).group_by(BUNDLES.c.digest).having(last_sent < before)
            old = set(connection.execute(query).scalars())
            unused = sorted(old - _used(connection)) if old else []
            for digest in unused:
                connection.execute(sa.delete(BUNDLES).where(BUNDLES.c.digest == digest))
        return unused


def _used(connection: sa.Connection) -> set[str]:
    """Return the digests in the specifications of all studies that are not archived."""
    joined = STUDIES.outerjoin(SUBMISSIONS, STUDIES.c.id == SUBMISSIONS.c.study_id)
    is_kept = sa.func.coalesce(SUBMISSIONS.c.archived, sa.false()) == sa.false()
    specs = connection.execute(sa.select(STUDIES.c.spec).select_from(joined).where(is_kept)).scalars()
    return {digest for spec in specs for digest in _DIGEST.findall(spec)}


def _check(connection: sa.Connection, owner: str, size: int, most_of_owner: int, most_of_all: int) -> None:
    of_owner = sa.select(sa.func.sum(BUNDLES.c.bytes)).where(BUNDLES.c.owner == owner)
    each = sa.select(BUNDLES.c.digest, sa.func.max(BUNDLES.c.bytes).label("bytes")).group_by(BUNDLES.c.digest)
    of_all = sa.select(sa.func.sum(each.subquery().c.bytes))
    for whose, query, most, setting in (
        (f"the files that {owner} has sent", of_owner, most_of_owner, "DIALIN_BUNDLES_MIB"),
        ("the files that this server keeps", of_all, most_of_all, "DIALIN_ALL_BUNDLES_MIB"),
    ):
        taken = int(connection.execute(query).scalar_one())
        if taken > most:
            raise TooLargeError(
                f"this bundle of {size / _MIB:.1f} MiB does not fit: {whose} would take {taken / _MIB:.1f} MiB, and "
                f"may take {most / _MIB:.0f} ({setting}); archive studies whose files are no longer needed"
            )
