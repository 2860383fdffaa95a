"""What a bundle takes, and that nothing of a bad one is ever written."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialin.errors import BundleError
from dialin.specification import code_bundle as bundles
from dialin.specification.code_bundle import pack, unpack


def archive(entries, method=zipfile.ZIP_DEFLATED):
    """A zip file of (name, content) or (ZipInfo, content), whatever the names are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in entries:
            info = name if isinstance(name, zipfile.ZipInfo) else entry(name)
            info.compress_type = method
            file.writestr(info, content)
    return buffer.getvalue()


def entry(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo()
    info.filename = name  # as it is, a zero byte too
    info.external_attr = mode << 16
    return info


def contents(folder: Path):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refusal(data, folder):
    with pytest.raises(BundleError) as caught:
        unpack(data, folder / "target")
    assert list(folder.iterdir()) == []
    return str(caught.value)


NAMES = st.text("abcXYZ09_-. é", min_size=1, max_size=8).filter(
    lambda name: not name.startswith(".") and name != "__pycache__"
)
TREES = st.dictionaries(st.tuples(NAMES) | st.tuples(NAMES, NAMES), st.binary(max_size=50), min_size=1, max_size=6).filter(
    lambda tree: len({part.casefold() for path in tree for part in path}) == sum(map(len, tree))  # nothing is in the way
)  # fmt: skip


@given(TREES)
def test_what_was_packed_is_unpacked(tree):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "mine"
        for parts, content in tree.items():
            file = folder.joinpath(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        data = pack(folder)
        unpack(data, Path(temporary) / "there")
        assert contents(Path(temporary) / "there") == {"/".join(parts): content for parts, content in tree.items()}
        assert pack(Path(temporary) / "there") == data


PIECES = st.sampled_from(
    [
        "..",
        ".",
        "",
        "/",
        "a",
        "c",
        "d.txt",
        "b.py",
        "service",
        "search_spaces.py",
        "\\",
        "C:",
        "\0",
        "A",
        "\n",
        "é" * 130,
    ]
)


@given(
    st.lists(
        st.tuples(st.lists(PIECES, min_size=1, max_size=4).map("/".join).filter(bool), st.binary(max_size=20)),
        max_size=4,
    )
)
def test_whatever_the_names_all_lies_below_the_target_or_nothing_is_written(entries):
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with warnings.catch_warnings(action="ignore"):  # of names that stand twice
            data = archive(entries)
        try:
            unpack(data, root / "target")
        except BundleError:
            assert list(root.iterdir()) == []
        else:
            assert [path.name for path in root.iterdir()] == ["target"]
            assert contents(root / "target") == dict(entries)


@given(st.binary(max_size=200))
def test_what_is_no_archive_is_refused(data):
    with tempfile.TemporaryDirectory() as temporary:
        refusal(data, Path(temporary))


@given(st.data())
def test_a_damaged_archive_gives_what_was_packed_or_is_refused(data):
    packed = {"a/train.py": b"x = 1\n" * 40, "b.txt": bytes(range(60))}
    whole = archive(packed.items())
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[position] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        try:
            unpack(bytes(damaged), root / "target")
        except BundleError:
            assert list(root.iterdir()) == []
        else:  # a date, a name, or what nobody reads was hit
            assert [path.name for path in root.iterdir()] == ["target"]
            assert set(contents(root / "target").values()) <= set(packed.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "'/etc/passwd' is an absolute path"),
        ("../train.py", "'../train.py': no part of a path may be empty, '.' or '..'"),
        ("a/../../train.py", "no part of a path may be empty"),
        ("a//train.py", "no part of a path may be empty"),
        ("a\\train.py", "no backslash, colon or control character"),
        ("C:train.py", "no backslash, colon or control character"),
        ("a\nb.py", "no backslash, colon or control character"),
        ("folder/", "is a folder; a bundle holds regular files only"),
        ("a" * 300, "the path has more than 240 bytes"),
    ],
)
def test_names_that_are_refused(tmp_path, name, message):
    assert message in refusal(archive([("train.py", b""), (name, b"")]), tmp_path)


