"""The command line. Loads nothing heavy until a command needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dialin.cli.output import INTERRUPTED, WATCHING_ENDED, console, exit_code, print_json, print_text
from dialin.errors import DialinError, UsageError, did_you_mean
from dialin.lifecycle import StudyState
from dialin.texts import printable

RUNNER = "ray"
ROLES = ("viewer", "submitter", "admin")
STATES = tuple(StudyState)
Command = Callable[[argparse.Namespace], int | None]


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
    return "\n".join(f"error: {line}" for line in printable(str(error)).splitlines())


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
    parser.add_argument("--version", action="store_true", help="print the version and end")
    parser.set_defaults(command=lambda arguments: _bare(arguments, parser))
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)

    run = _command(commands, "run", _run, "search a space on this machine")
    _spec_arguments(run)
    _training_arguments(run)
    _common(run)

    plan = _command(commands, "plan", _plan, "check a space and say what would run; starts nothing")
    _spec_arguments(plan)
    _data_argument(plan)
    _common(plan)

    test = _command(
        commands, "lr-range-test", _lr_range_test, "find the bounds of the learning rate for one configuration"
    )
    _spec_arguments(test)
    _range_test_arguments(test)
    _common(test)

    sync = _command(commands, "sync", _sync, "write what MLflow has not got of a study yet")
    _study_argument(sync)
    _common(sync)
    knobs = _command(commands, "knobs", _knobs, "every knob that a search space may name, or all about one")
    knobs.add_argument("knob", metavar="KNOB", nargs="?", help="a knob's name; without one: a line for each")
    _common(knobs)
    _add_either(commands)
    _add_serving(commands)
    return parser


def _bare(arguments: argparse.Namespace, parser: _Parser) -> None:
    """`dialin` without a command."""
    if arguments.version:
        from importlib.metadata import version

        print(f"dialin {version('dialin')}")
    else:
        parser.print_help()


def _add_serving(commands: Any) -> None:
    """The commands of whoever runs a server."""
    up = _command(commands, "up", _up, "run a server here: the API with its page, MLflow and Ray")
    up.add_argument("--host", default="127.0.0.1", metavar="H", help="where it listens (default 127.0.0.1)")
    up.add_argument("--port", type=int, default=8080, metavar="P", help="default 8080")
    up.add_argument("--data", dest="out", metavar="D", help="where its data is kept (default ./dialin-data)")
    _data_argument(up)

    token = _command(commands, "token", _token, "make, list or revoke the tokens of a server's users")
    what = token.add_subparsers(metavar="create|list|revoke", required=True, parser_class=_Parser, dest="action")
    create = what.add_parser("create", help="a new token, shown once")
    create.add_argument("name", metavar="NAME", help="whose it is")
    create.add_argument("--role", choices=ROLES, required=True, help="look; submit and change one's own; everything")
    revoke = what.add_parser("revoke", help="end a token, and the sessions opened with it")
    revoke.add_argument("name", metavar="NAME")
    for parser in (create, revoke, what.add_parser("list", help="whose there are")):
        _common(parser)


def _add_either(commands: Any) -> None:
    """The commands that go to a server where one is named, and work in a folder of this machine where none is."""
    submit = _either(commands, "submit", _submit, "queue a study on a server")
    _spec_arguments(submit)
    submit.add_argument("--priority", type=int, default=0, metavar="N", help="-100 to 100; the higher goes first")
    submit.add_argument("--watch", action="store_true", help="and follow it until it ends")

    listing = _either(commands, "list", _list, "the studies, the newest first")
    listing.add_argument("--state", action="append", choices=STATES, metavar="STATE", help="only those in this state")

    show = _either(commands, "show", _show, "a study with its trials, and why each ended", study=True)
    show.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="a trial's number: all about it")
    best = _either(commands, "best", _best, "the best configuration of a study", study=True)
    best.add_argument("--yaml", action="store_true", help="as a specification that trains it again")
    _either(commands, "watch", _watch, "follow a study until it ends", study=True)
    _either(commands, "stop", _stop, "end a study; it can be resumed", study=True)
    logs = _either(commands, "logs", _logs, "what a study's driver and its trials have logged", study=True)
    logs.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="a trial's number: its log alone")
    logs.add_argument("--tail", type=_lines, default=200, metavar="N", help="lines of each log (default 200)")

    text = "go on with a study that was interrupted or whose driver died"
    _training_arguments(_either(commands, "resume", _resume, text, study=True))
    extend = _either(commands, "extend", _extend, "add trials or epochs to a study and go on with it", study=True)
    extend.add_argument("--trials", metavar="N", help="how many in all, or +N more")
    extend.add_argument("--epochs", metavar="N", help="how long a trial is at most, or +N longer")
    _training_arguments(extend)


def _either(commands: Any, name: str, local: Command, text: str, *, study: bool = False) -> _Parser:
    def command(arguments: argparse.Namespace) -> int | None:
        from dialin.settings import ServerAddress

        address = ServerAddress.read(url=arguments.server, out=arguments.out)
        if address is None:
            return local(arguments)
        from dialin.cli import remote

        return remote.run(name, address, arguments)

    parser = _command(commands, name, command, text)
    if study:
        _study_argument(parser)
    parser.add_argument("--server", metavar="URL", help="a server's address (default: DIALIN_SERVER)")
    _common(parser)
    return parser


def _command(commands: Any, name: str, command: Command, text: str) -> _Parser:
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
    parser.add_argument("--runner", choices=("ray", "inline"), help="inline: in this process, without Ray")


def _data_argument(parser: _Parser) -> None:
    parser.add_argument("--data-dir", metavar="D", help="where data sets are (default: a folder beside the studies)")


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
    from dialin.specification import load_spec

    overrides = list(arguments.overrides)
    if arguments.trials is not None:
        overrides.append(f"budget.trials={arguments.trials}")
    return load_spec(arguments.spec, overrides)


def _settings(arguments: argparse.Namespace) -> Any:
    from dialin.settings import Settings

    return Settings.read(out=arguments.out, data_dir=getattr(arguments, "data_dir", None))


def _lines(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 1 to 100000")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    spec = _load(arguments)
    settings = _settings(arguments)
    from dialin.study_flow.run import run_study

    return _drive(arguments, lambda progress: run_study(spec, settings, progress, arguments.runner or RUNNER))


def _resume(arguments: argparse.Namespace) -> int:
    from dialin.study_flow.run import resume_study

    runner = arguments.runner or RUNNER
    return _drive(arguments, lambda progress: resume_study(arguments.study, _settings(arguments), progress, runner))


def _extend(arguments: argparse.Namespace) -> int:
    from dialin.study_flow.run import extend_study

    runner = arguments.runner or RUNNER
    more = {"trials": arguments.trials, "epochs": arguments.epochs}
    return _drive(
        arguments,
        lambda progress: extend_study(arguments.study, _settings(arguments), progress, runner, **more),
    )


def _drive(arguments: argparse.Namespace, drive: Callable[[Any], Any]) -> int:
    """Drive a study with its progress on the terminal, and show what came out."""
    from dialin.study_flow.progress import Progress

    with Progress(console(stderr=arguments.json)) as progress:
        back = drive(progress)
    return _show_end(arguments, back, back.result)


def _watch(arguments: argparse.Namespace) -> int:
    """Follow a study that another process drives, and show what came out."""
    from dialin.cli.watching import watch_study

    try:
        back = watch_study(_settings(arguments), arguments.study, console(stderr=arguments.json))
    except KeyboardInterrupt:
        print(WATCHING_ENDED, file=sys.stderr)
        return INTERRUPTED
    return _show_end(arguments, back, back.result)


def _show_end(arguments: argparse.Namespace, back: Any, result: Any) -> int:
    from dialin.cli.showing import mirror_line, show_claim, show_result

    if arguments.json:
        print_json(result.to_data())
        return exit_code(result.state)
    show_result(console(), back.spec, result, mirror_line(back))
    show_claim(console(), back.spec, back.trials)
    if result.state == "interrupted":
        command = _settings(arguments).command(f"resume {result.study_id}")
        console().print(f"go on with it        {command}", markup=False)
    return exit_code(result.state)


def _stop(arguments: argparse.Namespace) -> None:
    from dialin.cli.watching import stop_study

    back = stop_study(_settings(arguments), arguments.study)
    if arguments.json:
        print_json(back.result.to_data())
    else:
        command = _settings(arguments).command(f"resume {back.row.id}")
        print(f"study {back.row.id} is {back.row.state.value}; go on with it: {command}")


def _logs(arguments: argparse.Namespace) -> None:
    from dialin.cli.watching import study_logs

    logs = study_logs(_settings(arguments), arguments.study, arguments.tail, arguments.trial)
    if arguments.json:
        print_json(dict(logs))
        return
    for name, text in logs.items():
        print(f"== {name}\n{text}", end="")
    if not logs:
        print("nothing was logged: no trial has printed anything or has failed")


def _submit(arguments: argparse.Namespace) -> NoReturn:
    raise UsageError(
        f"a study is submitted to a server: --server URL, or DIALIN_SERVER; without one: dialin run {arguments.spec}"
    )


def _sync(arguments: argparse.Namespace) -> int:
    from dialin.study_flow.mirror import sync_study

    left = sync_study(_settings(arguments), arguments.study)
    if arguments.json:
        print_json({"left": left.events, "note": left.text()})
    else:
        print(f"{left.text()}; it is kept on disk, and written by the next sync" if left else "everything is in MLflow")
    return 1 if left else 0


def _plan(arguments: argparse.Namespace) -> None:
    from dialin.cli.showing import show_plan
    from dialin.execution.local_cluster import local_shape
    from dialin.objectives import look_for_data
    from dialin.planning.plan import plan_study
    from dialin.study_flow import schema_builder

    plan = plan_study(_load(arguments), local_shape())
    data = look_for_data(plan.spec, _settings(arguments).data_dir)
    if arguments.json:
        print_json({**schema_builder.plan(plan).model_dump(mode="json"), "data": data})
    else:
        show_plan(console(), plan, data)


def _lr_range_test(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from dialin.cli.showing import show_range_test
    from dialin.study_flow.calibrate import run_one_range_test
    from dialin.study_flow.views import range_test_data

    shown = console(stderr=arguments.json)
    domain = _range_test_options(arguments)
    params, calibration = run_one_range_test(
        _load(arguments), _settings(arguments), domain, lambda text: shown.print(text, markup=False)
    )
    if arguments.plot is not None:
        from dialin.charts.figures import plot_range_tests

        plot_range_tests(calibration, Path(arguments.plot))
    if arguments.json:
        print_json(range_test_data(params, calibration))
    else:
        show_range_test(shown, params, calibration)


def _range_test_options(arguments: argparse.Namespace) -> Any:
    from dialin.specification.domains import RangeTested

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
    from dialin.cli.showing import show_list
    from dialin.study_flow.read_back import list_studies

    rows = [row for row in list_studies(_settings(arguments)) if row["state"] in (arguments.state or STATES)]
    if arguments.json:
        print_json(rows)
    else:
        show_list(console(), rows, arguments.state or ())


def _show(arguments: argparse.Namespace) -> None:
    from dialin.cli.showing import show_study, show_trial
    from dialin.study_flow.read_back import load_study
    from dialin.study_flow.schema_builder import study_data, trial_data

    back = load_study(_settings(arguments), arguments.study)
    if arguments.trial is not None:
        if arguments.json:
            print_json(trial_data(back, arguments.trial))
        else:
            show_trial(console(), back, arguments.trial)
    elif arguments.json:
        print_json(study_data(back))
    else:
        show_study(console(), back)


def _best(arguments: argparse.Namespace) -> None:
    if arguments.yaml:
        from dialin.cli.watching import best_yaml

        text = best_yaml(_settings(arguments), arguments.study)
        print_text(text, "yaml" if arguments.json else None)
        return
    from dialin.cli.showing import mirror_line, show_result
    from dialin.study_flow.read_back import load_study

    back = load_study(_settings(arguments), arguments.study)
    if arguments.json:
        print_json(back.result.to_data())
    else:
        show_result(console(), back.spec, back.result, mirror_line(back))


def _up(arguments: argparse.Namespace) -> None:
    from dialin.server.up import run_server
    from dialin.settings import ServerSettings

    if not 1 <= arguments.port <= 65535:
        raise UsageError(f"--port {arguments.port}; allowed: 1 to 65535")
    run_server(
        _settings(arguments),
        ServerSettings.read(),
        arguments.host,
        arguments.port,
        lambda text: print(text, flush=True),
    )


def _token(arguments: argparse.Namespace) -> None:
    from dialin.store.output_folder import open_output
    from dialin.store.tokens import Tokens

    settings = _settings(arguments)
    open_output(settings, lambda text: print(text, file=sys.stderr))
    with Tokens(settings.database) as tokens:
        if arguments.action == "create":
            secret = tokens.create(arguments.name, arguments.role)
            if arguments.json:
                print_json({"name": arguments.name, "role": arguments.role, "token": secret})
            else:
                print(f"{secret}\nthis is shown once; it goes into DIALIN_TOKEN, or where the page asks for it")
        elif arguments.action == "revoke":
            tokens.revoke(arguments.name)
            print_json({"revoked": arguments.name}) if arguments.json else print(f"{arguments.name} has no token now")
        else:
            rows = [{"name": name, "role": role.value, "created_at": at} for name, role, at in tokens.list()]
            if arguments.json:
                print_json(rows)
            for row in () if arguments.json else rows:
                print(f"{row['name']}  {row['role']}")


def _knobs(arguments: argparse.Namespace) -> None:
    from dialin.cli.showing import show_knob, show_knobs
    from dialin.study_flow import schema_builder

    rows = {knob.name: knob.model_dump(mode="json") for knob in schema_builder.knobs()}
    name = arguments.knob
    if name is not None and name not in rows:
        raise UsageError(f"knob {name!r}: {did_you_mean(name, rows)}")
    if arguments.json:
        print_json(rows[name] if name is not None else list(rows.values()))
    elif name is not None:
        show_knob(console(), rows[name])
    else:
        show_knobs(console(), list(rows.values()))


if __name__ == "__main__":
    sys.exit(main())
