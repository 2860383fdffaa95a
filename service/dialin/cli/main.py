"""The command line: it parses the arguments, runs one command, and turns errors into messages and exit codes.

Nothing heavy is imported until a command needs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dialin.cli.commands import knobs, run, server, studies, tokens
from dialin.cli.output import INTERRUPTED
from dialin.cli.parser import Parser, check_names
from dialin.errors import DialinError
from dialin.supervisor.logs import configure, quiet_optuna
from dialin.texts import printable

_GROUPS = (run, studies, knobs, server, tokens)
_SUBCOMMANDS = {"token": tokens.ACTIONS, "db": server.DB_ACTIONS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 the study failed, 2 a wrong argument, 130 interrupted."""
    try:
        arguments = _parse(sys.argv[1:] if argv is None else list(argv))
        level = getattr(arguments, "log_level", None) or "warning"
        configure(level, os.environ.get("DIALIN_LOG_FORMAT") or "text")
        quiet_optuna()
        return int(arguments.command(arguments) or 0)
    except DialinError as error:
        print(_error_text(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has gone, as in `dialin list | head`. Without this, the interpreter would fail to flush
        # standard output when it exits, and say so.
        sys.stdout = None
        return 0


def _error_text(error: DialinError) -> str:
    return "\n".join(f"error: {line}" for line in printable(str(error)).splitlines())


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="dialin", description="Find good training knobs: a search space in, the best configuration out."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(command=lambda arguments: _without_command(arguments, parser))
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for group in _GROUPS:
        group.add(commands)
    # Before argparse, whose message for an unknown command lists all of them and suggests none.
    check_names(argv, {name: _SUBCOMMANDS.get(name, ()) for name in commands.choices})
    return parser.parse_args(argv)


def _without_command(arguments: argparse.Namespace, parser: Parser) -> None:
    """`dialin` and `dialin --version`."""
    if arguments.version:
        from importlib.metadata import version

        print(f"dialin {version('dialin')}")
    else:
        parser.print_help()


if __name__ == "__main__":
    sys.exit(main())
