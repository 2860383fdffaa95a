"""The public face: names of the package, and studies of this machine from Python."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys

import pytest

import dialin
from dialin.client import folder
from dialin.errors import NoResultError, NotFoundError, SpecError, UsageError
from dialin.settings import Settings
from dialin.specification import to_yaml
from dialin.store.studies import Studies
from tests.conftest import ROOT
from tests.factories import make_spec

SPACE = """name: tiny
objective: {dataset: synthetic}
space: {lr: {min: 1.0e-3, max: 1.0, log: true}}
budget: {trials: 4, epochs: 2}
"""


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_examples_in_the_documentation_run():
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for function in (folder.run_study, folder.open_study):  # the second one opens what the first one has made
        (example,) = finder.find(function, function.__name__)
        assert example.examples
        assert runner.run(example).failed == 0


def test_every_public_name_is_there_and_documented():
    assert set(dialin.__all__) <= set(dir(dialin))
    for name in dialin.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(dialin, name))
    assert dialin.__version__.startswith("0.")
    with pytest.raises(AttributeError, match="no attribute 'run_studdy'; public names: Client, "):
        _ = dialin.run_studdy  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_else():
    code = "import sys, dialin; print(*[name for name in sys.modules if name.startswith('dialin.') or name == 'torch'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("form", ["path", "text", "file name", "dict", "spec", "shipped name"])
def test_a_specification_in_any_form(form, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPACE)
    forms = {
        "path": tmp_path / "tiny.yaml",
        "text": SPACE,
        "file name": "tiny.yaml",
        "dict": {
            "name": "tiny",
            "objective": {"dataset": "synthetic"},
            "space": {"lr": {"min": 1e-3, "max": 1.0, "log": True}},
        },
        "spec": dialin.load_spec(SPACE, ["budget.trials=2"]),
        "shipped name": "synthetic",
    }
    overrides = () if form == "spec" else ("budget.trials=2", "budget.epochs=1")
    result = dialin.run_study(forms[form], out=tmp_path / "out", overrides=overrides, runner="inline", progress=False)
    assert (result.state, sum(result.trials.values())) == ("complete", 2)
    assert result.best.params


def test_a_plain_script_prints_its_progress(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import dialin\n"
        f"result = dialin.run_study({SPACE!r}, out='out', overrides=['budget.trials=2'])\n"
        "print('best lr', result.best.params['lr'])\n"
        "study = dialin.open_study(result.study_id, out='out')\n"
        "print('trials', len(study.to_dataframe()), study.info().paths['storage'])\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "study tiny-" in done.stdout
    assert "best lr 0." in done.stdout
    assert f"trials 2 {tmp_path / 'out' / 'dialin.db'}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spec": "digts"}, SpecError, "did you mean 'digits'"),
        ({"spec": {"name": "x"}}, SpecError, "objective"),
        ({"spec": "synthetic", "overrides": ["budget.trails=1"]}, SpecError, "did you mean 'trials'"),
        ({"spec": "synthetic", "runner": "rya"}, UsageError, "'rya'; allowed: ray, inline"),
    ],
)
def test_mistakes_are_named_before_anything_is_stored(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        dialin.run_study(**arguments, out="out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_study_that_is_not_there_and_one_without_a_result(tmp_path):
    with pytest.raises(NotFoundError, match="there is no study 'last': .* has no studies"):
        dialin.open_study(out="out")
    settings = Settings.read({}, out=str(tmp_path / "out"))
    settings.out.mkdir()
    with Studies(settings.database) as studies:
        row = studies.create("small", to_yaml(make_spec()))
    study = dialin.open_study("small", out="out")
    assert (study.id, study.state, study.trials()) == (row.id, "running", [])
    assert repr(study) == f"FolderStudy({row.id!r}, out={str(settings.out)!r})"
    for read in (study.best, study.best_yaml):
        with pytest.raises(NoResultError, match="no trial has "):
            read()
    with pytest.raises(NotFoundError, match=f"allowed: {row.id}"):
        dialin.open_study("smal", out="out")
