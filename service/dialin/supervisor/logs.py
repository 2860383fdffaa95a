"""Logging of dialin's processes: one handler, as text for people or as JSON lines for a log collector.

Modules log with `logging.getLogger(__name__)` and configure nothing; only a process's entry point calls `configure`, so
that a program which imports dialin keeps its own logging.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TextIO

from dialin.errors import UsageError

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
OPTUNA_LOGGERS = ("optuna.storages", "optuna.study", "optuna.samplers")
IDS = ("study", "trial", "request_id")
"""Names of the ids that a record may carry."""

_context: ContextVar[Mapping[str, object]] = ContextVar("dialin_log_context", default=MappingProxyType({}))


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Give every record that is logged inside the block, in this thread or task, these ids (names of `IDS`)."""
    unknown = set(ids) - set(IDS)
    if unknown:
        raise ValueError(f"unknown ids {', '.join(sorted(unknown))}; allowed: {', '.join(IDS)}")
    token = _context.set({**_context.get(), **ids})
    try:
        yield
    finally:
        _context.reset(token)


def configure(
    level: str = "warning", form: str = "text", *, loggers: tuple[str, ...] = ("dialin",), stream: TextIO | None = None
) -> logging.Handler:
    """Write the records of these loggers to `stream` (stderr by default) and return the handler that does so.

    Calling it again replaces the handler of the last call. Raises UsageError for a level that is not among `LEVELS` or
    a format that is not among `FORMATS`.
    """
    if level not in LEVELS:
        raise UsageError(f"log level {level!r}; allowed: {', '.join(LEVELS)}")
    if form not in FORMATS:
        raise UsageError(f"log format {form!r}; allowed: {', '.join(FORMATS)}")
    handler = _Handler(stream or sys.stderr)
    handler.addFilter(_add_ids)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name in loggers:
        logger = logging.getLogger(name)
        for old in [each for each in logger.handlers if isinstance(each, _Handler)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(level.upper())
    return handler


def quiet_optuna() -> None:
    """Drop Optuna's announcements of each study that it opens and each trial that it suggests; its warnings stay.

    For a process's entry point, like `configure`. The levels are set on Optuna's inner loggers, because importing
    Optuna sets that of the outer one, and a command that does not need Optuna does not import it.
    """
    for name in OPTUNA_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """One line a record: time, level, logger, message, and the ids that are known; a traceback follows on its own
    lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the method of logging.Formatter)
        ids = _ids_of(record)
        suffix = f" [{' '.join(f'{name}={value}' for name, value in ids.items())}]" if ids else ""
        return super().formatMessage(record) + suffix


class JsonFormatter(logging.Formatter):
    """One JSON object a line with `time` (ISO 8601, UTC), `level`, `logger`, `message`, the ids that are known, and
    `exception` (the traceback as text) where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        data: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids_of(record),
        }
        if record.exc_info:
            data["exception"] = self.formatException(record.exc_info)
        return json.dumps(data, ensure_ascii=True, default=str)


class _Handler(logging.StreamHandler[TextIO]):
    """A class of its own, so that `configure` recognizes the handler of an earlier call."""


def _add_ids(record: logging.LogRecord) -> bool:
    """Set the ids of the current context on a record that does not name them itself (`extra={"study": ...}`)."""
    for name, value in _context.get().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def _ids_of(record: logging.LogRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in IDS if getattr(record, name, None) is not None}
