"""The short version of `make faults`: each fault once or a few times, at moments drawn anew in every run."""

from __future__ import annotations

import random

import pytest

from tests import others
from tests.faults import injections
from tests.faults.run import faults

pytestmark = others.RAY
NAMES = ["woken", "worker", "checkpoint", "storage", "disk", "recorder", "folder"]
# These take 15 to 40 seconds each.
SLOW = ["driver", "writes", "node", "mlflow", "mlflow-down", "mlflow-frozen"]


@pytest.mark.timeout(420)
@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_nothing_is_lost(name, tmp_path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown when it fails
    try:
        row = faults(True, random.Random(seed), tmp_path)[name]()
    except injections.Skipped as why:
        pytest.skip(str(why))
    assert row.lost == 0
