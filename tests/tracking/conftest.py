from __future__ import annotations

import pytest

from service.tracking.spool import Spool


@pytest.fixture(autouse=True)
def close_spools(monkeypatch):
    """Closes what a test opened, as the death of its process would."""
    opened = []
    start = Spool.__init__
    monkeypatch.setattr(Spool, "__init__", lambda self, folder: (start(self, folder), opened.append(self))[0])
    yield
    for spool in opened:
        spool.close()
