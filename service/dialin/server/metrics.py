"""The server's figures in Prometheus' format, counted from what is stored when somebody asks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dialin.errors import UnreadableError
from dialin.lifecycle import StudyState, TrialState
from dialin.server.reconciler import Reconciler
from dialin.server.studies import StudyService
from dialin.store.submissions import Submissions

MOST_STUDIES = 500  # whose trials are counted: the newest, and all that are under way


class Figures(Collector):
    """`text()` gives them all."""

    def __init__(self, service: StudyService, submissions: Submissions, reconciler: Reconciler) -> None:
        self._service, self._submissions, self._reconciler = service, submissions, reconciler
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []  # asked for when it registers, long before there is anything to count

    def collect(self) -> Iterator[Metric]:
        by_state = self._submissions.by_state()
        studies = GaugeMetricFamily("dialin_studies", "Studies by state.", labels=["state"])
        for state in StudyState:
            studies.add_metric([state.value], by_state.get(state.value, 0))
        yield studies
        yield GaugeMetricFamily("dialin_queue_length", "Studies that wait.", by_state.get(StudyState.QUEUED, 0))
        ends, epochs, lag = self._count()
        trials = GaugeMetricFamily("dialin_trials", f"Trials of the newest {MOST_STUDIES} studies.", labels=["outcome"])
        for outcome in TrialState:
            trials.add_metric([outcome.value], ends[outcome.value])
        yield trials
        yield GaugeMetricFamily("dialin_epochs", "Epochs trained in those studies.", epochs)
        yield GaugeMetricFamily("dialin_spool_lag_events", "Events that MLflow has not got yet.", lag)
        seen = self._reconciler.seen_at
        behind = time.time() - seen if seen is not None else float("nan")
        yield GaugeMetricFamily("dialin_reconcile_lag_seconds", "Since what runs was last compared.", behind)

    def _count(self) -> tuple[Counter[str], int, int]:
        ends: Counter[str] = Counter()
        epochs = lag = 0
        found = {entry.study.id: entry.study for entry in self._submissions.page(limit=MOST_STUDIES)}
        found |= {entry.study.id: entry.study for entry in self._submissions.unsettled()}
        for row in found.values():
            with suppress(UnreadableError):  # the others are counted
                records = self._service.reader.records(row)
                ends.update(record.state.value for record in records)
                epochs += sum(len(record.values) for record in records)
                lag += self._service.reader.lag(row).events
        return ends, epochs, lag
