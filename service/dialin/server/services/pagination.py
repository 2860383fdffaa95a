"""Cursors: the place in a list where its next page begins, as text that only this server reads."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from dialin.errors import UsageError

MOST_OFFSET = 2**31


def encode_cursor(*values: float | str) -> str:
    """A cursor that holds these values."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def decode_offset(cursor: str | None) -> int:
    """The offset in a cursor; 0 without one. Raises UsageError for text that is not such a cursor."""
    if cursor is None:
        return 0
    (offset,) = _decode(cursor, (int,))
    if not 0 <= offset < MOST_OFFSET:
        raise _not_a_cursor(cursor)
    return int(offset)


def decode_position(cursor: str | None) -> tuple[float, str] | None:
    """The time and the id in a cursor; None without one. Raises UsageError for text that is not such a cursor."""
    if cursor is None:
        return None
    moment, study_id = _decode(cursor, (float, str))
    return float(moment), str(study_id)


def _decode(cursor: str, kinds: tuple[type, ...]) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise _not_a_cursor(cursor) from None
    if not isinstance(values, list) or len(values) != len(kinds):
        raise _not_a_cursor(cursor)
    if not all(_is_valid(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise _not_a_cursor(cursor)
    return values


def _is_valid(value: object, kind: type) -> bool:
    # A database takes no NaN and no half of a surrogate pair.
    whole = value.isprintable() if isinstance(value, str) else not isinstance(value, float) or math.isfinite(value)
    return type(value) is kind and whole


def _not_a_cursor(cursor: str) -> UsageError:
    return UsageError(f"cursor {cursor[:80]!r} is none that this server gave; send the `next` of a page as it is")
