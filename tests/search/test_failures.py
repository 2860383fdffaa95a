from __future__ import annotations

import pytest

from dialin.search.failures import cause_of, failures_text

FRAMES = 'Traceback (most recent call last):\n  File "x.py", line 1, in train\n    f()\n'


@pytest.mark.parametrize(
    ("traceback", "cause"),
    [
        (
            FRAMES + "ModuleNotFoundError: No module named 'not_there'\n",
            "ModuleNotFoundError: No module named 'not_there'",
        ),
        (FRAMES + "RuntimeError: in Net:\n\tsize mismatch\n\nfor fc", "RuntimeError: in Net: size mismatch for fc"),
        ("ray::Trial (pid=1)\nFunctionError: " + FRAMES + "ValueError: x", "ValueError: x"),
        (FRAMES + "ValueError: a\n\nDuring handling:\n\n" + FRAMES + "KeyError: 'b'", "KeyError: 'b'"),
        ("its worker died 4 times", "its worker died 4 times"),
        ("", "no traceback"),
        ("\n \n", "no traceback"),
        (FRAMES, "f()"),
    ],
)
def test_the_cause_of_a_traceback(traceback, cause):
    assert cause_of(traceback) == cause


@pytest.mark.parametrize(
    ("causes", "ended", "text"),
    [
        ([], 3, ""),
        (["E: a"], 1, "1 of 1 trial failed: E: a"),
        (["E: a 1", "E: a 2"], 5, "2 of 5 trials failed: E: a 1"),
        (["E: b", "E: a 1", "E: a 2"], 3, "3 of 3 trials failed, 2 of them with: E: a 1"),
    ],
)
def test_what_failures_have_in_common(causes, ended, text):
    assert failures_text(causes, ended) == text
