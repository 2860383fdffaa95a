from __future__ import annotations

import pytest

from dialin.events.log import EventLog


@pytest.fixture(autouse=True)
def close_logs(monkeypatch):
    """Closes what a test opened, as the death of its process would."""
    opened = []
    start = EventLog.__init__
    monkeypatch.setattr(EventLog, "__init__", lambda self, folder: (start(self, folder), opened.append(self))[0])
    yield
    for log in opened:
        log.close()
