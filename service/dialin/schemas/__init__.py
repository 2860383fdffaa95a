"""One model for each noun of dialin: what the server answers with, the client returns and the commands print.

They are built from what is stored by `schema_builder` and `plan_builder` of `dialin.study_flow` alone. Times are in
seconds since 1970, and a number that is not finite is null. A reader ignores fields that it does not know: a newer
server may have more.
"""

from __future__ import annotations

from dialin.schemas.common import Mode, Page, Params, Problem, ProblemDocument
from dialin.schemas.server import (
    Bundle,
    Event,
    Extension,
    Health,
    Knob,
    LintWarning,
    Plan,
    PlannedKnob,
    PlannedPrior,
    PlannedResources,
    PlannedTrial,
    Readiness,
    SearchSpace,
    Session,
)
from dialin.schemas.studies import (
    Bound,
    EpochCounts,
    Links,
    LocalStudy,
    Metric,
    ParetoPoint,
    Study,
    StudyInFull,
    StudyPage,
    TestLook,
    TestScores,
    TrialCounts,
)
from dialin.schemas.trials import Best, BestCurve, CurvePoint, Trial, TrialFinding, TrialPage

__all__ = [
    "Best",
    "BestCurve",
    "Bound",
    "Bundle",
    "CurvePoint",
    "EpochCounts",
    "Event",
    "Extension",
    "Health",
    "Knob",
    "Links",
    "LintWarning",
    "LocalStudy",
    "Metric",
    "Mode",
    "Page",
    "Params",
    "ParetoPoint",
    "Plan",
    "PlannedKnob",
    "PlannedPrior",
    "PlannedResources",
    "PlannedTrial",
    "Problem",
    "ProblemDocument",
    "Readiness",
    "SearchSpace",
    "Session",
    "Study",
    "StudyInFull",
    "StudyPage",
    "TestLook",
    "TestScores",
    "Trial",
    "TrialCounts",
    "TrialFinding",
    "TrialPage",
]
