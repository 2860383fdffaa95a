"""When a part that gives no answer counts as hung: a table."""

from __future__ import annotations

import pytest

from dialin.supervisor.health_timeout import HealthTimeout


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("load", "gap", "hung_at"),
    [
        (0.2, 10.0, 3),  # 30 s without an answer, and three probes
        (1.0, 2.0, 15),  # refused at once each time: as long all the same
        (0.0, 40.0, 3),  # a machine that was asleep: never by fewer than three probes
        (2.0, 10.0, 6),  # twice as many processes as processors: twice as long
        (50.0, 10.0, 12),  # and four times at most
    ],
)
def test_how_many_probes_in_a_row_it_takes(load, gap, hung_at):
    clock = Clock()
    patience = HealthTimeout(30.0, clock, lambda: load)
    for probe in range(1, hung_at + 1):
        asked_at, clock.now = clock.now, clock.now + gap
        assert patience.failed(asked_at) is (probe == hung_at), probe


def test_one_answer_is_enough():
    clock = Clock()
    patience = HealthTimeout(30.0, clock, lambda: 1.0)
    for _ in range(20):  # slow, and alive: two of three probes get no answer
        for _ in range(2):
            asked_at, clock.now = clock.now, clock.now + 14.0
            assert not patience.failed(asked_at)
        patience.answered()
    assert patience.silent_seconds == 0.0
