"""A loop survives what its step raises, and the log says what that was."""

from __future__ import annotations

import logging

import pytest

from dialin.supervisor.survive import Survive

LOG = logging.getLogger("dialin.tests.survive")


def test_an_error_is_logged_with_its_traceback_and_the_loop_goes_on(caplog):
    with Survive(LOG, "the step failed") as outcome:
        raise ZeroDivisionError("by nought")
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == ("the step failed", "ERROR")
    assert record.exc_info is not None
    assert "by nought" in str(record.exc_info[1])
    assert isinstance(outcome.error, ZeroDivisionError)


def test_nothing_is_logged_where_nothing_went_wrong(caplog):
    with Survive(LOG, "the step failed") as outcome:
        pass
    assert outcome.error is None
    assert not caplog.records


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_not_survived(end):
    with pytest.raises(end), Survive(LOG, "the step failed"):
        raise end


def test_errors_that_are_named_are_raised(caplog):
    with pytest.raises(OSError, match="of all studies"), Survive(LOG, "the step failed", unless=(OSError,)):
        raise OSError("of all studies")
    assert not caplog.records
