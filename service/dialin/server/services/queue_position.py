"""What a study waits for, in words: its turn in the queue, or a worker of the cluster."""

from __future__ import annotations

from dialin.lifecycle import StudyState
from dialin.store.entries import Entry
from dialin.store.studies import WAITING_FOR
from dialin.store.submissions import Submissions

MOST_NAMED = 3  # of the other studies


def waits_for(entry: Entry, submissions: Submissions) -> str:
    """The place of a queued study in the queue; or the worker that a running study waits for, with the studies whose
    trials occupy the workers. Empty where it does not wait."""
    study, submission = entry.study, entry.submission
    if study.state is StudyState.RUNNING:
        waits = str(study.summary.get(WAITING_FOR, ""))  # written by its driver
        return f"{waits}{_held_by(submissions, study.id)}" if waits else ""
    if study.state is not StudyState.QUEUED or submission is None or submission.job:
        return ""
    queue = submissions.queue()
    # Its turn may have come since its row was read.
    return f"place {queue.index(study.id) + 1} of {len(queue)} in the queue" if study.id in queue else ""


def _held_by(submissions: Submissions, study_id: str) -> str:
    entries = submissions.unsettled()
    driven = [entry.study.id for entry in entries if entry.submission is not None and entry.submission.job]
    others = [other for other in driven if other != study_id]
    more = f" and {len(others) - MOST_NAMED} others" if len(others) > MOST_NAMED else ""
    return f"; at work are those of {', '.join(others[:MOST_NAMED])}{more}" if others else ""
