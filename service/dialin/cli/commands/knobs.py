"""`dialin knobs` and `dialin schema`: what a search space may say."""

from __future__ import annotations

import argparse

from dialin.cli.output import console, print_json
from dialin.cli.parser import Commands, add_command, add_json, add_log_level
from dialin.errors import UsageError, did_you_mean

_SCHEMA = """An editor with a YAML language server completes and checks a search space with it: save the schema with
`dialin schema > dialin.schema.json` and begin the search space with the line
`# yaml-language-server: $schema=dialin.schema.json`."""


def add(commands: Commands) -> None:
    """Register the commands."""
    knobs = add_command(commands, "knobs", _knobs, "list every knob that a search space may name, or describe one")
    knobs.add_argument("knob", metavar="KNOB", nargs="?", help="the knob to describe; without one, all are listed")
    schema = add_command(
        commands, "schema", _schema, "print the JSON schema of the search space language", details=_SCHEMA
    )
    for parser in (knobs, schema):
        add_json(parser)
        add_log_level(parser)


def _knobs(arguments: argparse.Namespace) -> None:
    from dialin.cli.render import show_knob, show_knobs
    from dialin.study_flow import plan_builder

    knobs = {knob.name: knob for knob in plan_builder.knobs()}
    name = arguments.knob
    if name is not None and name not in knobs:
        raise UsageError(f"knob {name!r}: {did_you_mean(name, knobs)}")
    shown = list(knobs.values()) if name is None else [knobs[name]]
    if arguments.json:
        data = [knob.model_dump(mode="json") for knob in shown]
        print_json(data if name is None else data[0])
    elif name is None:
        show_knobs(console(), shown)
    else:
        show_knob(console(), shown[0])


def _schema(_: argparse.Namespace) -> None:
    from dialin.specification.schema import json_schema

    print_json(json_schema())
