"""Canary: what dialin reads of MLflow's files. A failure names what a new version of MLflow changed."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory

from dialin.store.database_errors import mlflow_revisions
from tests import others

pytestmark = others.MLFLOW


@pytest.fixture
def migrations():
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    assert (folder / "versions").is_dir(), (
        "MLflow no longer keeps its Alembic revisions in mlflow/store/db_migrations/versions, where "
        "dialin.store.database_errors.mlflow_revisions reads them"
    )
    return ScriptDirectory(str(folder))


def test_mlflows_revisions_are_read_as_alembic_reads_them(migrations):
    known, head = mlflow_revisions()
    changed = "MLflow writes its Alembic revisions in a form that mlflow_revisions does not read: "
    assert head == migrations.get_current_head(), changed + f"the newest is {migrations.get_current_head()}"
    missing = {each.revision for each in migrations.walk_revisions()} - known
    assert not missing, changed + f"{sorted(missing)} are missing"
