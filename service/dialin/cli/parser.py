"""The parser of the command line and the arguments that several commands share.

argparse checks the shape of arguments. Names that have to be among known ones are checked here, because an error should
suggest the nearest known name, and argparse has no public way to word that error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from dialin.errors import UsageError, did_you_mean
from dialin.supervisor.logs import LEVELS

Run = Callable[[argparse.Namespace], int | None]
"""What a command does with its arguments. Returns the exit code; None for 0."""

Commands = Any
"""Where commands are registered: what `add_subparsers` returns, whose class argparse keeps private."""

MAX_LINES = 100_000  # of a log


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UsageErrors."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every wrong argument."""
        raise UsageError(f"{message}\nsee {self.prog} --help")


def add_command(commands: Commands, name: str, run: Run, text: str, *, details: str = "") -> Parser:
    """Register a command. `text`: what it does, in one line; `details`: what its own help says after that."""
    description = text[0].upper() + text[1:] + "."
    parser: Parser = commands.add_parser(name, help=text, description=f"{description} {details}".strip())
    parser.set_defaults(command=run)
    return parser


def check_names(arguments: Sequence[str], commands: Mapping[str, Iterable[str]]) -> None:
    """Raise UsageError, with the nearest known name, for a command that does not exist.

    `commands`: the names of all commands, each with its own subcommands, if it has any.
    """
    words = [word for word in arguments[:2] if not word.startswith("-")]
    if not arguments or not words or arguments[0] != words[0]:
        return  # an option of `dialin` itself comes first
    command, known = words[0], commands.get(words[0])
    if known is None:
        raise UsageError(f"COMMAND {command!r}: {did_you_mean(command, commands)}")
    if known and len(words) == 2 and words[1] not in known:
        raise UsageError(f"{command} {words[1]!r}: {did_you_mean(words[1], known)}")


def one_of(label: str, names: Iterable[str]) -> Callable[[str], str]:
    """The type of an argument that takes one of these names. `label`: how errors call the argument."""
    known = tuple(map(str, names))  # members of an enumeration would be shown as Python writes them

    def check(text: str) -> str:
        if text not in known:
            raise UsageError(f"{label} {text!r}: {did_you_mean(text, known)}")
        return text

    return check


def line_count(text: str) -> int:
    """The type of an argument that is a number of lines."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_LINES:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 1 to {MAX_LINES}")
    return int(text)


def add_common(parser: Parser) -> None:
    """The arguments of every command that reads or writes studies."""
    add_out(parser)
    add_json(parser)


def add_out(parser: Parser) -> None:
    """--out and --log-level."""
    parser.add_argument("--out", metavar="DIR", help="folder of the studies (default: DIALIN_OUT, else ./dialin-data)")
    add_log_level(parser)


def add_json(parser: Parser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output, nothing else")


def add_log_level(parser: Parser) -> None:
    """--log-level."""
    levels = ", ".join(LEVELS)
    parser.add_argument(
        "--log-level",
        type=one_of("--log-level", LEVELS),
        metavar="LEVEL",
        help=f"log on standard error from this level on: {levels} (default warning)",
    )


def add_spec(parser: Parser) -> None:
    """SPEC, and the options that change it."""
    parser.add_argument("spec", metavar="SPEC", help="a YAML file, or the name of a shipped search space")
    parser.add_argument("--trials", type=int, metavar="N", help="short for --set budget.trials=N")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the specification, such as budget.epochs=3 or optimizer=sgd; may be repeated",
    )


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """The changes to the specification that the command line asks for."""
    trials = [f"budget.trials={arguments.trials}"] if arguments.trials is not None else []
    return [*arguments.overrides, *trials]


def add_study(parser: Parser) -> None:
    """STUDY."""
    parser.add_argument(
        "study", metavar="STUDY", help="an id, a name (its newest study), or `last` (the newest study of all)"
    )


def add_data_dir(parser: Parser) -> None:
    """--data-dir."""
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of the data sets (default: DIALIN_DATA_DIR, else the folder `data` in --out)",
    )


def add_training(parser: Parser) -> None:
    """The options of commands that train on this machine."""
    add_data_dir(parser)
    parser.add_argument(
        "--runner",
        type=one_of("--runner", ("ray", "inline")),
        metavar="ray|inline",
        help="ray (the default) trains trials in parallel; inline trains one after the other in this process",
    )
