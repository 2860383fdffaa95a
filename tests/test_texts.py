from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialin.texts import log_text, mask_numbers, measure_text, metric_text, one_line, printable, scalar_text, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 漢字 ✓", "größe 漢字 ✓"),
        ("a\nb\tc", "a\nb\tc"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1b(Bplain\x1bc", "plain"),
        ("\x9b2J", "\\x9b2J"),
        ("\x1b]0;never ended", "\\x1b]0;never ended"),
        ("nul\0 bell\a", "nul\\x00 bell\\x07"),
        ("half \udcff", "half \\udcff"),
        ("\u202eturned\u202c\u2066", "\\u202eturned\\u202c\\u2066"),
        ("[/red] [bold]", "[/red] [bold]"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_printable_is_harmless_and_stays_so(text):
    shown = printable(text)
    assert printable(shown) == shown
    shown.encode()
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in shown)
    assert len(one_line(text, 100)) <= 100
    assert "\n" not in one_line(text)
    json.dumps(shown, ensure_ascii=False).encode()


@given(st.text(max_size=500), st.integers(100, 200), st.integers(0, 50))
def test_what_is_shortened_fits_and_says_how_much_is_gone(text, most, tail):
    short = shorten(text, most, tail=tail)
    assert len(short) <= most
    if len(text) <= most:
        assert short == text
    else:
        head, _, rest = short.partition("[... ")
        cut, _, end = rest.partition(" characters cut ...]")
        assert text.startswith(head)
        assert text.endswith(end)
        assert len(end) == tail
        assert abs(len(text) - len(head) - tail - int(cut.replace(",", ""))) <= 1  # a digit more in the mark itself


def test_a_log_keeps_its_end():
    text = log_text("first\n" + "x" * 3_000_000 + "\n" + "line\n" * 100_000 + "ValueError: this")
    assert len(text) <= 256 * 1024
    assert text.startswith("first\nxxx")
    assert text.endswith("ValueError: this")


def test_numbers_and_addresses_are_masked():
    assert mask_numbers("no file at 0x7f3a after 1.5e-3 s") == mask_numbers("no file at 0x11 after 20 s")
    assert mask_numbers("ValueError: a") != mask_numbers("ValueError: b")


@pytest.mark.parametrize(
    ("value", "short", "exact"),
    [
        (None, "null", "null"),
        (True, "true", "true"),
        (3, "3", "3"),
        (123456, "123456", "123456"),
        (0.1234567, "0.1235", "0.1234567"),
        (1e-05, "1e-05", "1e-05"),
        ("none+\tcosine\n", "none+ cosine", "none+ cosine"),
    ],
)
def test_the_value_of_a_knob_reads_as_yaml_writes_it(value, short, exact):
    assert (scalar_text(value), scalar_text(value, digits=None)) == (short, exact)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.96875, "0.9688"),
        (0, "0.0000"),
        (12.5, "12.5000"),
        (0.0001234567, "0.0001235"),
        (123456.0, "1.235e+05"),
        (None, ""),
    ],
)
def test_the_value_of_a_metric_has_four_decimals_or_four_digits(value, text):
    assert metric_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.0, "12,345"), (650.0, "650"), (1.0, "1.0000"), (0.0, "0.0000"), (0.25, "0.2500"), (1234.5, "1234"),
     (-20.0, "-20"), (1e16, "1e+16"), (float("inf"), "inf"), (float("nan"), "nan"), (None, "")],
)  # fmt: skip
def test_a_count_among_several_metrics_is_written_in_full(value, text):
    assert measure_text(value) == text
