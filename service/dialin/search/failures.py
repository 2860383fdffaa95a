"""Why trials failed, in one line each, and what their failures have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dialin.texts import MOST_REASON, mask_numbers, one_line, printable

_HEADER = "Traceback (most recent call last)"


def cause_of(traceback: str) -> str:
    """The exception that a traceback ends with, as one line of at most `MOST_REASON` characters; for a text that is not
    a traceback, its last line."""
    lines = printable(traceback).rstrip().split("\n")
    headers = [index for index, line in enumerate(lines) if _HEADER in line]
    if headers:
        # A message may have many lines; it starts with the first one that is not indented, unlike the frames before it.
        own = lines[headers[-1] + 1 :]
        begin = next((index for index, line in enumerate(own) if line and not line[0].isspace()), None)
        if begin is not None:
            return one_line("\n".join(own[begin:]), MOST_REASON)
    return one_line(lines[-1], MOST_REASON) or "no traceback"


def are_alike(causes: Sequence[str]) -> bool:
    """Whether all causes are equal except for numbers and addresses."""
    return len({mask_numbers(cause) for cause in causes}) == 1


def failures_text(causes: Sequence[str], ended: int) -> str:
    """How many of the `ended` trials failed, and the most frequent cause. Empty where none failed."""
    if not causes:
        return ""
    kind, count = Counter(map(mask_numbers, causes)).most_common(1)[0]
    example = next(cause for cause in causes if mask_numbers(cause) == kind)
    failed = f"{len(causes)} of {ended} trial{'' if ended == 1 else 's'} failed"
    return f"{failed}: {example}" if count == len(causes) else f"{failed}, {count} of them with: {example}"
