"""Optuna's tables of trials, which have no public name: the one module that knows them.

`TESTED_REVISION` and the columns below are those of the versions of Optuna that the statements of `trial_writer` and
`trial_rows` were written for. `are_known` compares a storage with them; where it is false, the same work is done by
Optuna's public methods. They are slower (35 ms instead of a few ms for a trial with its reports on SQLite), and a
report and its decision are then not one transaction.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from optuna.storages import BaseStorage, RDBStorage

models: Any
try:
    from optuna.storages._rdb import models
except ImportError:
    models = None

TESTED_REVISION = "v3.2.0.a"
"""The revision of Optuna's tables, as `RDBStorage.get_current_version` returns it."""

COLUMNS = {
    "TrialModel": {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
    "TrialParamModel": {"param_id", "trial_id", "param_name", "param_value", "distribution_json"},
    "TrialUserAttributeModel": {"trial_user_attribute_id", "trial_id", "key", "value_json"},
    "TrialSystemAttributeModel": {"trial_system_attribute_id", "trial_id", "key", "value_json"},
    "TrialValueModel": {"trial_value_id", "trial_id", "objective", "value", "value_type"},
    "TrialIntermediateValueModel": {
        "trial_intermediate_value_id",
        "trial_id",
        "step",
        "intermediate_value",
        "intermediate_value_type",
    },
}


def _table(name: str) -> Any:
    return getattr(getattr(models, name, None), "__table__", None)


TRIALS, PARAMS = _table("TrialModel"), _table("TrialParamModel")
ATTRIBUTES, FINAL = _table("TrialUserAttributeModel"), _table("TrialValueModel")
SYSTEM_ATTRIBUTES = _table("TrialSystemAttributeModel")
REPORTED = _table("TrialIntermediateValueModel")


def are_known(storage: BaseStorage) -> bool:
    """Whether a storage is a database with the tables that this module knows."""
    return isinstance(storage, RDBStorage) and not differences() and storage.get_current_version() == TESTED_REVISION


@cache
def differences() -> tuple[str, ...]:
    """What the installed Optuna has changed of the models, a sentence each; empty when nothing that is used here."""
    found = []
    for name, wanted in COLUMNS.items():
        table = _table(name)
        if table is None:
            found.append(f"optuna.storages._rdb.models has no {name} with a table")
        elif (columns := {column.name for column in table.columns}) != wanted:
            found.append(f"{name} has the columns {sorted(columns)}, not {sorted(wanted)}")
    if not hasattr(getattr(models, "TrialValueModel", None), "value_to_stored_repr"):
        found.append("TrialValueModel has no value_to_stored_repr")
    for name in ("intermediate_value_to_stored_repr", "stored_repr_to_intermediate_value"):
        if not hasattr(getattr(models, "TrialIntermediateValueModel", None), name):
            found += [f"TrialIntermediateValueModel has no {name}"]
    return tuple(found)
