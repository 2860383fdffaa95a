"""Optuna's tables of trials, which have no public name.

`KNOWN` is False where Optuna lays its rows out otherwise than the versions that this was written for; then Optuna's own
methods are used, which are slower.
"""

from __future__ import annotations

from optuna.storages._rdb import models as models

TRIALS, PARAMS = models.TrialModel.__table__, models.TrialParamModel.__table__
ATTRIBUTES, FINAL = models.TrialUserAttributeModel.__table__, models.TrialValueModel.__table__
REPORTED = models.TrialIntermediateValueModel.__table__

_COLUMNS = {
    TRIALS: {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
    PARAMS: {"param_id", "trial_id", "param_name", "param_value", "distribution_json"},
    ATTRIBUTES: {"trial_user_attribute_id", "trial_id", "key", "value_json"},
    FINAL: {"trial_value_id", "trial_id", "objective", "value", "value_type"},
    REPORTED: {
        "trial_intermediate_value_id",
        "trial_id",
        "step",
        "intermediate_value",
        "intermediate_value_type",
    },
}
KNOWN = all({column.name for column in table.columns} == names for table, names in _COLUMNS.items())
