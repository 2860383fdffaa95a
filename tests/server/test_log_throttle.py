"""A log that nobody who asks can fill."""

from __future__ import annotations

import logging

import pytest

from dialin.server.log_throttle import QUIET_SECONDS, LogThrottle


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(clock):
    """What loggers write, and the loggers to write with: lines, log(name)."""
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record):
            written.append(record.getMessage())

    handler, loggers = Handler(), []
    handler.addFilter(LogThrottle(clock))

    def log(name):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
        loggers.append(logger)
        return logger

    yield written, log
    for logger in loggers:
        logger.removeHandler(handler)
        logger.propagate = True


def test_one_record_of_a_kind_a_minute_which_says_how_many_it_stands_for(lines, clock):
    written, log = lines
    api = log("dialin.server.problems")
    for number in range(1000):
        api.error("the database: %s", number)
        api.error("another kind")
        clock.now += 0.01
    assert written == ["the database: 0", "another kind"]
    clock.now += QUIET_SECONDS
    api.error("the database: %s", "still away")
    assert written[2:] == ["the database: still away (999 more like this since the last one)"]


def test_errors_of_different_places_are_different_kinds(lines):
    written, log = lines
    api = log("dialin.server.problems")
    for place in (_divide, _index):
        for _ in range(10):
            try:
                place()
            except (ZeroDivisionError, IndexError) as error:
                api.error("unexpected", exc_info=error)
    assert written == ["unexpected", "unexpected"]


def _divide():
    return 1 // 0


def _index():
    return [][0]


def test_what_no_request_causes_is_written_always(lines):
    written, log = lines
    for _ in range(10):
        log("dialin.server.reconciler").warning("study %s", "x")
    assert len(written) == 10
