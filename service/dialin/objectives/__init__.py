"""Objectives: the kinds of training that a study can tune. `build` returns the one that a specification names.

A new objective is a module with a class that implements `base.Objective` and `base.Run`, a branch in `build`, and its
section in `specification/study_spec.py`. It imports what it needs (torch, a user's file) when a trial starts.
"""

from __future__ import annotations

from pathlib import Path

from dialin.objectives.base import Metrics, Objective, Run
from dialin.specification.study_spec import PythonSpec, StudySpec


def build(spec: StudySpec, data_dir: Path) -> Objective:
    """Return the objective of a specification. `data_dir`: the folder with the data sets, to which missing
    ones are downloaded."""
    if isinstance(spec.objective, PythonSpec):
        from dialin.objectives.python_function import PythonFunction

        return PythonFunction.from_spec(spec, spec.objective)
    if spec.objective.dataset == "synthetic":
        from dialin.objectives.synthetic import Synthetic

        return Synthetic.from_spec(spec)
    from dialin.objectives.image_classification import ImageClassification

    return ImageClassification.from_spec(spec, data_dir)


def look_for_data(spec: StudySpec, data_dir: Path) -> str:
    """Return where the data of a study is, or that the first run downloads it; empty for a study without data.

    The data is not read. Raises DataError for a user's file or folder that does not exist.
    """
    if isinstance(spec.objective, PythonSpec) or spec.objective.dataset in ("synthetic", "digits"):
        return ""
    from dialin.training.sources import find_data

    return find_data(spec.objective.dataset, data_dir)


__all__ = ["Metrics", "Objective", "Run", "build", "look_for_data"]
