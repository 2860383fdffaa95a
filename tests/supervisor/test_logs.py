"""Logging of processes: text for people, JSON lines for collectors, ids from the context."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest

from dialin.errors import UsageError
from dialin.supervisor.logs import configure, log_context

NAME = "dialin.tests.logs"


@pytest.fixture
def stream():
    logger = logging.getLogger(NAME)
    yield io.StringIO()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_text_names_time_level_logger_and_ids(stream):
    configure("info", loggers=(NAME,), stream=stream)
    with log_context(study="digits-1", trial=3):
        logging.getLogger(f"{NAME}.driver").info("began with %d trials", 4)
    line = stream.getvalue()
    assert line.endswith(f" INFO {NAME}.driver: began with 4 trials [study=digits-1 trial=3]\n")


def test_json_is_one_object_a_line_with_ids_and_exception(stream):
    configure("info", "json", loggers=(NAME,), stream=stream)
    with log_context(request_id="r-1"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logging.getLogger(NAME).exception("it failed", extra={"study": "digits-1"})
    (line,) = stream.getvalue().splitlines()
    data = json.loads(line)
    assert {**data, "time": "", "exception": ""} == {
        "time": "",
        "level": "error",
        "logger": NAME,
        "message": "it failed",
        "study": "digits-1",
        "request_id": "r-1",
        "exception": "",
    }
    assert data["time"].endswith("+00:00")
    assert "ValueError: two" in data["exception"]


def test_records_below_the_level_are_left_out(stream):
    configure("warning", loggers=(NAME,), stream=stream)
    logging.getLogger(NAME).info("not written")
    assert stream.getvalue() == ""


def test_a_second_call_replaces_the_first(stream):
    configure("info", loggers=(NAME,), stream=io.StringIO())
    configure("info", "json", loggers=(NAME,), stream=stream)
    logging.getLogger(NAME).info("once")
    assert len(stream.getvalue().splitlines()) == 1
    assert len(logging.getLogger(NAME).handlers) == 1


def test_ids_of_one_thread_are_not_those_of_another(stream):
    configure("info", loggers=(NAME,), stream=stream)
    with log_context(study="a"):
        other = threading.Thread(target=lambda: logging.getLogger(NAME).info("of no study"))
        other.start()
        other.join()
    assert "study=" not in stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("loud",), "log level 'loud'; allowed: debug, info, warning, error"),
        (("info", "xml"), "log format 'xml'; allowed: text, json"),
    ],
)
def test_what_is_not_allowed_is_named(arguments, text):
    with pytest.raises(UsageError, match=text):
        configure(*arguments)


def test_an_unknown_id_is_a_mistake_of_the_code():
    with (
        pytest.raises(ValueError, match="unknown ids user; allowed: study, trial, request_id"),
        log_context(user="ana"),
    ):
        pass
