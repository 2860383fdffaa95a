"""What `dialin show` says of a study's past."""

from __future__ import annotations

import io

from rich.console import Console

from dialin.cli.render import show_study
from dialin.client.local import LocalStudies
from dialin.lifecycle import StudyState
from dialin.settings import Settings
from dialin.store.studies import Studies
from dialin.store.submissions import Submissions
from tests.server.conftest import SPEC


def test_why_earlier_drivers_are_gone_is_shown_whatever_came_after(tmp_path):
    settings = Settings(tmp_path, tmp_path / "data")
    with Submissions(settings.database) as submissions:
        entry, _ = submissions.submit("small", SPEC, owner="ana", digest="d")
        for attempt, why in ((1, "it said nothing"), (2, "it was killed")):
            claimed = submissions.claim(submissions.get(entry.study.id).submission, f"job-{attempt}")
            submissions.requeue(claimed, failures=attempt, not_before=0.0, reason=why)
    with Studies(settings.database) as studies:
        studies.mark_running(entry.study.id, SPEC)
        studies.end(entry.study.id, StudyState.COMPLETE, "", {"seconds": 3.0})
    console = Console(file=io.StringIO(), width=200)
    with LocalStudies(settings) as local:
        show_study(console, local.study(entry.study.id), local.trials(entry.study.id), None)
    shown = [line for line in console.file.getvalue().splitlines() if line.startswith("earlier driver")]
    assert [line.rpartition(":")[2][3:] for line in shown] == ["it said nothing", "it was killed"]
