"""What can be tuned. `build` gives the objective that a specification names; what that needs is loaded later."""

from __future__ import annotations

from pathlib import Path

from service.objectives.base import Metrics, Objective, Run
from service.spec.study_spec import PythonSpec, StudySpec


def build(spec: StudySpec, data_dir: Path) -> Objective:
    """The objective of a specification; data sets are looked for, and downloaded to, below `data_dir`."""
    if isinstance(spec.objective, PythonSpec):
        from service.objectives.python_function import PythonFunction

        return PythonFunction.from_spec(spec.objective, spec.budget.epochs)
    if spec.objective.dataset == "synthetic":
        from service.objectives.synthetic import Synthetic

        return Synthetic.from_spec(spec)
    from service.objectives.image_classification import ImageClassification

    return ImageClassification.from_spec(spec, data_dir)


__all__ = ["Metrics", "Objective", "Run", "build"]
