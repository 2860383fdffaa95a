from __future__ import annotations

from dialin.results.leaderboard import describe
from dialin.results.looks import Look
from dialin.results.summary import summarize
from dialin.search.ranking import ranked
from tests.factories import make_spec
from tests.results.test_summary import RECORDS


def test_complete_trials_come_first_and_the_best_of_them_at_the_top():
    assert [(record.number, value) for record, value in ranked(RECORDS, "max")] == [
        (1, 0.9),
        (0, 0.8),
        (2, 0.95),
        (3, 0.99),
    ]
    assert [record.number for record, _ in ranked(RECORDS, "min")] == [0, 1, 2, 3]


def test_the_note_names_the_end_and_the_best():
    text = describe(
        summarize(make_spec(), "small-abc", "complete", RECORDS, looks=[Look(1, {"accuracy": 0.88})]), RECORDS
    )
    assert text.startswith(
        "**small-abc** complete\n\n2 complete, 1 stopped, 1 diverged, 1 failed; epochs trained: 21 of 45, 28% saved by stopping early."
    )
    assert "Trial 1 on the test split (the only look): accuracy 0.8800." in text
    assert text.splitlines()[-4].startswith("| 1 | 0.9000 | 9 | complete |")
