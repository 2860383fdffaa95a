"""Makes text that people or their functions supply, of any characters and any length, fit to store and to show.

`printable` decides what a character may do, `shorten` how long a text may be; the other functions combine the two.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST_REASON = 1_000
"""The characters of the reason why a trial or a study ended, at most."""
MOST_LINE = 4_000
"""The characters of one line of a log, at most."""
MOST_LOG = 256 * 1024
"""The characters of a trial's traceback, at most."""
MOST_TAIL = 4 * 2**20
"""The bytes at the end of a log that are read for its last lines."""
MOST_VALUE = 500
"""The characters of a knob's value where it is shown, at most."""

# What a terminal takes as a command: CSI and two-character sequences, and strings such as a window's title.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)|[ -/]{0,2}[0-OQ-WYZ\\`-~])"
)
_LINE_END = re.compile(r"\r\n?")
# Control characters, marks of direction, separators that some programs take as line ends, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACE = re.compile(r"[\t\n]+")
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def printable(text: str) -> str:
    """The text without any effect on the terminal or page that shows it, in characters that UTF-8 can encode.

    Terminal sequences are left out; other control characters, marks of direction and lone surrogates are written as
    `\\x00`, `\\u202e`. Line ends become `\\n`; tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, _LINE_END.sub("\n", _SEQUENCE.sub("", text)))


def shorten(text: str, most: int, *, tail: int = 0) -> str:
    """The text in at most `most` characters, of which the last `tail` are its end; a mark says how much was cut."""
    if len(text) <= most:
        return text
    mark = f"[... {len(text) - most:,} characters cut ...]"  # to learn its own length, which is cut out as well
    mark = f"[... {len(text) - most + len(mark):,} characters cut ...]"
    head = max(0, most - tail - len(mark))
    return f"{text[:head]}{mark}{text[len(text) - tail :] if tail else ''}"


def one_line(text: object, most: int = MOST_REASON) -> str:
    """A text as one printable line of at most `most` characters."""
    return shorten(_SPACE.sub(" ", printable(str(text))).strip(), most)


def log_text(text: str, most: int = MOST_LOG) -> str:
    """A text of many lines, printable, with at most `MOST_LINE` characters a line and `most` in all.

    Half of what is kept is the end, because the end of a traceback says what happened.
    """
    lines = (shorten(line, MOST_LINE) for line in printable(text).split("\n"))
    return shorten("\n".join(lines), most, tail=most // 2)


def read_tail(file: Path, lines: int) -> str:
    """The last lines of a log, printable, each with its line end; empty where there is no file.

    At most `MOST_TAIL` bytes are read.
    """
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, 2) - MOST_TAIL))
        text = log_text(opened.read().decode(errors="replace"), MOST_TAIL)
    return "".join(f"{line}\n" for line in text.splitlines()[-lines:])


def mask_numbers(text: str) -> str:
    """The text with `#` for every number and address: equal for errors that differ in nothing else."""
    return _VARYING.sub("#", text)


def scalar_text(value: object, digits: int | None = 4, most: int = MOST_VALUE) -> str:
    """A knob's value as YAML writes it: `null`, `true`, a number, a text without quotes.

    A number with a fraction gets `digits` significant digits, all that it has for None. A text becomes one printable
    line of at most `most` characters.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}g}"
    return one_line(value, most)


def metric_text(value: float | None) -> str:
    """A metric's value with four decimals, or with four digits where decimals would say little; "" for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def show_value(value: object, most: int = 60) -> str:
    """A value of a specification as an error names it: as `scalar_text`, with quotes around text, cut at `most`
    characters."""
    text = repr(value) if isinstance(value, str) else scalar_text(value, digits=None)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
