from __future__ import annotations

import pytest

from dialin.errors import ConflictError, DialinError, Problem, SpecError, by_code, did_you_mean


def test_every_class_is_found_by_its_code():
    pending = [DialinError]
    while pending:
        cls = pending.pop()
        assert by_code(cls.code) is cls
        pending.extend(cls.__subclasses__())
    assert by_code("from-the-future") is DialinError
    assert by_code("conflict") is ConflictError


def test_a_spec_error_names_every_problem_with_its_place():
    error = SpecError([Problem("space.lr", "is wrong", 3), Problem("", "is empty")], "x.yaml")
    assert str(error) == "x.yaml: line 3: space.lr: is wrong\nx.yaml: is empty"
    assert (error.exit_code, error.status) == (2, 422)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Momentum", "did you mean 'momentum'?"),
        ("momentun", "did you mean 'momentum'?"),
        ("zzz", "allowed: lr, momentum"),
    ],
)
def test_did_you_mean(name, answer):
    assert did_you_mean(name, ["momentum", "lr"]) == answer
