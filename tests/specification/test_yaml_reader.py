"""What is read, and what is refused, by text."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dialin.errors import SpecError
from dialin.specification import yaml_reader as reading
from dialin.specification.yaml_reader import MAX_BYTES, read_value, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("+4", 4),
        ("0x1F", 31),
        ("012", 12),
        ("1.", 1.0),
        (".inf", math.inf),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("1:30", "1:30"),
        ("2026-11-20", "2026-11-20"),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("1_000", "1_000"),
        ("=", "="),
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
    ],
)
def test_plain_values_are_yaml_1_2(text, value):
    result = read_value(text, "")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "line 1: anchors and aliases are not allowed; write the value out"),
        (
            "a: 1\nb: !!python/object:os.system x",
            "line 2: the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed",
        ),
        ("a: 1\nb:\n  c: 2\n  c: 3", "line 4: the key 'c' appears twice; first on line 3"),
        ("a: 1\n---\nb: 2", "line 2: a second document; only one is read"),
        ("a: {<<: {b: 1}}", "line 1: merge keys are not allowed; write the values out"),
        ("{[1]: 2}", "line 1: a key must be a plain word"),
        ("a: " + "[" * 30 + "]" * 30, "line 1: nested deeper than 20 levels"),
        ("", "empty"),
        ("# only a comment", "empty"),
        (b"a: 1\nb: \xff\xfe", "line 2: not UTF-8: byte 8 is 0xff"),
        ("a" * (MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes; at most {MAX_BYTES} are read"),
        ("a: " + "1" * 5000, "line 1: a number of 5000 digits"),
        ("a: " + "9" * 390, "line 1: a number of 390 digits"),  # no float holds it
        ("a: 1\nb: \0", "line 2: the character '\\x00' is not allowed"),
        ("a: \ud800", "line 1: the character '\\ud800' is not allowed"),
        ('a: 1\nb: "\\0"', "line 2: control characters are not allowed, escaped or not"),
        ("1: a", "line 1: a key must be a plain word"),
        ("a: 1\n? &x b\n: 2", "line 2: anchors and aliases are not allowed; write the value out"),
    ],
)
def test_refused(text, message):
    with pytest.raises(SpecError) as caught:
        read_yaml(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["a: [1", 'a: "\\ud800"', 'a: "\\U00110000"', "a: b: c", "a: 'x", "%YAML 9.9\n---\na: 1"]
)
def test_what_is_not_yaml_is_refused_with_its_line(text):
    with pytest.raises(SpecError, match=r"^line \d: not YAML: "):
        read_yaml(text)


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert read_yaml(b"\xef\xbb\xbfa: 1").data == read_yaml("\ufeffa: 1").data == {"a": 1}


@pytest.mark.parametrize("text", ["a: [" + "1," * 120_000 + "1]", "- 1\n" * 60_000, "? " * 100_000, "{a: " * 60_000])
def test_the_largest_documents_are_answered_at_once(text):
    began = time.process_time()
    with contextlib.suppress(SpecError):
        read_yaml(text)
    assert time.process_time() - began < 3


def test_the_parser_without_libyaml_reads_the_same(monkeypatch):
    monkeypatch.setattr(reading, "_LOADER", yaml.SafeLoader)
    test_every_path_has_its_line()
    assert read_yaml("a: 1e-3\nb: '1e-3'\nc: no").data == {"a": 0.001, "b": "1e-3", "c": "no"}
    for text in ('a: "\\ud800"', 'a: "\\U00110000"', "a: [1"):
        with pytest.raises(SpecError, match="line 1: "):
            read_yaml(text)


def test_a_bomb_of_brackets_is_refused_without_recursion():
    with pytest.raises(SpecError, match="nested deeper"):
        read_yaml("[" * 100_000)


def test_every_path_has_its_line():
    document = read_yaml("a: 1\nb:\n  c:\n  - x\n  - y\n")
    assert [document.line(path) for path in ("a", "b", "b.c", "b.c.1", "b.c.9.z")] == [1, 2, 3, 5, 3]


@given(st.text())
def test_no_text_gives_anything_but_a_spec_error(text):
    try:
        read_yaml(text)
    except SpecError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab c:#-1e'\"", max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_reads_back_what_json_wrote(value):
    import json

    assert read_value(json.dumps(value), "") == value or value in ({}, [])


def test_pyyaml_alone_would_have_read_it_otherwise():
    """The reason for this module; should PyYAML change, it can shrink."""
    assert yaml.safe_load("a: 1e-3")["a"] == "1e-3"
    assert yaml.safe_load("a: no")["a"] is False
    assert yaml.safe_load("a: 1:30")["a"] == 90
