"""Reading YAML that anybody may have written: YAML 1.2's plain values, every key with its line, nothing dangerous.

PyYAML alone reads `1e-3` as text, `no` as false and `1:30` as 90, unfolds 254 bytes of aliases to 37 MB, keeps the
last of two equal keys, and raises RecursionError on deep nesting. Here the first three are read as YAML 1.2's core
schema says, and the rest is refused. JSON is a subset. Only PyYAML's event stream is used, which is not recursive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from service.errors import Problem, SpecError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_DIGITS = 60

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
# What YAML allows in a stream: tab, line ends, and everything printable.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """Plain data, and the line (from 1) of every dotted path in it; list items are counted from 0: `space.lr.0`."""

    data: Any
    lines: Mapping[str, int]


def read_file(path: Path, source: str = "") -> Document:
    """The document in a file. Raises SpecError for a file that cannot be read, is too big, or is not plain YAML."""
    source = source or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _error(f"cannot be read: {error.strerror or error}", None, source) from None
    return read_yaml(content, source)


def read_yaml(text: str | bytes, source: str = "") -> Document:
    """The one document in `text`. Raises SpecError, which names the line, for all that is not plain and small."""
    decoded = _decode(text, source)
    if found := _UNPRINTABLE.search(decoded):
        line = decoded.count("\n", 0, found.start()) + 1
        raise _error(f"the character {found.group()!r} is not allowed", line, source)
    try:
        return _Builder(decoded, source).document()
    except yaml.YAMLError as error:
        raise _error(_reason(error), _line_of(error), source) from None


def plain_value(text: str) -> bool | int | float | str | None:
    """What YAML 1.2's core schema says that an unquoted word is. Raises ValueError for inf, nan and huge numbers."""
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    is_int = _INT.fullmatch(text) is not None
    if not is_int and _FLOAT.fullmatch(text) is None:
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters; at most {MAX_DIGITS} are read")
    if is_int:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number")
    return value


def join(path: str, key: object) -> str:
    """The dotted path of a key below `path`."""
    return f"{path}.{key}" if path else str(key)


class _Builder:
    """Builds data from events. Recursion is safe: it is never deeper than MAX_DEPTH."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self._source = source
        self._lines: dict[str, int] = {}

    def document(self) -> Document:
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse("a second document; only one is read", event)
            elif isinstance(event, yaml.NodeEvent):
                data = self._value(event, "", 0)
        if data is None:
            raise _error("the document is empty", None, self._source)
        return Document(data, self._lines)

    def _value(self, event: Any, path: str, depth: int) -> Any:
        self._lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refuse("anchors and aliases are not allowed; write the value out", event)
        if event.tag is not None:
            raise self._refuse(f"tags are not allowed: {event.tag!r}", event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if depth == MAX_DEPTH:
            raise self._refuse(f"nested deeper than {MAX_DEPTH} levels", event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path, depth)
        return self._sequence(path, depth)

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            here = join(path, key)
            if key in data:
                raise self._refuse(f"the key {key!r} stands twice, first on line {self._lines[here]}", event)
            # A path may be taken already ("a.b" as one key beside a: {b: ...}): then the first keeps its line.
            self._lines.setdefault(here, event.start_mark.line + 1)
            data[key] = self._value(next(self._events), here, depth + 1)
        return data

    def _sequence(self, path: str, depth: int) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            data.append(self._value(event, join(path, len(data)), depth + 1))
        return data

    def _key(self, event: Any) -> str:
        if isinstance(event, yaml.CollectionStartEvent):
            raise self._refuse("a key must be a word, not a list or a mapping", event)
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.style is None:
            raise self._refuse("merge keys are not allowed; write the values out", event)
        key = self._value(event, "", 0)
        if not isinstance(key, str):
            raise self._refuse(f"a key must be a word, not {event.value!r}", event)
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if _UNPRINTABLE.search(text):
            raise self._refuse("escaped control characters are not allowed", event)
        if event.style:  # quoted, or a block: text as it stands (a plain one has style None, or "" from libyaml)
            return text
        try:
            return plain_value(text)
        except ValueError as error:
            raise self._refuse(str(error), event) from None

    def _refuse(self, message: str, event: Any) -> SpecError:
        return _error(message, event.start_mark.line + 1, self._source)


def _decode(text: str | bytes, source: str) -> str:
    try:
        content = text.encode() if isinstance(text, str) else text
        if len(content) > MAX_BYTES:
            raise _error(f"longer than {MAX_BYTES // 1024} KiB", None, source)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(f"not UTF-8: byte {error.object[error.start]:#04x}", line, source) from None
    except UnicodeEncodeError as error:
        raise _error("not Unicode text", error.object.count("\n", 0, error.start) + 1, source) from None


def _error(message: str, line: int | None, source: str) -> SpecError:
    return SpecError([Problem("", message, line)], source)


def _reason(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    return f"not YAML: {problem}"


def _line_of(error: yaml.YAMLError) -> int | None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark is not None else None
