"""The files of a study's result, in its folder: those that MLflow gets a copy of, and the chart of a Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dialin.charts.pareto import axes_of, marks_of, write_pareto_chart
from dialin.paths import StudyFolder
from dialin.results.export import PARETO_INDEX, pareto_file
from dialin.results.summary import Result
from dialin.search.goals import Goals
from dialin.search.records import TrialRecord
from dialin.specification.study_spec import StudySpec
from dialin.study_flow.schema_builder import TRIAL_FIELDS

MOST_CONFIGS = 100  # of a front that MLflow gets: each file is a request


def draw_front(spec: StudySpec, result: Result, records: Sequence[TrialRecord], path: Path) -> None:
    """Write the chart of the Pareto front to a file."""
    goals = Goals.of(spec)
    wanted = ("trial", "state", "metrics", "violated")
    trials = [{name: TRIAL_FIELDS[name](record, goals) for name in wanted} for record in records]
    write_pareto_chart(marks_of(trials, {one.trial for one in result.front}), axes_of(spec), path)


def files_for_mlflow(folder: StudyFolder, result: Result) -> list[Path]:
    """Return the files that exist: the configurations, the range tests, the charts. Of a front of more than
    MOST_CONFIGS trials, some of the configurations, spread evenly over the front."""
    every = max(1, -(-len(result.front) // MOST_CONFIGS))
    names = [PARETO_INDEX, *(pareto_file(one.trial) for one in result.front[::every])] if result.front else []
    known = [folder.best_config, folder.calibration, folder.range_tests_plot, folder.pareto_plot]
    return [file for file in (*known, *(folder.pareto / name for name in names)) if file.exists()]
