"""The server's metrics for Prometheus, counted from what is stored when they are asked for."""

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
from dialin.server.study_reader import SharedStudyReader
from dialin.store.submissions import Submissions

MOST_STUDIES = 500  # whose trials are counted: the newest, and all that are active


class MetricsCollector(Collector):
    """Collects the metrics of one server."""

    def __init__(self, reader: SharedStudyReader, submissions: Submissions, reconciler: Reconciler) -> None:
        self._reader, self._submissions, self._reconciler = reader, submissions, reconciler
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: the names are not needed before the first collection."""
        return []  # the registry asks when it registers, before anything can be counted

    def collect(self) -> Iterator[Metric]:
        """Each metric with its values as they are now."""
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
        seen = self._reconciler.completed_at
        behind = time.time() - seen if seen is not None else float("nan")
        yield GaugeMetricFamily("dialin_reconcile_lag_seconds", "Since what runs was last compared.", behind)

    def _count(self) -> tuple[Counter[str], int, int]:
        ends: Counter[str] = Counter()
        epochs = lag = 0
        found = {entry.study.id: entry.study for entry in self._submissions.page(limit=MOST_STUDIES)}
        found |= {entry.study.id: entry.study for entry in self._submissions.unsettled()}
        for row in found.values():
            with suppress(UnreadableError):  # the other studies are counted
                records = self._reader.records(row)
                ends.update(record.state.value for record in records)
                epochs += sum(len(record.values) for record in records)
                lag += self._reader.lag(row).events
        return ends, epochs, lag
