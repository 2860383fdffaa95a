"""Formats times and reasons as texts for the page and the charts."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dialin.lifecycle import TRIAL_ENDED
from dialin.search.decision import Decision
from dialin.texts import MOST_VALUE, one_line


def duration(seconds: float | None) -> str:
    """Return a duration as a text: `8 s`, `4 min`, `2 h 5 min`, `3 days`; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole < 600 and whole % 60 else "")
    if whole < 172_800:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {minutes} min" if minutes else "")
    return f"{whole // 86_400} days"


def ago(then: float | None, now: float) -> str:
    """Return how long ago a moment was, such as "4 min ago". Both are in seconds since 1970.

    Minutes are the smallest unit: a page that is fetched again then mostly equals the one before, and is not sent.
    """
    if then is None:
        return ""
    passed = now - then
    return "just now" if passed < 60 else f"{duration(passed // 60 * 60)} ago"


def moment(then: float) -> str:
    """Return a moment, in seconds since 1970, as date and time in UTC."""
    return datetime.datetime.fromtimestamp(then, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def cut(text: str) -> str:
    """Return a reason, shortened to fit a table cell."""
    return one_line(text, MOST_VALUE)


def why_ended(trials: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Return why trials ended, the most frequent reason first: (state, `Decision.summary`, number of trials)."""
    counts = Counter(
        (trial["state"], Decision.from_data(trial["decision"]).summary())
        for trial in trials
        if trial["state"] in TRIAL_ENDED and trial["decision"]
    )
    return [(state, reason, count) for (state, reason), count in counts.most_common()]
