"""What can be tuned. `build` gives the objective that a specification names; what that needs is loaded later."""

from __future__ import annotations

from pathlib import Path

from dialin.objectives.base import Metrics, Objective, Run
from dialin.specification.study_spec import PythonSpec, StudySpec


def build(spec: StudySpec, data_dir: Path) -> Objective:
    """The objective of a specification; data sets are looked for, and downloaded to, below `data_dir`."""
    if isinstance(spec.objective, PythonSpec):
        from dialin.objectives.python_function import PythonFunction

        return PythonFunction.from_spec(spec.objective, spec.budget.epochs)
    if spec.objective.dataset == "synthetic":
        from dialin.objectives.synthetic import Synthetic

        return Synthetic.from_spec(spec)
    from dialin.objectives.image_classification import ImageClassification

    return ImageClassification.from_spec(spec, data_dir)


def look_for_data(spec: StudySpec, data_dir: Path) -> str:
    """Where the data of a study lies, or that it has to be downloaded first; empty where none is needed. Nothing is
    read. Raises DataError for a person's own file or folder that is not there."""
    if isinstance(spec.objective, PythonSpec) or spec.objective.dataset in ("synthetic", "digits"):
        return ""
    from dialin.training.sources import find_data

    return find_data(spec.objective.dataset, data_dir)


__all__ = ["Metrics", "Objective", "Run", "build", "look_for_data"]
