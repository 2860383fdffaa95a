"""Reading YAML that anybody may have written: YAML 1.2's plain values, every key with its line, nothing dangerous.

PyYAML alone reads `1e-3` as text, `no` as false and `1:30` as 90, unfolds 254 bytes of aliases to 37 MB, keeps the
last of two equal keys, and raises RecursionError on deep nesting. Here the first three are read as YAML 1.2 says, and
the rest is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from service.errors import Problem, SpecError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


@dataclass(frozen=True)
class Document:
    """Plain data, and the line (from 1) of every path in it; paths are dotted, list items by their number."""

    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def line(self, path: str) -> int | None:
        """The line of a path, or of the nearest one above it that the document has."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


def read_yaml(text: str | bytes, source: str = "") -> Document:
    """The one document in `text`. Raises SpecError, which names the line, for all that is not plain and small."""
    size = len(text.encode(errors="replace") if isinstance(text, str) else text)
    if size > MAX_BYTES:
        raise _error(f"{size} bytes; at most {MAX_BYTES} are read", None, source)
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        node = _compose(decoded, source)
    except UnicodeDecodeError as error:
        raise _error(f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}", None, source) from None
    except yaml.YAMLError as error:
        raise _error(_reason(error), _line_of(error), source) from None
    lines: dict[str, int] = {}
    return Document(_data(node, "", lines, source), lines, source)


def read_value(text: str, source: str) -> Any:
    """One value as it would stand in a file, as `--set KEY=VALUE` takes it."""
    return read_yaml(text, source).data


def _compose(text: str, source: str) -> yaml.Node:
    """The node tree, after the event stream was checked: composing is recursive, so depth must be known before."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else None
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _error("a second document; only one is read", line, source)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _error("anchors and aliases are not allowed; write the value out", line, source)
        if tag := getattr(event, "tag", None):
            raise _error(f"the tag {tag!r} is not allowed", line, source)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _error(f"nested deeper than {MAX_DEPTH} levels", line, source)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        raise _error("empty", None, source)
    return node


def _data(node: yaml.Node, path: str, lines: dict[str, int], source: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, source)
    if isinstance(node, yaml.SequenceNode):
        return [_data(item, _join(path, index), lines, source) for index, item in enumerate(node.value)]
    return _scalar(node, source)


def _mapping(node: yaml.MappingNode, path: str, lines: dict[str, int], source: str) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "":
            raise _error("a key must be a plain word", line, source)
        key = key_node.value
        if key == "<<":
            raise _error("merge keys are not allowed; write the values out", line, source)
        if key in data:
            raise _error(f"the key {key!r} stands twice; first on line {lines[_join(path, key)]}", line, source)
        lines[_join(path, key)] = line
        data[key] = _data(value_node, _join(path, key), lines, source)
    return data


def _scalar(node: yaml.Node, source: str) -> Any:
    text: str = node.value
    if isinstance(node, yaml.ScalarNode) and node.style is not None:
        return text  # quoted or a block: text as it stands
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > 400:
            raise _error(f"a number of {len(text)} digits", node.start_mark.line + 1, source)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL_FLOATS.get(text.lower(), text)


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _error(message: str, line: int | None, source: str) -> SpecError:
    return SpecError([Problem("", message, line)], source)


def _reason(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).partition("\n")[0]
    return f"not YAML: {problem}"


def _line_of(error: yaml.YAMLError) -> int | None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark is not None else None
