"""What a server does with studies, whoever asks: the HTTP API and the page both come here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from dialin.errors import (
    ConflictError,
    ForbiddenError,
    NoResultError,
    NotFoundError,
    Problem,
    SpecError,
    UnreadableError,
    UsageError,
    did_you_mean,
)
from dialin.lifecycle import ACTIVE, ROLE_FOR_OTHERS, ROLE_FOR_OWN, Role, StudyState, TrialState, check_role
from dialin.paths import OutputFolder, StudyFolder
from dialin.planning.plan import ClusterShape, plan_study
from dialin.results.claims import judge
from dialin.results.diagnosis import diagnose
from dialin.results.export import best_config
from dialin.results.summary import find_best, test_data
from dialin.server.bundles import BundleKeeper
from dialin.server.reading import Reader
from dialin.server.time_left import seconds_left
from dialin.server.trial_view import TrialRows, TrialView
from dialin.server.waiting import waits_for
from dialin.settings import MLFLOW_PATH, ServerSettings, Settings
from dialin.specification import damage_of, parse_spec, spec_of_study, stored_spec, to_yaml
from dialin.specification.study_spec import ObjectiveSpec, PythonSpec, StudySpec
from dialin.specification.yaml_reader import read_yaml
from dialin.store.studies import StudyRow
from dialin.store.submissions import Entry, Submissions
from dialin.store.tokens import Identity
from dialin.study_flow.extend import extend_budget, resolve_warm_start
from dialin.study_flow.views import plan_data
from dialin.texts import one_line, read_tail
from dialin.tracking.lag import Lag

T = TypeVar("T")

# What trials can be sorted by, and the field of a trial that it is.
SORTS: Mapping[str, str] = {
    "number": "trial",
    "value": "value",
    "epochs": "epochs",
    "state": "state",
    "started_at": "started_at",
    "ended_at": "ended_at",
}
API = "/api/v1"
_TRAINING = "workflowType=machine_learning"
_NOTHING_SAID: Mapping[str, Any] = {
    "test": None,
    "test_trial": None,
    "test_looks": [],
    "epochs": {"trained": 0, "repeated": 0, "range_tests": 0.0, "full": 0, "saved": 0, "saved_share": 0.0},
    "seconds_left": None,
    "claim": None,
    "calibration": [],
    "doctor": [],
}
_NO_RUNS: tuple[str, Mapping[str, str]] = ("", {})


class StudyService:
    """Studies of one server. Every method raises the tree's errors. `shape`: what the cluster has. `changed` is called
    when there is something to do."""

    def __init__(
        self,
        settings: Settings,
        server: ServerSettings,
        submissions: Submissions,
        shape: Callable[[], ClusterShape],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._server, self._submissions = settings, server, submissions
        self._shape, self._changed = shape, changed
        self._out = OutputFolder(settings.out)
        self.reader = Reader(settings)
        self.bundles = BundleKeeper(settings, server)

    def plan(self, text: bytes | str, bundle: str | None = None) -> dict[str, Any]:
        """What a specification would do, as `dialin plan --json`; nothing is kept."""
        return plan_data(plan_study(self._checked(text, bundle), self._shape()))

    def submit(
        self, who: Identity, text: bytes | str, *, priority: int = 0, key: str | None = None, bundle: str | None = None
    ) -> tuple[dict[str, Any], bool]:
        """The study that a specification asks for, and whether it is new: one that was asked for under the same key
        before is not."""
        check_role(who.name, who.role, Role.SUBMITTER, "submit studies")
        spec = self._checked(text, bundle)
        plan_study(spec, self._shape())
        raw = text.encode() if isinstance(text, str) else text
        digest = hashlib.sha256(b"\0".join([raw, str(priority).encode(), (bundle or "").encode()])).hexdigest()
        entry, is_new = self._submissions.submit(
            spec.name,
            to_yaml(spec),
            owner=who.name,
            digest=digest,
            priority=priority,
            key=key,
            most_active=self._server.max_studies,
        )
        self._changed()
        return self._data(entry), is_new

    def add_bundle(self, who: Identity, data: bytes) -> dict[str, Any]:
        """Keep a person's files, by their digest."""
        check_role(who.name, who.role, Role.SUBMITTER, "send files")
        self._check_code_allowed()
        digest, files = self.bundles.add(who.name, data)
        return {"bundle": digest, "files": files}

    def page(
        self,
        *,
        states: Sequence[str] = (),
        name: str | None = None,
        owner: str | None = None,
        archived: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Studies, the newest first."""
        before = _read_cursor(cursor, float, str)
        found = self._submissions.page(
            states=[_state(state) for state in states],
            name=name,
            owner=owner,
            archived=archived,
            limit=limit + 1,
            before=(before[0], before[1]) if before is not None else None,
        )
        last = found[limit - 1].study if len(found) > limit else None
        after = _cursor(last.created_at, last.id) if last is not None else None
        return {"studies": [self._data(entry) for entry in found[:limit]], "next": after}

    def entry(self, study_id: str) -> Entry:
        return self._submissions.get(study_id)

    def study(self, study_id: str) -> dict[str, Any]:
        """A study with its specification and what is said of it."""
        entry = self.entry(study_id)
        data = {**self._data(entry), "spec": entry.study.spec, "history": entry.study.history()}
        return {**data, **_tried(lambda: self._said(study_id), _NOTHING_SAID, [])}

    def _said(self, study_id: str) -> Mapping[str, Any]:
        row = self._readable(study_id)
        back, view = self.reader.read_back(row), self.reader.view(row)
        return {
            **test_data(back.result),
            "epochs": dict(back.result.epochs),
            "seconds_left": self._left(study_id, back.spec, view),
            "claim": view.derived(("claim", row.spec), lambda: _verdict(back.spec, view)),
            "calibration": list(back.calibration.lines()) if back.calibration is not None else [],
            "doctor": view.derived("doctor", lambda: [each.text(len(view)) for each in diagnose(view.records)]),
        }

    def _left(self, study_id: str, spec: StudySpec, view: TrialView) -> float | None:
        entry = self.entry(study_id)
        if entry.study.state is not StudyState.RUNNING or entry.submission is None:
            return None  # of the command line's studies nobody knows here how long they were driven
        concurrency = entry.submission.concurrency or 1
        return view.derived(("left", entry.study.spec), lambda: seconds_left(spec, view, _seconds(entry), concurrency))

    def trials(
        self,
        study_id: str,
        *,
        sort: str = "number",
        states: Sequence[str] = (),
        limit: int = 100,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Trials of a study. What has no value comes last, whichever way they are sorted."""
        key, downwards = sort.removeprefix("-"), sort.startswith("-")
        if key not in SORTS:
            raise UsageError(f"sort {sort!r}: {did_you_mean(key, SORTS)}, with a dash before it for downwards")
        wanted = {_trial_state(state) for state in states}
        begin = _read_cursor(cursor, int)
        view, link = self._trials(study_id)
        ordered = view.ordered(SORTS[key], downwards, wanted)
        start = begin[0] if begin is not None else 0
        shown = [{**view.data(index), "link": link(view.records[index].number)} for index in ordered[start:][:limit]]
        more = start + limit < len(ordered)
        return {"trials": shown, "next": _cursor(start + limit) if more else None}

    def trial_rows(self, study_id: str) -> TrialRows:
        """All trials, by number; each field is worked out when it is asked for."""
        view, link = self._trials(study_id)
        return view.rows(link)

    def trial(self, study_id: str, number: int) -> dict[str, Any]:
        view, link = self._trials(study_id)
        if not 0 <= number < len(view):
            there = f"0 to {len(view) - 1}" if len(view) else "none"
            raise NotFoundError(f"no trial {number} in {study_id}; there are {there}")
        return {**view.data(number), "link": link(number)}

    def best(self, study_id: str) -> dict[str, Any]:
        """The best configuration so far. Raises NoResultError, with the reason."""
        back = self.reader.read_back(self._readable(study_id))
        best = back.result.best
        if best is None:
            raise NoResultError(_why_no_result(study_id, back.row.state, back.row.reason))
        about = {"metric": back.result.metric, "mode": back.result.mode, **test_data(back.result)}
        return {**asdict(best), "params": dict(best.params), **about, "state": back.row.state.value}

    def best_yaml(self, study_id: str) -> str:
        """The best configuration as a specification that trains it again."""
        back = self.reader.read_back(self._readable(study_id))
        if back.result.best is None:
            raise NoResultError(_why_no_result(study_id, back.row.state, back.row.reason))
        result, record = back.result, back.trials[back.result.best.trial]
        key = ("yaml", back.row.spec, str(result.best), str(result.test))
        return self.reader.view(back.row).derived(key, lambda: best_config(back.spec, record, result))

    def curve(self, study_id: str) -> dict[str, Any]:
        """How the best value came about."""
        row = self._readable(study_id)
        objective = stored_spec(row.spec).objective
        points, left_out = self.reader.points(row, objective.mode == "max")
        data = [vars(point).copy() for point in points]
        return {"metric": objective.metric, "mode": objective.mode, "points": data, "left_out": left_out}

    def log(self, study_id: str, tail: int) -> str:
        """The last lines of the driver's log; empty before there is one."""
        return read_tail(self.folder(study_id).logs / "driver.log", tail)

    def trial_log(self, study_id: str, number: int, tail: int) -> str:
        """The last lines of what a trial has printed, with the traceback of one that has failed; empty before there are
        any. Raises NotFoundError for a trial that is not there."""
        file = self.folder(study_id).trial_log(number)
        if not file.exists():
            self.trial(study_id, number)
        return read_tail(file, tail)

    def folder(self, study_id: str) -> StudyFolder:
        """Raises NotFoundError, so no id is ever taken for a path that is not a study's."""
        return self._out.study(self.entry(study_id).study.id)

    def act(self, who: Identity, study_id: str, action: str, change: Mapping[str, str | None]) -> dict[str, Any]:
        """Stop a study, have it go on, or with a larger budget. Raises ForbiddenError for somebody else's."""
        entry = self.entry(study_id)
        self._check_owner(who, entry, action)
        if action == "stop":
            entry = self._submissions.want(study_id, False)
        elif action == "resume":
            self._readable(study_id)
            entry = self._submissions.want(study_id, True)
        else:
            spec = extend_budget(stored_spec(self._readable(study_id).spec), change.get("trials"), change.get("epochs"))
            self._check_size(spec)
            entry = self._submissions.extend(study_id, to_yaml(spec), entry)
        self._changed()
        return self._data(entry)

    def archive(self, who: Identity, study_id: str) -> None:
        self._check_owner(who, self.entry(study_id), "archive")
        self._submissions.archive(study_id)

    def _readable(self, study_id: str) -> StudyRow:
        """A study's row, where its specification can be read. Raises UnreadableError."""
        row = self.entry(study_id).study
        spec_of_study(study_id, row.spec)
        return row

    def data(self, study_id: str) -> dict[str, Any]:
        """A study in short."""
        return self._data(self.entry(study_id))

    def _checked(self, text: bytes | str, bundle: str | None) -> StudySpec:
        """The specification, where a server takes it."""
        folder = self.bundles.find(bundle) if bundle is not None else None
        spec = parse_spec(text, folder=folder)
        try:
            spec = self._owned(spec, folder)
            self._check_size(spec)
        except SpecError as error:
            document = read_yaml(text)
            raise SpecError([replace(each, line=document.line(each.path)) for each in error.problems]) from None
        return resolve_warm_start(spec, self._settings)

    def _owned(self, spec: StudySpec, folder: Path | None) -> StudySpec:
        """With nothing in it that lies anywhere on the server but where its data does."""
        objective = spec.objective
        if isinstance(objective, PythonSpec):
            self._check_code_allowed()
            if folder is None or not objective.file.is_relative_to(folder.resolve()):
                problem = "the file must be among those that were sent with the specification"
                raise SpecError([Problem("objective.python", problem)])
            return spec
        return self._with_data_below(spec, objective)

    def _with_data_below(self, spec: StudySpec, objective: ObjectiveSpec) -> StudySpec:
        kind, colon, path = objective.dataset.partition(":")
        if not colon:
            return spec
        data = self._settings.data_dir.resolve()
        whole = (data / path).resolve()
        if not whole.is_relative_to(data):
            raise SpecError([Problem("objective.dataset", f"{path!r} is not below the server's data folder")])
        return spec.model_copy(update={"objective": objective.model_copy(update={"dataset": f"{kind}:{whole}"})})

    def _check_size(self, spec: StudySpec) -> None:
        if spec.budget.trials > self._server.max_trials:
            problem = f"{spec.budget.trials} is more than this server takes, {self._server.max_trials}"
            raise SpecError([Problem("budget.trials", problem)])

    def _check_code_allowed(self) -> None:
        if not self._settings.allow_code:
            raise ForbiddenError("this server runs nobody's own code; who runs it can set DIALIN_ALLOW_CODE=1")

    @staticmethod
    def _check_owner(who: Identity, entry: Entry, action: str) -> None:
        check_role(who.name, who.role, ROLE_FOR_OWN, f"{action} studies")
        if entry.submission is None:
            raise ConflictError(f"study {entry.study.id} was not submitted to a server; it is the command line's")
        if not who.may(ROLE_FOR_OTHERS) and entry.submission.owner != who.name:
            raise ForbiddenError(f"study {entry.study.id} is {entry.submission.owner}'s; only they can {action} it")

    def _trials(self, study_id: str) -> tuple[TrialView, Callable[[int], str | None]]:
        """A study's trials, and where MLflow shows one of them, by its number."""
        row = self._readable(study_id)
        experiment, runs = _tried(lambda: self.reader.mlflow_runs(row)[::2], _NO_RUNS, [])
        return self.reader.view(row), lambda number: self._run_link(experiment, runs.get(str(number), ""))

    def _data(self, entry: Entry) -> dict[str, Any]:
        study, submission = entry.study, entry.submission
        damage = [text for text in (study.damage, damage_of(study.spec)) if text]
        spec = stored_spec(study.spec) if not damage_of(study.spec) else None
        nothing: tuple[dict[str, int], float | None] = (dict.fromkeys((state.value for state in TrialState), 0), None)
        counts, best = _tried(lambda: self._outcome(study, spec), nothing, damage)
        experiment, parent = _tried(lambda: self.reader.mlflow_runs(study)[:2], ("", ""), damage)
        lag = _tried(lambda: self.reader.lag(study), Lag(), damage)
        own = f"{API}/studies/{study.id}"
        began = submission.started_at if submission is not None else study.created_at
        return {
            "id": study.id,
            "name": study.name,
            "state": study.state.value,
            "reason": "; ".join(filter(None, (study.reason, waits_for(entry, self._submissions)))),
            "unreadable": "; ".join(damage),
            "owner": submission.owner if submission is not None else None,
            "priority": submission.priority if submission is not None else 0,
            "metric": spec.objective.metric if spec is not None else str(study.summary.get("metric", "")),
            "mode": spec.objective.mode if spec is not None else "max",
            "best": best,
            "trials": {**counts, "budget": spec.budget.trials if spec is not None else sum(counts.values())},
            "seconds": _seconds(entry),
            "created_at": study.created_at,
            "started_at": began,
            "ended_at": study.ended_at,
            "attempts": submission.attempt if submission is not None else 1,
            "concurrency": submission.concurrency if submission is not None and study.state in ACTIVE else None,
            "mirror_lag": lag.events,
            "mirror_note": lag.text(),
            "archived": submission.archived if submission is not None else False,
            "links": {
                "self": own,
                **{name: f"{own}/{name}" for name in ("trials", "best", "curve", "events", "logs")},
                "page": f"/studies/{study.id}",
                "mlflow": self._run_link(experiment, parent),
            },
        }

    def _outcome(self, study: StudyRow, spec: StudySpec | None) -> tuple[dict[str, int], float | None]:
        """How many trials are in each state, and the best value, where the specification says what is better."""
        summary = study.summary
        if study.state is StudyState.COMPLETE and "trials" in summary:
            # What its driver said at its end: a list of many studies would read all their trials otherwise.
            best = summary.get("best") or {}
            return {**dict.fromkeys((state.value for state in TrialState), 0), **summary["trials"]}, best.get("value")
        return self.reader.outcome(study, lambda view: (dict(view.counts()), _best_value(spec, study, view)))

    @property
    def mlflow_link(self) -> str | None:
        """Where people open MLflow: a path of this server, or the address of another one; None: nowhere on the web.
        After the fragment stands what has MLflow show training runs, and not chats with a language model."""
        root = self._mlflow_root()
        return None if root is None else f"{root}/#/experiments?{_TRAINING}"

    def _run_link(self, experiment: str, run: str) -> str | None:
        root = self._mlflow_root()
        return None if root is None or not run else f"{root}/#/experiments/{experiment}/runs/{run}?{_TRAINING}"

    def _mlflow_root(self) -> str | None:
        server = self._settings.mlflow_uri
        if server is None or not server.startswith("http"):
            return None
        return server.rstrip("/") if self._settings.mlflow_secret is None else MLFLOW_PATH


def _tried(make: Callable[[], T], otherwise: T, damage: list[str]) -> T:
    """A part of what is said of a study; where it cannot be read, something else and why, in `damage`."""
    try:
        return make()
    except UnreadableError as error:
        damage.append(one_line(error))
        return otherwise


def _seconds(entry: Entry) -> float:
    """That drivers have spent on a study, the one at work too."""
    before = float(entry.study.summary.get("seconds", 0.0))
    submission = entry.submission
    if entry.study.state is not StudyState.RUNNING or submission is None or submission.began_at is None:
        return before
    return round(before + time.time() - submission.began_at, 3)


def _best_value(spec: StudySpec | None, study: StudyRow, view: TrialView) -> float | None:
    if spec is None:
        return None
    found = view.derived(("best", study.spec), lambda: find_best(spec, view.records))
    return found.value if found is not None else None


def _verdict(spec: StudySpec, view: TrialView) -> str | None:
    """How the study's claim was judged, where it has one."""
    return judge(spec, spec.claim, view.records).text() if spec.claim is not None else None


def _why_no_result(study_id: str, state: StudyState, reason: str) -> str:
    why = f": {reason}" if reason else ""
    if state in ACTIVE:
        return f"study {study_id} is {state.value}, and no trial has reported a finite value yet"
    return f"study {study_id} is {state.value}{why}; no trial has reported a finite value"


def _state(text: str) -> StudyState:
    if text not in list(StudyState):
        raise UsageError(f"state {text!r}: {did_you_mean(text, list(StudyState))}")
    return StudyState(text)


def _trial_state(text: str) -> str:
    if text not in list(TrialState):
        raise UsageError(f"state {text!r}: {did_you_mean(text, list(TrialState))}")
    return text


def _cursor(*values: float | str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _is_one(value: object, kind: type) -> bool:
    """Whether a value is of a kind, and one that databases take: no NaN, no half of a character."""
    whole = value.isprintable() if isinstance(value, str) else not isinstance(value, float) or math.isfinite(value)
    return type(value) is kind and whole


def _read_cursor(cursor: str | None, *kinds: type) -> list[Any] | None:
    if cursor is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        values = None
    wrong = not isinstance(values, list) or len(values) != len(kinds)
    if wrong or not all(_is_one(value, kind) for value, kind in zip(values or [], kinds, strict=False)):
        raise UsageError(f"cursor {cursor[:80]!r} is none that this server gave")
    if kinds == (int,) and not 0 <= values[0] < 2**31:
        raise UsageError(f"cursor {cursor[:80]!r} is none that this server gave")
    return list(values)
