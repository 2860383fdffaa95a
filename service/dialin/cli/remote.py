"""The commands that go to a server. They show what comes back as the local ones show what is on disk."""

from __future__ import annotations

import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dialin.cli.output import INTERRUPTED, WATCHING_ENDED, console, exit_code, print_json, print_text
from dialin.cli.showing import mirror_line, show_claim, show_list, show_result, show_study, show_trial
from dialin.client.client import Client, Event, StudyHandle
from dialin.errors import NoResultError, ServerError, UsageError
from dialin.lifecycle import StudyState, TrialState
from dialin.planning.plan import ClusterShape, Plan, plan_study
from dialin.results.looks import looks_of
from dialin.results.summary import Best, Result
from dialin.search.decision import Decision
from dialin.search.ranking import LOSS
from dialin.search.records import Trial, TrialRecord, trial_log_name
from dialin.settings import ServerAddress
from dialin.specification import spec_of_study
from dialin.specification.findings import RULES, Finding
from dialin.specification.study_spec import StudySpec
from dialin.store.studies import StudyRow
from dialin.study_flow.progress import Progress, StudyClock
from dialin.study_flow.schema_builder import study_data, trial_data
from dialin.study_flow.snapshot import StudySnapshot

_ENDS = (TrialState.COMPLETE.value, TrialState.STOPPED.value, TrialState.DIVERGED.value, TrialState.FAILED.value)
_PLENTY = ClusterShape(cpus=1e6, gpus=1e6)  # what the server has is not known here


def run(verb: str, address: ServerAddress, arguments: Namespace) -> int:
    """Run one command against a server. Returns the exit code; raises what `dialin.client.client` does."""
    with Client(address.url, address.token) as client:
        return _VERBS[verb](client, arguments) or 0