def test_our_names_further_down_are_nobodys_business(tmp_path):
    unpack(archive([("mine/service.py", b"1")]), tmp_path / "target")
    assert contents(tmp_path / "target") == {"mine/service.py": b"1"}


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (stat.S_IFLNK | 0o777, "is a link; a bundle holds regular files only"),
        (stat.S_IFIFO | 0o644, "is not a regular file"),
        (stat.S_IFCHR | 0o644, "is not a regular file"),
        (stat.S_IFDIR | 0o755, "is not a regular file"),
    ],
)
def test_only_plain_files_are_unpacked(tmp_path, mode, message):
    assert message in refusal(archive([(entry("x.py", mode), b"/etc/passwd")]), tmp_path)


def test_permissions_are_not_taken_over(tmp_path):
    unpack(archive([(entry("x.py", stat.S_IFREG | stat.S_ISUID | 0o777), b"")]), tmp_path / "target")
    assert not (tmp_path / "target" / "x.py").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("a.py", b""), ("A.py", b"")], "appears twice in the bundle"),
        ([("a", b""), ("a/b.py", b"")], "'a' is both a file and a folder of 'a/b.py'"),
        ([], "the bundle is empty"),
    ],
)
def test_files_in_each_others_way_are_refused(tmp_path, entries, message):
    assert message in refusal(archive(entries), tmp_path)


def test_the_limits(tmp_path, monkeypatch):
    bomb = archive([("zeros", bytes(2**20))])
    assert len(bomb) < 2**12
    monkeypatch.setattr(bundles, "MOST_UNPACKED_BYTES", 2**19)
    assert refusal(bomb, tmp_path) == "1.0 MiB unpacked; a bundle has at most 0 (the largest: 'zeros' 1.0 MiB)"
    monkeypatch.setattr(bundles, "MOST_FILES", 3)
    assert "the bundle has 4 files; at most 3 are taken" in refusal(
        archive([(str(n), b"") for n in range(4)]), tmp_path
    )
    monkeypatch.setattr(bundles, "MOST_BYTES", 100)
    assert f"the bundle has {len(bomb)} bytes; at most 100 are taken" in refusal(bomb, tmp_path)


def test_a_size_that_lies_unpacks_no_more_than_it_says(tmp_path):
    data = archive([("zeros", bytes(5000))])
    lying = data.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != data
    assert "damaged" in refusal(lying, tmp_path)


def test_methods_and_encryption_that_are_refused(tmp_path):
    assert "is packed by method 14" in refusal(archive([("a", b"x" * 99)], zipfile.ZIP_LZMA), tmp_path)
    data = bytearray(archive([("a", b"x")]))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "'a' is encrypted" in refusal(bytes(data), tmp_path)


def test_a_target_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        unpack(archive([("a", b"")]), tmp_path / "target")


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "train.py").write_text("1")
    (folder / "deep" / "data.json").write_text("2")
    return folder


def test_hidden_files_and_caches_stay_at_home(mine, tmp_path):
    for name in (".git", "__pycache__", ".venv"):
        (mine / name).mkdir()
        (mine / name / "x").write_text("")
    unpack(pack(mine), tmp_path / "there")
    assert set(contents(tmp_path / "there")) == {"train.py", "deep/data.json"}
    unpack(pack(mine, [mine / "train.py"]), tmp_path / "one")
    assert set(contents(tmp_path / "one")) == {"train.py"}


@pytest.mark.parametrize("where", ["link.py", "linked/x.py"])
def test_links_are_not_packed(mine, tmp_path, where):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.py").write_text("secret")
    (mine / "link.py").symlink_to(tmp_path / "outside" / "x.py")
    (mine / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="is a link; a bundle holds regular files only"):
        pack(mine)
    with pytest.raises(BundleError, match=f"{where.partition('/')[0]} is a link"):
        pack(mine, [Path(where)])


def test_what_else_is_not_packed(mine, tmp_path, monkeypatch):
    with pytest.raises(BundleError, match="lies outside"):
        pack(mine, [tmp_path / "other.py"])
    with pytest.raises(BundleError, match=r"no part of a path may be empty, '\.' or '\.\.'"):
        pack(mine, [Path("../other.py")])
    with pytest.raises(BundleError, match=r"gone\.py cannot be read: No such file"):
        pack(mine, [Path("gone.py")])
    with pytest.raises(BundleError, match="is not a folder"):
        pack(tmp_path / "nowhere")
    os.mkfifo(mine / "pipe")
    with pytest.raises(BundleError, match="pipe is not a regular file"):
        pack(mine)
    (mine / "pipe").unlink()
    monkeypatch.setattr(bundles, "MOST_UNPACKED_BYTES", 1)
    with pytest.raises(BundleError, match="MiB unpacked; a bundle has at most"):
        pack(mine)
