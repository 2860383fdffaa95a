"""Reads YAML from people who are not trusted: plain values as in YAML 1.2, the line of every key, nothing dangerous.

PyYAML alone reads `1e-3` as text, `no` as false and `1:30` as 90, expands 254 bytes of aliases to 37 MB, keeps the
last of two equal keys, and raises RecursionError on deep nesting. Here the first three are read as YAML 1.2 says, and
the rest is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from dialin.errors import Problem, SpecError

MAX_BYTES = 256 * 1024
"""The size of a document, at most."""
MAX_DEPTH = 20
"""How deep mappings and lists may be nested."""
MAX_DIGITS = 60
"""The digits of a whole number, at most; beyond 308 a float cannot hold it."""

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
# Every character that YAML does not allow in a stream, with lone surrogates; PyYAML lets them in as escapes.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, if installed, is eight times faster


@dataclass(frozen=True)
class Document:
    """What was read from one text.

    data: plain data: dicts, lists, text, numbers, true, false, None.
    lines: the line, from 1, of every path; a path is the keys joined by dots, list items by their number from 0.
    source: the file, as the person named it; empty where there is none.
    """

    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def line(self, path: str) -> int | None:
        """The line of a path, or of the nearest path above it in the document; None for an empty document."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


def read_yaml(text: str | bytes, source: str = "") -> Document:
    """The one document in `text`. Raises SpecError, which names the line, for anything that is not plain and small."""
    decoded = _decode(text, source)
    try:
        return _Builder(decoded, source).document()
    except yaml.YAMLError as error:
        last = max(1, len(decoded.splitlines()))  # libyaml counts the end of the text as a further line
        raise _error(_reason(error), min(_line_of(error) or last, last), source) from None
    except (ValueError, OverflowError):  # from PyYAML's parser, for an escape beyond Unicode
        raise _error("not YAML: an escape stands for no character", 1, source) from None


def read_value(text: str, source: str) -> Any:
    """One value as it would stand in a file, for `--set KEY=VALUE`. Raises SpecError."""
    return read_yaml(text, source).data


class _Builder:
    """Builds the data from PyYAML's events, because PyYAML's own composer recurses without a bound."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._source = source
        self._lines: dict[str, int] = {}

    def document(self) -> Document:
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refusal("a second document; only one is read", event)
            elif isinstance(event, yaml.NodeEvent):
                data = self._value(event, "", 0)
        if not documents:
            raise _error("empty", None, self._source)
        return Document(data, self._lines, self._source)

    def _value(self, event: Any, path: str, depth: int) -> Any:
        # A key has set its line already; a value may begin lines below it.
        self._lines.setdefault(path, event.start_mark.line + 1)
        self._check(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if depth == MAX_DEPTH:
            raise self._refusal(f"nested deeper than {MAX_DEPTH} levels", event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path, depth)
        return self._sequence(path, depth)

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            below = _join(path, key)
            if key in data:
                raise self._refusal(f"the key {key!r} appears twice; first on line {self._lines[below]}", event)
            self._lines[below] = event.start_mark.line + 1
            data[key] = self._value(next(self._events), below, depth + 1)
        return data

    def _sequence(self, path: str, depth: int) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            data.append(self._value(event, _join(path, len(data)), depth + 1))
        return data

    def _key(self, event: Any) -> str:
        self._check(event)
        if not isinstance(event, yaml.ScalarEvent) or event.value == "" or not isinstance(self._scalar(event), str):
            raise self._refusal("a key must be a plain word", event)
        if event.value == "<<":
            raise self._refusal("merge keys are not allowed; write the values out", event)
        return str(event.value)

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if _UNPRINTABLE.search(text):
            raise self._refusal("control characters are not allowed, escaped or not", event)
        if event.style:  # quoted, or a block: always text. A plain scalar has None here, or "" from libyaml
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise self._refusal(f"a number of {len(text)} digits", event)
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return _SPECIAL_FLOATS.get(text.lower(), text)

    def _check(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refusal("anchors and aliases are not allowed; write the value out", event)
        if event.tag is not None:
            raise self._refusal(f"the tag {event.tag!r} is not allowed", event)

    def _refusal(self, message: str, event: Any) -> SpecError:
        return _error(message, event.start_mark.line + 1, self._source)


def _decode(text: str | bytes, source: str) -> str:
    # Measured in bytes, before anything is decoded or parsed.
    size = len(text.encode(errors="replace") if isinstance(text, str) else text)
    if size > MAX_BYTES:
        raise _error(f"{size} bytes; at most {MAX_BYTES} are read", None, source)
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}", line, source) from None
    if found := _UNPRINTABLE.search(decoded.removeprefix("\ufeff")):
        line = decoded.count("\n", 0, found.start()) + 1
        raise _error(f"the character {found.group()!a} is not allowed", line, source)
    return decoded


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
