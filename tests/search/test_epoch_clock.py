"""The limit of an epoch: what is given, or what follows from the epochs so far."""

from __future__ import annotations

import pytest

from dialin.search.epoch_clock import EpochClock, duration


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def after(minutes, *events):
    """A clock of which things are told at seconds: ("begin", trial, epochs done), ("report", trial, epochs), ("end",
    trial)."""
    clock = Clock()
    epochs = EpochClock(minutes, clock)
    for at, name, *arguments in events:
        clock.now = at
        getattr(epochs, name)(*arguments)
    return clock, epochs


@pytest.mark.parametrize(
    ("minutes", "events", "limit", "text"),
    [
        (10, [(0, "begin", 0, 0)], 600, "epoch 1 was not reported within 10 min, and the limit is 10 min (budget.epoch_minutes)"),
        (0.5, [(0, "begin", 0, 4), (7, "report", 0, 2)], 37, "epoch 7 was not reported within 30 s, and the limit is 30 s"),
        (None, [(0, "begin", 0, 0)], 43200, "the limit is 12 h (before any epoch was reported; set budget.epoch_minutes"),
        (None, [(0, "begin", 0, 0), (3, "report", 0, 2)], 1803, "the limit is 30 min (the slowest epoch took 1.5 s; set"),
        (None, [(0, "begin", 0, 0), (400, "report", 0, 1)], 8400, "the limit is 2.22 h (the slowest epoch took 6.67 min"),
        (None, [(0, "begin", 1, 0), (400, "report", 1, 1), (500, "begin", 0, 0)], 8500, "epoch 1 was not reported"),
    ],
)  # fmt: skip
def test_the_limit(minutes, events, limit, text):
    clock, epochs = after(minutes, *events)
    clock.now = limit
    assert epochs.overdue_text(0) is None
    clock.now = limit + 0.001
    assert text in epochs.overdue_text(0)


@pytest.mark.parametrize(
    ("minutes", "events"),
    [
        (0, [(0, "begin", 0, 0)]),  # there is no limit
        (10, []),  # it waits for a worker
        (10, [(0, "begin", 0, 0), (1, "end", 0)]),  # it is paused, or has ended
        (10, [(0, "begin", 0, 0), (1e6 - 1, "report", 0, 1)]),
        (10, [(0, "begin", 0, 0), (1, "end", 0), (1e6 - 1, "begin", 0, 1)]),  # another worker took it up
    ],
)
def test_what_is_not_overdue(minutes, events):
    clock, epochs = after(minutes, *events)
    clock.now = 1e6
    assert epochs.overdue_text(0) is None


def test_said_again_a_beginning_changes_nothing():
    clock, epochs = after(1, (0, "begin", 0, 0), (50, "begin", 0, 0))
    clock.now = 61.0
    assert epochs.overdue_text(0) is not None
    assert not epochs.is_idle
    epochs.end(0)
    assert epochs.is_idle


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (3.14, "3.1 s"), (45.2, "45 s"), (150, "2.5 min"), (43200, "12 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
