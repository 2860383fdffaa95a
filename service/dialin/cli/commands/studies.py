"""The commands that work on studies, in a folder of this machine or on a server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dialin.cli.output import INTERRUPTED, console, exit_code, print_json, print_text
from dialin.cli.parser import (
    Commands,
    Parser,
    add_command,
    add_common,
    add_spec,
    add_study,
    add_training,
    line_count,
    one_of,
    overrides_of,
)
from dialin.errors import NoResultError
from dialin.lifecycle import StudyState

if TYPE_CHECKING:
    from dialin.cli.backend import Backend
    from dialin.schemas import Best, Study, StudyInFull
    from dialin.study_flow.progress import Progress

RunOn = Callable[["Backend", argparse.Namespace], int | None]
"""A command over a backend."""


def add(commands: Commands) -> None:
    """Register the commands."""
    submit = _command(commands, "submit", _submit, "queue a study on a server")
    add_spec(submit)
    submit.add_argument(
        "--priority", type=int, default=0, metavar="N", help="-100 to 100; higher ones start first (default 0)"
    )
    submit.add_argument("--watch", action="store_true", help="then follow the study until it has ended")

    listing = _command(commands, "list", _list, "list the studies, newest first")
    states = ", ".join(StudyState)
    listing.add_argument(
        "--state",
        action="append",
        type=one_of("STATE", StudyState),
        metavar="STATE",
        help=f"only studies in this state: {states}; may be repeated",
    )

    show = _command(commands, "show", _show, "show a study with its trials, and why each ended", study=True)
    show.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="a trial's number: everything about it")
    best = _command(commands, "best", _best, "show the best configuration of a study", study=True)
    best.add_argument("--yaml", action="store_true", help="print it as a specification that trains it again")
    best.add_argument(
        "--trial", type=int, metavar="N", help="of several metrics: the configuration of this trial of the Pareto front"
    )
    _command(commands, "watch", _watch, "follow a study until it has ended", study=True)
    _command(commands, "stop", _stop, "end a study; it keeps its trials and can be resumed", study=True)
    logs = _command(commands, "logs", _logs, "print the logs of a study's driver and of its trials", study=True)
    logs.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="a trial's number: its log alone")
    logs.add_argument("--tail", type=line_count, default=200, metavar="N", help="lines of each log (default 200)")

    text = "continue a study that was interrupted, has failed, or whose driver died"
    add_training(_command(commands, "resume", _resume, text, study=True))
    extend = _command(commands, "extend", _extend, "add trials or epochs to a study, and continue it", study=True)
    extend.add_argument("--trials", metavar="N", help="the new number of trials, or +N to add N")
    extend.add_argument("--epochs", metavar="N", help="the new number of epochs of a trial, or +N to add N")
    add_training(extend)


def _command(commands: Commands, name: str, run: RunOn, text: str, *, study: bool = False) -> Parser:
    def run_on_backend(arguments: argparse.Namespace) -> int | None:
        from dialin.cli.backend import open_backend

        with open_backend(arguments) as backend:
            return run(backend, arguments)

    parser = add_command(commands, name, run_on_backend, text)
    if study:
        add_study(parser)
    parser.add_argument(
        "--server", metavar="URL", help="a server's address (default: DIALIN_SERVER, else the studies in --out)"
    )
    add_common(parser)
    return parser


def _submit(backend: Backend, arguments: argparse.Namespace) -> int | None:
    study = backend.submit(arguments.spec, overrides_of(arguments), arguments.priority)
    if arguments.watch:
        return _follow(backend, study.id, arguments)
    _show_queued(backend, study, arguments)
    return None


def _list(backend: Backend, arguments: argparse.Namespace) -> None:
    from dialin.cli.render import short_data, show_list

    states = arguments.state or ()
    studies = backend.studies(states)
    if arguments.json:
        print_json([short_data(study) for study in studies])
    else:
        show_list(console(), studies, states)


def _show(backend: Backend, arguments: argparse.Namespace) -> None:
    from dialin.cli.render import mirror_line, show_study, show_trial, study_data, trial_data

    study = backend.study(arguments.study)
    if arguments.trial is not None:
        trial = backend.trial(study.id, arguments.trial)
        if arguments.json:
            print_json(trial_data(trial))
        else:
            show_trial(console(), study, trial)
        return
    trials, best = backend.trials(study.id), _best_of(backend, study)
    if arguments.json:
        print_json(study_data(study, trials, best))
        return
    show_study(console(), study, trials, best, mirror_line(study, is_here=not backend.on_server))
    _print_links(backend, study)


def _best(backend: Backend, arguments: argparse.Namespace) -> None:
    if arguments.yaml:
        text = backend.best_yaml(arguments.study, arguments.trial)
        print_json({"yaml": text}) if arguments.json else print_text(text)
        return
    from dialin.cli.render import mirror_line, result_data, show_point, show_result

    study = backend.study(arguments.study)
    if arguments.trial is not None:
        point = backend.best(study.id, arguments.trial)
        print_json(result_data(study, point)) if arguments.json else show_point(console(), study, point)
        return
    best = _best_of(backend, study)
    if arguments.json:
        print_json(result_data(study, best))
        return
    show_result(console(), study, best, mirror_line(study, is_here=not backend.on_server))
    _print_front_command(backend, study)
    _print_links(backend, study)


def _watch(backend: Backend, arguments: argparse.Namespace) -> int:
    return _follow(backend, arguments.study, arguments)


def _follow(backend: Backend, reference: str, arguments: argparse.Namespace) -> int:
    from dialin.cli.follow import follow

    study = backend.study(reference)
    if not study.ended:  # the events of one that has ended would be hours of the past in a second
        try:
            follow(console(stderr=arguments.json), study, backend.events(study.id))
        except KeyboardInterrupt:
            # Ctrl-C ends the watching alone: the study is another process's.
            print("watching has ended; the study continues", file=sys.stderr)
            return INTERRUPTED
        study = backend.study(study.id)
    return show_end(backend, study, arguments)


def _stop(backend: Backend, arguments: argparse.Namespace) -> None:
    from dialin.cli.render import short_data

    study = backend.stop(arguments.study)
    if arguments.json:
        print_json(short_data(study))
    elif study.ended:
        print(f"study {study.id} is {study.state.value}; resume it with: {backend.command(f'resume {study.id}')}")
    else:
        print(f"study {study.id} was asked to stop")


def _logs(backend: Backend, arguments: argparse.Namespace) -> None:
    logs = backend.logs(arguments.study, arguments.tail, arguments.trial)
    if arguments.json:
        print_json(dict(logs))
        return
    for name, text in logs.items():
        print_text(f"== {name}\n{text}")
    if not logs:
        print("nothing was logged: no trial has printed anything or has failed")


def _resume(backend: Backend, arguments: argparse.Namespace) -> int | None:
    study = backend.resume(arguments.study, arguments.runner, progress_on(arguments))
    return _show_continued(backend, study, arguments)


def _extend(backend: Backend, arguments: argparse.Namespace) -> int | None:
    listen = progress_on(arguments)
    study = backend.extend(arguments.study, arguments.trials, arguments.epochs, arguments.runner, listen)
    return _show_continued(backend, study, arguments)


def _show_continued(backend: Backend, study: Study, arguments: argparse.Namespace) -> int | None:
    """What came out, where the study has been driven here; on a server, that it is queued."""
    if not backend.on_server:
        return show_end(backend, backend.study(study.id), arguments)
    _show_queued(backend, study, arguments)
    return None


def progress_on(arguments: argparse.Namespace) -> Callable[[], AbstractContextManager[Progress]]:
    """Opens the progress display: on standard output, or on standard error when that is to hold JSON alone."""

    def open_progress() -> AbstractContextManager[Progress]:
        from dialin.study_flow.progress import Progress

        return Progress(console(stderr=arguments.json))

    return open_progress


def show_end(backend: Backend, study: StudyInFull, arguments: argparse.Namespace) -> int:
    """Show what came out of a study that has ended. Returns the exit code."""
    from dialin.cli.render import mirror_line, result_data, show_claim, show_result

    best = _best_of(backend, study)
    if arguments.json:
        print_json(result_data(study, best))
        return exit_code(study.state)
    screen = console()
    show_result(screen, study, best, mirror_line(study, is_here=not backend.on_server))
    show_claim(screen, study)
    _print_front_command(backend, study)
    if study.state is StudyState.INTERRUPTED:
        print(f"resume it with       {backend.command(f'resume {study.id}')}")
    _print_links(backend, study)
    return exit_code(study.state)


def _show_queued(backend: Backend, study: Study, arguments: argparse.Namespace) -> None:
    from dialin.cli.render import short_data

    if arguments.json:
        print_json(short_data(study))
        return
    print_text(study.line())
    if not study.ended:
        print(f"watch it             {backend.command(f'watch {study.id}')}")
    _print_links(backend, study)


def _print_front_command(backend: Backend, study: StudyInFull) -> None:
    if study.pareto:
        command = backend.command(f"best {study.id} --trial {study.pareto[-1].trial} --yaml")
        print(f"one of them          {command}")


def _print_links(backend: Backend, study: Study) -> None:
    for title, name in (("its page", "page"), ("in MLflow", "mlflow")):
        if (link := backend.link(study, name)) is not None:
            print(f"{title:<20} {link}")


def _best_of(backend: Backend, study: Study) -> Best | None:
    try:
        return backend.best(study.id)
    except NoResultError:
        return None