def read_remote(study: StudyHandle, trials: Sequence[Mapping[str, Any]]) -> StudySnapshot:
    """A study as `dialin.study_flow.read_back` reads it from disk, with these of its trials. Raises UnreadableError for
    one that is damaged or of another version, ServerError for an answer that cannot be read."""
    detail = study.detail()
    info = study.info
    try:
        spec = spec_of_study(info.id, detail["spec"])
        row = StudyRow(
            info.id, info.name, StudyState(info.state), info.reason, detail["spec"], {}, info.created_at, info.ended_at
        )
        records = [record_of(trial) for trial in trials]
        lines = detail["calibration"]
        calibration = _Lines(tuple(map(str, lines))) if lines else None
        result = _result(study, detail)
        return StudySnapshot(
            row,
            spec,
            records,
            result,
            calibration,
            info.mirror_lag,
            detail["claim"] or "",
            info.mirror_note,
            [str(line) for line in detail.get("history", ())],  # an older server has none
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the server answers with a study that cannot be read: {error!r}") from error


def record_of(data: Mapping[str, Any]) -> TrialRecord:
    """A trial from its JSON; an epoch without a finite value has NaN. Raises KeyError, TypeError or ValueError."""
    values = {int(epoch): math.nan if value is None else float(value) for epoch, value in data["values"].items()}
    return TrialRecord(
        number=int(data["trial"]),
        state=TrialState(data["state"]),
        params=data["params"],
        seed=int(data["seed"]),
        values=values,
        decision=_decision(TrialState(data["state"]), data),
        metrics={} if data.get("loss") is None else {LOSS: float(data["loss"])},
        # A newer server may know rules that are not known here.
        findings=tuple(_finding(found) for found in data["findings"] if found["code"] in RULES),
        started_at=data.get("started_at"),
        ended_at=data.get("ended_at"),
        continues=data["continues"],
        began=min(values) - 1 if values else int(data["epochs"]),
    )


def _decision(state: TrialState, data: Mapping[str, Any]) -> Decision | None:
    """The decision of a trial or of an event; of an older server, which says it in words alone, the words."""
    if data.get("decision"):
        return Decision.from_data(data["decision"])
    return Decision.of_state(state, str(data["reason"])) if data["reason"] else None


@dataclass(frozen=True)
class _Lines:
    """What a server says of range tests."""

    text: tuple[str, ...]

    def lines(self) -> list[str]:
        return list(self.text)


def _finding(data: Mapping[str, Any]) -> Finding:
    return Finding(data["code"], int(data["epoch"]), data["evidence"], data["layer"])


def _result(study: StudyHandle, detail: Mapping[str, Any]) -> Result:
    info = study.info
    try:
        found = study.best()
        best = Best(found.trial, found.value, found.epoch, found.params)
    except NoResultError:
        best = None
    return Result(
        study_id=info.id,
        state=info.state,
        metric=info.metric,
        mode=info.mode,
        best=best,
        looks=looks_of({"test_looks": detail.get("test_looks", ())}),
        trials={end: int(info.trials.get(end, 0)) for end in _ENDS},
        epochs={kind: count if isinstance(count, int) else float(count) for kind, count in detail["epochs"].items()},
        seconds=float(info.seconds),
        paths={"best_config": None, "mlflow": None, "storage": None},
        reason=info.reason,
    )


def _submit(client: Client, arguments: Namespace) -> int:
    study = client.submit(arguments.spec, priority=arguments.priority, overrides=_overrides(arguments))
    if arguments.watch:
        return _follow(study, arguments)
    _print_study(study, arguments)
    return 0


def _overrides(arguments: Namespace) -> list[str]:
    return [*arguments.overrides, *([f"budget.trials={arguments.trials}"] if arguments.trials is not None else [])]


def _list(client: Client, arguments: Namespace) -> None:
    rows = [_row(study) for study in client.studies(arguments.state or (), page=200)]
    if arguments.json:
        print_json(rows)
    else:
        show_list(console(), rows, arguments.state or ())


def _row(study: StudyHandle) -> dict[str, Any]:
    """A study as the local list has it, and whose it is."""
    info = study.info
    return {
        "study_id": info.id,
        "name": info.name,
        "state": info.state,
        "reason": info.reason,
        "unreadable": info.unreadable,
        "metric": info.metric,
        "best": info.best,
        "trials": {end: info.trials.get(end, 0) for end in _ENDS},
        "seconds": info.seconds,
        "created_at": info.created_at,
        "ended_at": info.ended_at,
        "owner": info.owner,
        "priority": info.priority,
        "mirror_lag": info.mirror_lag,
    }


def _show(client: Client, arguments: Namespace) -> None:
    study = client.study(arguments.study)
    if arguments.trial is not None:
        back = read_remote(study, [study.trial(arguments.trial)])
        if arguments.json:
            print_json(trial_data(back, arguments.trial))
        else:
            show_trial(console(), back, arguments.trial)
        return
    back = read_remote(study, study.trial_list())
    if arguments.json:
        print_json(study_data(back))
        return
    show_study(console(), back, is_here=False)
    _say_links(study)


def _best(client: Client, arguments: Namespace) -> None:
    study = client.study(arguments.study)
    if arguments.yaml:
        print_text(study.best_yaml(), "yaml" if arguments.json else None)
        return
    _print_result(study, [], arguments)


def _print_result(study: StudyHandle, trials: Sequence[Mapping[str, Any]], arguments: Namespace) -> None:
    back = read_remote(study, trials)
    if arguments.json:
        print_json(back.result.to_data())
        return
    show_result(console(), back.spec, back.result, mirror_line(back, is_here=False))
    if back.trials:
        show_claim(console(), back.spec, back.trials, back.verdict)
    _say_links(study)


def _watch(client: Client, arguments: Namespace) -> int:
    return _follow(client.study(arguments.study), arguments)


def _follow(study: StudyHandle, arguments: Namespace) -> int:
    """Show what happens in a study until it has ended, and what came out."""
    if not study.info.ended:
        spec = spec_of_study(study.id, study.detail()["spec"])
        clock = StudyClock(study.info.started_at or time.time())
        with Progress(console(stderr=arguments.json), clock, late=True) as progress:
            replay = Replay(progress, study, spec, clock)
            try:
                for event in study.events():
                    replay.take(event)
            except KeyboardInterrupt:
                print(WATCHING_ENDED, file=sys.stderr)
                return INTERRUPTED
    _print_result(study, study.trial_list(), arguments)
    return exit_code(study.state)


class Replay:
    """Tells the terminal's progress of a server's events."""

    def __init__(self, progress: Progress, study: StudyHandle, spec: StudySpec, clock: StudyClock) -> None:
        self._progress = progress
        self._study = study
        self._spec = spec
        self._clock = clock
        self._planned = False
        self._trials: dict[int, Trial] = {}
        self._told = ""

    def take(self, event: Event) -> None:
        """One event. Raises ServerError for one that cannot be read; of a kind that is not known, it is passed over."""
        try:
            self._take(event)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"the server tells of {event.kind} what cannot be read: {error!r}") from error

    def _take(self, event: Event) -> None:
        data = event.data
        match event.kind:
            case "note":
                self._progress.note(str(data["text"]))
            case "study":
                self._stands()
            case "trial_started":
                self._plan()
                trial = Trial(int(data["trial"]), data["params"], 0, int(data.get("epochs", 0)))
                self._trials[trial.number] = trial
                self._progress.trial_started(trial)
                self._clock.run()
            case "epoch":
                value = math.nan if data["value"] is None else float(data["value"])
                self._progress.epoch_done(self._trial(data), int(data["epoch"]), value)
            case "trial_ended":
                state = TrialState(data["state"])
                self._progress.trial_ended(self._trial(data), _decision(state, data) or Decision.of_state(state))

    def _stands(self) -> None:
        """Say where the study stands when that has changed; all there is to say where no trial is told of."""
        info = self._study.info
        line = info.line() if info.state == "running" and not self._trials else f"study {info.id} is {info.state}"
        if not info.ended and line != self._told and not self._trials:
            self._told = line
            self._progress.note(line)

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._progress.planned(self._study.id, _plan(self._spec, self._study.info.concurrency), ())

    def _trial(self, data: Mapping[str, Any]) -> Trial:
        number = int(data["trial"])
        return self._trials.get(number) or Trial(number, {}, 0)


