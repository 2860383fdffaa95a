"""Texts that a person or a person's function supplies, of any characters and any length, made fit to store and show.

`printable` decides what a character may do, `shorten` how long a text may be; everything else here is made of the two.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST_REASON = 1_000  # characters of why a trial or a study ended
MOST_LINE = 4_000  # characters of a line of a log
MOST_LOG = 256 * 1024  # characters of a trial's traceback
MOST_TAIL = 4 * 2**20  # bytes of the end of a log that are looked at
MOST_VALUE = 500  # characters of a knob's value where it is shown

# What a terminal takes for a command: CSI and two-character sequences, and strings such as a window's title.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)|[ -/]{0,2}[0-OQ-WYZ\\`-~])"
)
_LINE_END = re.compile(r"\r\n?")
# Controls, marks that turn the direction of what is shown, line ends that are none to most programs, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACE = re.compile(r"[\t\n]+")
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def printable(text: str) -> str:
    """A text that does nothing to whoever shows it, and that every encoding of Unicode takes: terminal sequences are
    left out; other control characters, marks of direction and lone surrogates are written as `\\x00`, `\\u202e`. Line
    ends become `\\n`; tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, _LINE_END.sub("\n", _SEQUENCE.sub("", text)))


def shorten(text: str, most: int, *, tail: int = 0) -> str:
    """The text in at most `most` characters, the last `tail` of it kept; the mark in the gap says how much was cut."""
    if len(text) <= most:
        return text
    mark = f"[... {len(text) - most:,} characters cut ...]"
    mark = f"[... {len(text) - most + len(mark):,} characters cut ...]"
    head = max(0, most - tail - len(mark))
    return f"{text[:head]}{mark}{text[len(text) - tail :] if tail else ''}"


def one_line(text: object, most: int = MOST_REASON) -> str:
    """A text as one printable line of at most `most` characters."""
    return shorten(_SPACE.sub(" ", printable(str(text))).strip(), most)


def log_text(text: str, most: int = MOST_LOG) -> str:
    """A text of many lines: printable, each of them at most `MOST_LINE` characters, and `most` in all, of which the
    later half is the end: that is where a traceback says what happened."""
    lines = (shorten(line, MOST_LINE) for line in printable(text).split("\n"))
    return shorten("\n".join(lines), most, tail=most // 2)


def read_tail(file: Path, lines: int) -> str:
    """The last lines of a log, printable, each with its end of line; empty where there is no file. Of a very long log
    no more than `MOST_TAIL` bytes are read."""
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, 2) - MOST_TAIL))
        text = log_text(opened.read().decode(errors="replace"), MOST_TAIL)
    return "".join(f"{line}\n" for line in text.splitlines()[-lines:])


def alike(text: str) -> str:
    """What texts have in common that say the same of different numbers and addresses."""
    return _VARYING.sub("#", text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def show_value(value: object, most: int = 60) -> str:
    """A value of a specification as an error names it: YAML's words, quotes around text, cut at `most` characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
