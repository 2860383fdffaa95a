"""Canary: the installed Optuna still has the tables that trials are written to and read from by SQL.

When these tests fail, an upgrade of Optuna has changed them. Nothing is lost meanwhile: its own methods are used, which
are slower. Compare `trial_writer` and `trial_rows` with the new tables, then change `optuna_tables`.
"""

from __future__ import annotations

import optuna
import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection

from dialin.paths import sqlite_url
from dialin.search import optuna_tables
from dialin.search.storage import open_storage
from dialin.search.trial_writer import OptunaTrialWriter, SqlTrialWriter, make_trial_writer


@pytest.fixture
def storage(tmp_path):
    made = open_storage(sqlite_url(tmp_path / "studies.db"))
    yield made
    made.engine.dispose()


def test_the_models_have_the_columns_that_are_used():
    assert optuna_tables.differences() == ()


def test_the_schema_has_the_revision_that_was_tested(storage):
    assert storage.get_current_version() == optuna_tables.TESTED_REVISION
    assert storage.get_head_version() == optuna_tables.TESTED_REVISION


def test_the_database_has_the_columns_of_the_models(storage):
    found = sa.inspect(storage.engine)
    for table in (optuna_tables.TRIALS, optuna_tables.ATTRIBUTES, optuna_tables.REPORTED):
        assert {column["name"] for column in found.get_columns(table.name)} == {column.name for column in table.columns}


def test_unknown_tables_are_left_to_optunas_own_methods(storage, monkeypatch):
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    assert isinstance(make_trial_writer(storage, study_id), SqlTrialWriter)
    monkeypatch.setattr(optuna_tables, "TESTED_REVISION", "v0.0.0")
    assert isinstance(make_trial_writer(storage, study_id), OptunaTrialWriter)


def test_a_change_of_the_models_is_named(monkeypatch):
    columns = {**optuna_tables.COLUMNS, "TrialModel": {"trial_id", "tags"}, "TrialTagModel": {"tag_id"}}
    monkeypatch.setattr(optuna_tables, "COLUMNS", columns)
    optuna_tables.differences.cache_clear()
    try:
        first, second = optuna_tables.differences()
    finally:
        monkeypatch.undo()
        optuna_tables.differences.cache_clear()
    assert first.startswith("TrialModel has the columns ['datetime_complete',")
    assert second == "optuna.storages._rdb.models has no TrialTagModel with a table"


def test_only_a_database_has_tables():
    assert not optuna_tables.are_known(optuna.storages.InMemoryStorage())
