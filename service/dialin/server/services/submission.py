"""What callers ask of studies: a plan, a new study, and the actions on one that exists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dialin import schemas
from dialin.errors import ForbiddenError, Problem, SpecError
from dialin.lifecycle import ROLE_FOR_OTHERS, ROLE_FOR_OWN, Action, Role, check_role
from dialin.planning.plan import ClusterShape, plan_study
from dialin.server.services.bundles import BundleService
from dialin.server.services.studies import StudyService
from dialin.settings import ServerSettings, Settings
from dialin.specification import parse_spec, stored_spec, to_yaml
from dialin.specification.study_spec import ObjectiveSpec, PythonSpec, StudySpec
from dialin.specification.yaml_reader import read_yaml
from dialin.store.entries import Entry
from dialin.store.submissions import Submissions, not_submitted
from dialin.store.tokens import Identity
from dialin.study_flow import plan_builder
from dialin.study_flow.extend import extend_budget, resolve_warm_start


class SpecChecker:
    """Reads specifications as this server accepts them: within its limits, and with nothing that lies anywhere on the
    server but in its data folder and among the files that were sent."""

    def __init__(self, settings: Settings, limits: ServerSettings, bundles: BundleService) -> None:
        self._settings, self._limits, self._bundles = settings, limits, bundles

    def read(self, text: bytes | str, bundle: str | None) -> StudySpec:
        """A specification that was sent, with the digest of its files. Raises SpecError, with the line of each problem,
        ForbiddenError where this server does not run callers' code, and NotFoundError for unknown files."""
        folder = self._bundles.find(bundle) if bundle is not None else None
        spec = parse_spec(text, folder=folder)
        try:
            spec = self._confined(spec, folder)
            self.check_size(spec)
        except SpecError as error:
            document = read_yaml(text)
            raise SpecError([replace(each, line=document.line(each.path)) for each in error.problems]) from None
        return resolve_warm_start(spec, self._settings)

    def check_size(self, spec: StudySpec) -> None:
        """Raise SpecError for a study of more trials than this server takes."""
        if spec.budget.trials > self._limits.max_trials:
            problem = f"{spec.budget.trials} is more than this server takes, {self._limits.max_trials}"
            raise SpecError([Problem("budget.trials", problem)])

    def _confined(self, spec: StudySpec, folder: Path | None) -> StudySpec:
        objective = spec.objective
        if not isinstance(objective, PythonSpec):
            return self._with_data_folder(spec, objective)
        self._bundles.check_allowed()
        if folder is None or not objective.file.is_relative_to(folder.resolve()):
            problem = "the file must be among those that were sent with the specification"
            raise SpecError([Problem("objective.python", problem)])
        return spec

    def _with_data_folder(self, spec: StudySpec, objective: ObjectiveSpec) -> StudySpec:
        kind, colon, path = objective.dataset.partition(":")
        if not colon:
            return spec
        data = self._settings.data_dir.resolve()
        whole = (data / path).resolve()
        if not whole.is_relative_to(data):
            raise SpecError([Problem("objective.dataset", f"{path!r} is not below the server's data folder")])
        return spec.model_copy(update={"objective": objective.model_copy(update={"dataset": f"{kind}:{whole}"})})


class SubmissionService:
    """Plans, accepts and changes studies. `on_change` is called after each change that the reconciler must act on."""

    def __init__(
        self,
        submissions: Submissions,
        studies: StudyService,
        checker: SpecChecker,
        *,
        cluster_shape: Callable[[], ClusterShape],
        max_studies: int,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._submissions, self._studies, self._checker = submissions, studies, checker
        self._cluster_shape, self._max_studies, self._on_change = cluster_shape, max_studies, on_change

    def plan(self, text: bytes | str, bundle: str | None = None) -> schemas.Plan:
        """What a specification would do; nothing is kept. Raises SpecError."""
        return plan_builder.plan(plan_study(self._checker.read(text, bundle), self._cluster_shape()))

    def submit(
        self,
        caller: Identity,
        text: bytes | str,
        *,
        priority: int = 0,
        key: str | None = None,
        bundle: str | None = None,
    ) -> tuple[schemas.Study, bool]:
        """Put a study in the queue. Returns it, and whether it is new: a caller's second request with the same
        idempotency key gets the study of the first.

        Raises SpecError, ForbiddenError for a viewer, RateLimitedError for a caller with too many active studies, and
        ConflictError for a key that was used for another specification.
        """
        check_role(caller.name, caller.role, Role.SUBMITTER, "submit studies")
        spec = self._checker.read(text, bundle)
        plan_study(spec, self._cluster_shape())
        entry, is_new = self._submissions.submit(
            spec.name,
            to_yaml(spec),
            owner=caller.name,
            digest=_digest(text, priority, bundle),
            priority=priority,
            key=key,
            most_active=self._max_studies,
        )
        self._on_change()
        return self._studies.in_short(entry), is_new

    def stop(self, caller: Identity, study_id: str) -> schemas.Study:
        """Ask for a study's end. It keeps what it has and can be resumed. Raises as `extend`, but UsageError."""
        self._check_owner(caller, study_id, Action.STOP)
        return self._changed(self._submissions.request_stop(study_id))

    def resume(self, caller: Identity, study_id: str) -> schemas.Study:
        """Put a study that was stopped or has failed in the queue again. Raises as `extend`, but UsageError."""
        self._check_owner(caller, study_id, Action.RESUME)
        self._studies.readable_row(study_id)
        return self._changed(self._submissions.request_resume(study_id))

    def extend(self, caller: Identity, study_id: str, trials: str | None, epochs: str | None) -> schemas.Study:
        """Add to the budget of a study that has ended, and put it in the queue again.

        `trials`, `epochs`: the new number, or `+N`. Raises NotFoundError, ForbiddenError for a study of another caller,
        ConflictError where the study's state does not allow it, and UsageError for a budget that is not larger.
        """
        entry = self._check_owner(caller, study_id, Action.EXTEND)
        spec = extend_budget(stored_spec(self._studies.readable_row(study_id).spec), trials, epochs)
        self._checker.check_size(spec)
        return self._changed(self._submissions.extend(study_id, to_yaml(spec), entry))

    def archive(self, caller: Identity, study_id: str) -> None:
        """Take a study that has ended off the list. Nothing is deleted. Raises as `extend`, but UsageError."""
        self._check_owner(caller, study_id, Action.ARCHIVE)
        self._submissions.archive(study_id)

    def _changed(self, entry: Entry) -> schemas.Study:
        self._on_change()
        return self._studies.in_short(entry)

    def _check_owner(self, caller: Identity, study_id: str, action: Action) -> Entry:
        """The study. Raises ForbiddenError where this caller may not take an action on it."""
        entry = self._studies.entry(study_id)
        check_role(caller.name, caller.role, ROLE_FOR_OWN, f"{action} studies")
        if entry.submission is None:
            raise not_submitted(study_id)
        if not caller.may(ROLE_FOR_OTHERS) and entry.submission.owner != caller.name:
            raise ForbiddenError(f"study {study_id} is {entry.submission.owner}'s; only they can {action} it")
        return entry


def _digest(text: bytes | str, priority: int, bundle: str | None) -> str:
    """What tells one submission from another that has the same idempotency key."""
    raw = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(b"\0".join([raw, str(priority).encode(), (bundle or "").encode()])).hexdigest()