def _plan(spec: StudySpec, concurrency: int | None) -> Plan:
    plan = plan_study(spec, _PLENTY)
    return plan if concurrency is None else replace(plan, concurrency=concurrency)


def _stop(client: Client, arguments: Namespace) -> None:
    study = client.study(arguments.study).stop()
    if arguments.json:
        print_json(asdict(study.info))
    else:
        print(f"study {study.id} is {study.state}" if study.info.ended else f"study {study.id} was asked to stop")


def _resume(client: Client, arguments: Namespace) -> None:
    _refuse_local(arguments)
    _print_study(client.study(arguments.study).resume(), arguments)


def _extend(client: Client, arguments: Namespace) -> None:
    _refuse_local(arguments)
    _print_study(client.study(arguments.study).extend(arguments.trials, arguments.epochs), arguments)


def _refuse_local(arguments: Namespace) -> None:
    for option, value in (("--runner", arguments.runner), ("--data-dir", arguments.data_dir)):
        if value is not None:
            raise UsageError(f"{option} {value}: the server decides where trials run and where data sets are")


def _logs(client: Client, arguments: Namespace) -> None:
    study, trial = client.study(arguments.study), arguments.trial
    name = "driver.log" if trial is None else trial_log_name(trial)
    print_text(study.logs(arguments.tail, trial), name if arguments.json else None)


def _print_study(study: StudyHandle, arguments: Namespace) -> None:
    if arguments.json:
        print_json(asdict(study.info))
        return
    print_text(study.info.line())
    if not study.info.ended:
        print(f"watch it             dialin watch {study.id}")
    _say_links(study)


def _say_links(study: StudyHandle) -> None:
    for what, name in (("its page", "page"), ("in MLflow", "mlflow")):
        if (link := study.link(name)) is not None:
            print(f"{what:<20} {link}")


_VERBS: Mapping[str, Callable[[Client, Namespace], int | None]] = {
    "submit": _submit,
    "list": _list,
    "show": _show,
    "watch": _watch,
    "best": _best,
    "stop": _stop,
    "resume": _resume,
    "extend": _extend,
    "logs": _logs,
}
