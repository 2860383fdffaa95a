"""The commands that work on this machine alone: run, plan, lr-range-test and sync."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dialin.cli.commands.studies import progress_on, show_end
from dialin.cli.output import console, print_json
from dialin.cli.parser import (
    Commands,
    Parser,
    add_command,
    add_common,
    add_data_dir,
    add_spec,
    add_study,
    add_training,
    one_of,
    overrides_of,
)
from dialin.errors import UsageError

if TYPE_CHECKING:
    from dialin.settings import Settings
    from dialin.specification.domains import RangeTested
    from dialin.specification.study_spec import StudySpec

_METHODS = ("knees", "third", "minimum")


def add(commands: Commands) -> None:
    """Register the commands."""
    run = add_command(commands, "run", _run, "run a study on this machine until it has ended")
    add_spec(run)
    add_training(run)
    plan = add_command(commands, "plan", _plan, "check a search space and say what would run; starts nothing")
    add_spec(plan)
    add_data_dir(plan)
    test = add_command(
        commands, "lr-range-test", _lr_range_test, "find the learning rate to search about for one configuration"
    )
    add_spec(test)
    _add_range_test(test)
    sync = add_command(commands, "sync", _sync, "write to MLflow what it lacks of a study")
    add_study(sync)
    for parser in (run, plan, test, sync):
        add_common(parser)


def _add_range_test(parser: Parser) -> None:
    add_data_dir(parser)
    parser.add_argument("--min", type=float, default=1e-6, metavar="LR", dest="low", help="lowest rate (default 1e-6)")
    parser.add_argument("--max", type=float, default=10.0, metavar="LR", dest="high", help="highest rate (default 10)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="training steps of a run (default 200)")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="runs, each from other weights and batches (default 3)"
    )
    parser.add_argument(
        "--method",
        type=one_of("--method", _METHODS),
        default="minimum",
        metavar="|".join(_METHODS),
        help="how the rate is read off the curves: minimum (the default), between the rate at which the loss is lowest "
        "and the optimizer's default; third, a third of the rate at which the loss is lowest; knees, the middle "
        "between the rates at which accuracy starts to rise and to fall",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the curves to this SVG file")


def _run(arguments: argparse.Namespace) -> int:
    spec = _spec(arguments)
    from dialin.cli.backend import LocalBackend

    with LocalBackend(_settings(arguments)) as backend:
        study = backend.run(spec, arguments.runner, progress_on(arguments))
        return show_end(backend, study, arguments)


def _plan(arguments: argparse.Namespace) -> None:
    from dialin.cli.render import show_plan
    from dialin.execution.local_cluster import local_shape
    from dialin.objectives import look_for_data
    from dialin.planning.plan import plan_study
    from dialin.study_flow import plan_builder

    plan = plan_study(_spec(arguments), local_shape())
    data = look_for_data(plan.spec, _settings(arguments).data_dir)
    if arguments.json:
        print_json({**plan_builder.plan(plan).model_dump(mode="json"), "data": data})
    else:
        show_plan(console(), plan, data)


def _lr_range_test(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from dialin.cli.render import show_range_test
    from dialin.study_flow import plan_builder
    from dialin.study_flow.calibrate import run_one_range_test

    screen = console(stderr=arguments.json)
    params, calibration = run_one_range_test(
        _spec(arguments), _settings(arguments), _range_test(arguments), lambda text: screen.print(text, markup=False)
    )
    if arguments.plot is not None:
        from dialin.charts.range_tests import write_range_tests

        write_range_tests(calibration, Path(arguments.plot))
    if arguments.json:
        print_json(plan_builder.range_test(params, calibration))
    else:
        show_range_test(screen, params, calibration)


def _range_test(arguments: argparse.Namespace) -> RangeTested:
    from dialin.specification.domains import RangeTested

    if arguments.plot is not None and not arguments.plot.endswith(".svg"):
        raise UsageError(f"--plot {arguments.plot}: the curves are drawn as SVG; name a file that ends in .svg")
    wrong = {
        f"--min {arguments.low:g}": not arguments.low > 0,
        f"--max {arguments.high:g}": not arguments.high > arguments.low,
        f"--steps {arguments.steps}": not 10 <= arguments.steps <= 10_000,
        f"--seeds {arguments.seeds}": not 1 <= arguments.seeds <= 100,
    }
    for option, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{option}; allowed: 0 < --min < --max, --steps from 10 to 10000, --seeds from 1 to 100")
    return RangeTested(
        arguments.method, (), arguments.low, arguments.high, steps=arguments.steps, seeds=arguments.seeds
    )


def _sync(arguments: argparse.Namespace) -> int:
    from dialin.study_flow.mirror import sync_study

    left = sync_study(_settings(arguments), arguments.study)
    if arguments.json:
        print_json({"left": left.events, "note": left.text()})
    elif left:
        print(f"{left.text()}; the rest is kept on disk, and the next `dialin sync` writes it")
    else:
        print("everything is in MLflow")
    return 1 if left else 0


def _spec(arguments: argparse.Namespace) -> StudySpec:
    from dialin.specification import load_spec

    return load_spec(arguments.spec, overrides_of(arguments))


def _settings(arguments: argparse.Namespace) -> Settings:
    from dialin.settings import Settings

    return Settings.read(out=arguments.out, data_dir=getattr(arguments, "data_dir", None))
