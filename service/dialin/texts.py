"""Makes texts from users and their functions, which may have any characters and any length, safe to store and show.

`printable` replaces unsafe characters, `shorten` limits the length; the other functions combine the two.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST_REASON = 1_000
"""Maximum characters of the reason why a trial or a study ended."""
MOST_LINE = 4_000
"""Maximum characters of one line of a log."""
MOST_LOG = 256 * 1024
"""Maximum characters of a trial's traceback."""
MOST_TAIL = 4 * 2**20
"""Maximum bytes at the end of a log that are read for its last lines."""
MOST_VALUE = 500
"""Maximum characters of a knob's value when it is shown."""

# Terminal control sequences: CSI and two-character sequences, and strings such as a window's title.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)|[ -/]{0,2}[0-OQ-WYZ\\`-~])"
)
_LINE_END = re.compile(r"\r\n?")
# Control characters, bidirectional controls, separators that some programs treat as line ends, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACE = re.compile(r"[\t\n]+")
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def printable(text: str) -> str:
    """Return the text with only characters that are safe to show on a terminal or page and that UTF-8 can encode.

    Terminal sequences are removed; other control characters, bidirectional controls and lone surrogates are written as
    `\\x00`, `\\u202e`. Line ends become `\\n`; tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, _LINE_END.sub("\n", _SEQUENCE.sub("", text)))


def shorten(text: str, most: int, *, tail: int = 0) -> str:
    """Return the text cut to at most `most` characters, of which the last `tail` are its end.

    A mark in the middle says how many characters were cut.
    """
    if len(text) <= most:
        return text
    mark = f"[... {len(text) - most:,} characters cut ...]"  # a first version, whose length is counted below
    mark = f"[... {len(text) - most + len(mark):,} characters cut ...]"
    head = max(0, most - tail - len(mark))
    return f"{text[:head]}{mark}{text[len(text) - tail :] if tail else ''}"


def one_line(text: object, most: int = MOST_REASON) -> str:
    """Return a text as one printable line of at most `most` characters."""
    return shorten(_SPACE.sub(" ", printable(str(text))).strip(), most)


def log_text(text: str, most: int = MOST_LOG) -> str:
    """Return a text of many lines as printable text, with at most `MOST_LINE` characters a line and `most` in all.

    If it is cut, half of the result is the end of the text, because the last lines of a traceback name the error.
    """
    lines = (shorten(line, MOST_LINE) for line in printable(text).split("\n"))
    return shorten("\n".join(lines), most, tail=most // 2)


def read_tail(file: Path, lines: int) -> str:
    """Return the last lines of a log as printable text, each with its line end; empty if there is no file.

    At most `MOST_TAIL` bytes are read.
    """
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, 2) - MOST_TAIL))
        text = log_text(opened.read().decode(errors="replace"), MOST_TAIL)
    return "".join(f"{line}\n" for line in text.splitlines()[-lines:])


def mask_numbers(text: str) -> str:
    """Return the text with `#` in place of every number and address, to find errors that differ in nothing else."""
    return _VARYING.sub("#", text)


def scalar_text(value: object, digits: int | None = 4, most: int = MOST_VALUE) -> str:
    """Return a knob's value as YAML writes it: `null`, `true`, a number, a text without quotes.

    A float gets `digits` significant digits; None: all of them. A text becomes one printable line of at most `most`
    characters.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}g}"
    return one_line(value, most)


def metric_text(value: float | None) -> str:
    """Return a metric's value with four decimals, or with four significant digits if it is very small or large; an
    empty text for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def measure_text(value: float | None) -> str:
    """Return the value of one of several metrics, which may be a count: a whole number above 1 in full, with commas
    (`12,345`); any other as `metric_text`."""
    if value is not None and 1 < abs(value) < 1e15 and float(value).is_integer():
        return f"{int(value):,}"
    return metric_text(value)


def show_value(value: object, most: int = 60) -> str:
    """Return a value of a specification for an error message: as `scalar_text`, but with quotes around text, and cut at
    `most` characters."""
    text = repr(value) if isinstance(value, str) else scalar_text(value, digits=None)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
