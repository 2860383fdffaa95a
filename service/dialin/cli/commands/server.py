"""`dialin up` and `dialin db`: for who runs a server."""

from __future__ import annotations

import argparse

from dialin.cli.output import print_json
from dialin.cli.parser import Commands, Parser, add_command, add_common, add_data_dir, add_log_level
from dialin.errors import UsageError

DB_ACTIONS = ("current", "upgrade")


def add(commands: Commands) -> None:
    """Register the commands."""
    up = add_command(commands, "up", _up, "run a server here: the API with its page, MLflow and Ray")
    up.add_argument("--host", default="127.0.0.1", metavar="HOST", help="address to listen on (default 127.0.0.1)")
    up.add_argument("--port", type=int, default=8080, metavar="PORT", help="port to listen on (default 8080)")
    up.add_argument(
        "--data", dest="out", metavar="DIR", help="folder of its data (default: DIALIN_OUT, else ./dialin-data)"
    )
    add_data_dir(up)
    add_log_level(up)

    text = "show or upgrade the version of the studies' database"
    db = commands.add_parser("db", help=text, description=f"{text[0].upper()}{text[1:]}.")
    actions = db.add_subparsers(metavar="current|upgrade", required=True, parser_class=Parser, dest="action")
    current = add_command(actions, "current", _current, "show the database's version, and the one that dialin needs")
    upgrade = add_command(
        actions,
        "upgrade",
        _upgrade,
        "upgrade the database to the version that dialin needs",
        details="A database that is a file is copied first. Stop the servers that use it before.",
    )
    for parser in (current, upgrade):
        add_common(parser)


def _up(arguments: argparse.Namespace) -> None:
    from dialin.server.up import run_server
    from dialin.settings import ServerSettings, Settings

    if not 1 <= arguments.port <= 65535:
        raise UsageError(f"--port {arguments.port}; allowed: 1 to 65535")
    run_server(
        Settings.read(out=arguments.out, data_dir=arguments.data_dir),
        ServerSettings.read(),
        arguments.host,
        arguments.port,
        lambda text: print(text, flush=True),
    )


def _current(arguments: argparse.Namespace) -> int:
    from dialin.settings import Settings
    from dialin.store.migrate import current
    from dialin.store.schema import HEAD

    found = current(Settings.read(out=arguments.out).database)
    if arguments.json:
        print_json({"current": found, "needed": HEAD})
    elif found is None:
        print(_none_yet(HEAD))
    elif found == HEAD:
        print(f"the database has version {found}, which this dialin needs")
    else:
        print(f"the database has version {found}, and this dialin needs version {HEAD}; upgrade it: dialin db upgrade")
    return 0 if found in (None, HEAD) else 1


def _upgrade(arguments: argparse.Namespace) -> None:
    from dialin.settings import Settings
    from dialin.store.migrate import upgrade
    from dialin.store.schema import HEAD

    settings = Settings.read(out=arguments.out)
    before = upgrade(settings.database) if settings.has_database else None
    if arguments.json:
        print_json({"before": before, "current": HEAD if settings.has_database else None})
    elif before is None:
        print(_none_yet(HEAD))
    elif before == HEAD:
        print(f"the database has version {HEAD} already; nothing was changed")
    else:
        print(f"the database was upgraded from version {before} to version {HEAD}")


def _none_yet(version: str) -> str:
    return f"there is no database yet; the first study creates one of version {version}"
