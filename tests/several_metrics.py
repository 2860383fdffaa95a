"""Stored studies of several metrics and with constraints, whose trials no one has trained."""

from __future__ import annotations

from dialin.events.log import EventLog
from dialin.events.types import EpochReported, StudyStarted
from dialin.lifecycle import StudyState, TrialState
from dialin.paths import OutputFolder
from dialin.planning.plan import ClusterShape, plan_study
from dialin.results.summary import summarize
from dialin.search.decision import Decision
from dialin.search.goals import Goals
from dialin.search.storage import opened_storage
from dialin.search.study import Study
from dialin.settings import Settings
from dialin.specification import parse_spec, to_yaml
from dialin.store.studies import Studies, StudyRow

TWO = """
name: two
objective: {dataset: synthetic, metrics: [val_accuracy, parameters]}
constraints: {memory: {max: 400}}
space: {lr: {min: 1e-4, max: 1, log: true}, batch_size: {min: 16, max: 128, log: true}, optimizer: [sgd, adam]}
search: {sampler: random}
early_stopping: off
budget: {trials: 20, epochs: 3}
"""
THREE = TWO.replace("name: two", "name: three").replace("parameters]", "parameters, epoch_seconds]")
BOUNDED = TWO.replace("name: two", "name: bounded").replace(
    "metrics: [val_accuracy, parameters]", "metric: val_accuracy"
)
ONE = BOUNDED.replace("name: bounded", "name: one").replace("constraints: {memory: {max: 400}}\n", "")
# accuracy, parameters, memory of each trial; the front is 1, 4, 0, and of three metrics 2 too
MEASURED = [
    (0.70, 1_000, 100),
    (0.95, 50_000, 300),
    (0.60, 40_000, 200),  # dominated, but the fastest
    (0.99, 900_000, 800),  # violates the constraint
    (0.90, 20_000, 250),
    (0.65, 30_000, 210),
]


def store_study(
    settings: Settings, text: str = TWO, measured=MEASURED, *, state: StudyState | None = StudyState.COMPLETE
) -> StudyRow:
    """Store a study with a trial for each entry, and its event log, as a driver would. `state`: how it has ended; None:
    it runs."""
    spec = parse_spec(text)
    plan = plan_study(spec, ClusterShape(cpus=2))
    settings.out.mkdir(parents=True, exist_ok=True)
    with Studies(settings.database) as studies, opened_storage(settings.database) as storage:
        row = studies.create(spec.name, to_yaml(spec))
        folder = OutputFolder(settings.out).study(row.id)
        study = Study.open(plan, storage, row.id)
        with EventLog(folder.events) as log:
            log.append(StudyStarted(row.id, spec.name, {"metric": spec.objective.metric}, {}, time=1_000))
            for number, (accuracy, parameters, memory) in enumerate(measured):
                trial = study.ask()
                for epoch in (1, 2, 3):
                    value = accuracy - 0.1 * (3 - epoch)
                    metrics = {
                        "val_accuracy": value,
                        "parameters": float(parameters),
                        "memory": float(memory),
                        "epoch_seconds": 5.0 - number if number < 3 else float(number),
                    }
                    others = {name: metrics[name] for name in Goals.of(spec).further}
                    study.report(trial, epoch, value, others)
                    log.append(EpochReported(trial.number, epoch, metrics, value, 2_000 + 1_000 * number + epoch))
                study.tell(trial, Decision.of_state(TrialState.COMPLETE, "trained all 3 epochs"))
        if state is not None:
            result = summarize(spec, row.id, state.value, study.trials())
            studies.end(row.id, state, "", result.to_data())
        return studies.find(row.id)
