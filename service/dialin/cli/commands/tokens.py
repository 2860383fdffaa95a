"""`dialin token`: who may use a server."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dialin.cli.output import print_json
from dialin.cli.parser import Commands, Parser, add_command, add_common, one_of
from dialin.lifecycle import Role

if TYPE_CHECKING:
    from dialin.store.tokens import Tokens

ACTIONS = ("create", "list", "revoke")
_ROLES = "viewer reads; submitter also submits studies and changes its own; admin may do everything"


def add(commands: Commands) -> None:
    """Register the command with its subcommands."""
    text = "create, list or revoke the tokens of a server's users"
    token = commands.add_parser("token", help=text, description=f"{text[0].upper()}{text[1:]}.")
    actions = token.add_subparsers(metavar="create|list|revoke", required=True, parser_class=Parser, dest="action")

    create = add_command(actions, "create", _create, "create a token; it is shown once")
    create.add_argument("name", metavar="NAME", help="the user's name; each name has one token")
    create.add_argument(
        "--role", type=one_of("--role", Role), metavar="viewer|submitter|admin", required=True, help=_ROLES
    )
    listing = add_command(actions, "list", _list, "list the names that have a token, with their roles")
    revoke = add_command(actions, "revoke", _revoke, "revoke a token, and end the sessions that were opened with it")
    revoke.add_argument("name", metavar="NAME", help="the user's name")
    for parser in (create, listing, revoke):
        add_common(parser)


def _create(arguments: argparse.Namespace) -> None:
    with _tokens(arguments) as tokens:
        secret = tokens.create(arguments.name, arguments.role)
    if arguments.json:
        print_json({"name": arguments.name, "role": arguments.role, "token": secret})
    else:
        print(f"{secret}\nthis token is shown once: set it as DIALIN_TOKEN, or sign in to the server's page with it")


def _list(arguments: argparse.Namespace) -> None:
    with _tokens(arguments) as tokens:
        rows = [{"name": name, "role": role.value, "created_at": at} for name, role, at in tokens.list()]
    if arguments.json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['name']}  {row['role']}")
    if not rows:
        print("no tokens yet; create one with: dialin token create NAME --role submitter")


def _revoke(arguments: argparse.Namespace) -> None:
    with _tokens(arguments) as tokens:
        tokens.revoke(arguments.name)
    if arguments.json:
        print_json({"revoked": arguments.name})
    else:
        print(f"the token of {arguments.name} is revoked; {arguments.name} has no token now")


@contextmanager
def _tokens(arguments: argparse.Namespace) -> Iterator[Tokens]:
    """The tokens of the server that keeps its data in --out."""
    import sys

    from dialin.settings import Settings
    from dialin.store.output_folder import open_output
    from dialin.store.tokens import Tokens

    settings = Settings.read(out=arguments.out)
    open_output(settings, lambda text: print(text, file=sys.stderr))
    with Tokens(settings.database) as tokens:
        yield tokens
