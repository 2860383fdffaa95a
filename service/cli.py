"""The command line. Loads nothing heavy until a command needs it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from service.errors import DialinError, UsageError, did_you_mean

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 the study failed, 2 a wrong argument, 130 interrupted."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.command(arguments) or 0)
    except DialinError as error:
        print(_error_text(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone, as `dialin list | head` does; what follows would fail on flushing.
        sys.stdout = None
        return 0


def _error_text(error: DialinError) -> str:
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest known name in its errors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nsee {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.metavar or action.dest
            raise UsageError(f"{name} {value!r}: {did_you_mean(str(value), map(str, action.choices))}")


def _parser() -> _Parser:
    parser = _Parser(
        prog="dialin", description="Find good training knobs: a search space in, the best configuration out."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    run = _command(commands, "run", _run, "search a space on this machine")
    _spec_arguments(run)
    _training_arguments(run)
    _common(run)

    plan = _command(commands, "plan", _plan, "check a space and say what would run; starts nothing")
    _spec_arguments(plan)
    _common(plan)

    test = _command(
        commands, "lr-range-test", _lr_range_test, "find the bounds of the learning rate for one configuration"
    )
    _spec_arguments(test)
    _range_test_arguments(test)
    _common(test)

    going_on: tuple[tuple[str, Callable[[argparse.Namespace], int], str], ...] = (
        ("resume", _resume, "go on with a study that was interrupted or whose driver died"),
        ("extend", _extend, "add trials or epochs to a study and go on with it"),
    )
    for name, goes, text in going_on:
        goes_on = _command(commands, name, goes, text)
        _study_argument(goes_on)
        if name == "extend":
            goes_on.add_argument("--trials", metavar="N", help="how many in all, or +N more")
            goes_on.add_argument("--epochs", metavar="N", help="how long a trial is at most, or +N longer")
        _training_arguments(goes_on)
        _common(goes_on)

    _common(_command(commands, "list", _list, "the studies here, the newest first"))
    for name, command, text in (
        ("sync", _sync, "write what MLflow has not got of a study yet"),
        ("show", _show, "a study with its trials, and why each ended"),
        ("best", _best, "the best configuration of a study"),
    ):
        parser_of = _command(commands, name, command, text)
        _study_argument(parser_of)
        if name == "show":
            parser_of.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="a trial's number: all about it")
        _common(parser_of)
    _common(_command(commands, "knobs", _knobs, "every knob that a search space may name"))
    return parser


def _command(commands: Any, name: str, command: Callable[[argparse.Namespace], int | None], text: str) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def _spec_arguments(parser: _Parser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a file, or the name of a shipped space")
    parser.add_argument("--trials", type=int, metavar="N", help="short for --set budget.trials=N")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="such as budget.epochs=3"
    )


def _study_argument(parser: _Parser) -> None:
    parser.add_argument("study", metavar="STUDY", help="an id, a name (its newest study), or `last`")


def _training_arguments(parser: _Parser) -> None:
    _data_argument(parser)
    parser.add_argument(
        "--runner", choices=("ray", "inline"), default="ray", help="inline: in this process, without Ray"
    )


def _data_argument(parser: _Parser) -> None:
    parser.add_argument("--data-dir", metavar="D", help="where data sets are (default: a folder of --out)")


def _range_test_arguments(parser: _Parser) -> None:
    _data_argument(parser)
    parser.add_argument("--min", type=float, default=1e-6, metavar="LR", dest="low", help="its start (default 1e-6)")
    parser.add_argument("--max", type=float, default=10.0, metavar="LR", dest="high", help="its end (default 10)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="training steps (default 200)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how often, from other weights (default 3)")
    parser.add_argument("--method", choices=("knees", "third"), default="knees", help="how the bounds are read off")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves, as PNG")


def _common(parser: _Parser) -> None:
    parser.add_argument("--out", metavar="D", help="where studies are kept (default ./dialin-data)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")


def _load(arguments: argparse.Namespace) -> Any:
    from service.spec import load_spec

    overrides = list(arguments.overrides)
    if arguments.trials is not None:
        overrides.append(f"budget.trials={arguments.trials}")
    return load_spec(arguments.spec, overrides)


def _settings(arguments: argparse.Namespace) -> Any:
    from service.settings import Settings

    return Settings.read(out=arguments.out, data_dir=getattr(arguments, "data_dir", None))


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _run(arguments: argparse.Namespace) -> int:
    spec = _load(arguments)
    settings = _settings(arguments)
    from service.runs import run_study

    return _watch(arguments, lambda progress: run_study(spec, settings, progress, arguments.runner))


def _resume(arguments: argparse.Namespace) -> int:
    from service.runs import resume_study

    return _watch(
        arguments, lambda progress: resume_study(arguments.study, _settings(arguments), progress, arguments.runner)
    )


def _extend(arguments: argparse.Namespace) -> int:
    from service.runs import extend_study

    more = {"trials": arguments.trials, "epochs": arguments.epochs}
    return _watch(
        arguments,
        lambda progress: extend_study(arguments.study, _settings(arguments), progress, arguments.runner, **more),
    )


def _watch(arguments: argparse.Namespace, drive: Callable[[Any], Any]) -> int:
    """Drive a study with its progress on the terminal, and show what came out."""
    from service.history import read_back
    from service.progress import Progress
    from service.showing import show_claim, show_result

    with Progress(_console(stderr=arguments.json)) as progress:
        result = drive(progress)
    if arguments.json:
        _print_json(result.to_data())
    else:
        back = read_back(_settings(arguments), result.study_id)
        show_result(_console(), back.spec, result)
        show_claim(_console(), back.spec, back.trials)
        if result.state == "interrupted":
            _console().print(f"go on with it         dialin resume {result.study_id}", markup=False)
    return {"complete": 0, "interrupted": INTERRUPTED}.get(result.state, 1)


def _sync(arguments: argparse.Namespace) -> int:
    from service.history import sync_study

    left = sync_study(_settings(arguments), arguments.study)
    if arguments.json:
        _print_json({"left": left})
    else:
        print("everything is in MLflow" if left == 0 else f"{left} events are not in MLflow yet; they are kept on disk")
    return 0 if left == 0 else 1


def _plan(arguments: argparse.Namespace) -> None:
    from service.cluster.local import local_shape
    from service.planning import plan_study
    from service.showing import show_plan
    from service.views import plan_data

    plan = plan_study(_load(arguments), local_shape())
    if arguments.json:
        _print_json(plan_data(plan))
    else:
        show_plan(_console(), plan)


def _lr_range_test(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from service.runs import range_test_once
    from service.showing import show_range_test
    from service.views import range_test_data

    console = _console(stderr=arguments.json)
    domain = _range_test_options(arguments)
    params, calibration = range_test_once(
        _load(arguments), _settings(arguments), domain, lambda text: console.print(text, markup=False)
    )
    if arguments.plot is not None:
        from service.results.figures import plot_range_tests

        plot_range_tests(calibration, Path(arguments.plot))
    if arguments.json:
        _print_json(range_test_data(params, calibration))
    else:
        show_range_test(console, params, calibration)


def _range_test_options(arguments: argparse.Namespace) -> Any:
    from service.spec.domains import RangeTested

    wrong = {
        "--min": not arguments.low > 0,
        "--max": not arguments.high > arguments.low,
        "--steps": not 10 <= arguments.steps <= 10_000,
        "--seeds": not 1 <= arguments.seeds <= 100,
    }
    for option, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{option}: allowed are 0 < --min < --max, 10 to 10000 --steps and 1 to 100 --seeds")
    return RangeTested(
        arguments.method, (), arguments.low, arguments.high, steps=arguments.steps, seeds=arguments.seeds
    )


def _list(arguments: argparse.Namespace) -> None:
    from service.history import list_studies
    from service.showing import show_list

    rows = list_studies(_settings(arguments))
    if arguments.json:
        _print_json(rows)
    else:
        show_list(_console(), rows)


def _show(arguments: argparse.Namespace) -> None:
    from service.history import read_back
    from service.showing import show_study, show_trial
    from service.views import study_data, trial_data

    back = read_back(_settings(arguments), arguments.study)
    if arguments.trial is not None:
        if arguments.json:
            _print_json(trial_data(back, arguments.trial))
        else:
            show_trial(_console(), back, arguments.trial)
    elif arguments.json:
        _print_json(study_data(back))
    else:
        show_study(_console(), back)


def _best(arguments: argparse.Namespace) -> None:
    from service.history import read_back
    from service.showing import show_result

    back = read_back(_settings(arguments), arguments.study)
    if arguments.json:
        _print_json(back.result.to_data())
    else:
        show_result(_console(), back.spec, back.result)


def _knobs(arguments: argparse.Namespace) -> None:
    from service.showing import show_knobs
    from service.views import knobs_data

    if arguments.json:
        _print_json(knobs_data())
    else:
        show_knobs(_console())


if __name__ == "__main__":
    sys.exit(main())
