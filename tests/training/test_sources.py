"""Data sets of every kind, good and bad, and one download over real HTTP."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from PIL import Image

from dialin.errors import DataError
from dialin.training.datasets import load, prepare
from dialin.training.sources import read_folder, read_npz
from tests.conftest import ROOT


def arrays(n=12, shape=(6, 5, 3), classes=3):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = np.arange(n) % classes
    return {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]}


def write(path, **changes):
    data = {**arrays(), **changes}
    np.savez(path, **{name: array for name, array in data.items() if array is not None})
    return path


def test_digits(tmp_path):
    data = load(prepare("digits", tmp_path, print))
    assert data.x_train.shape == (1438, 1, 8, 8)
    assert data.x_test.shape == (359, 1, 8, 8)
    assert (data.x_train.dtype, data.y_train.dtype, data.classes) == (np.uint8, np.int64, 10)
    assert data.x_train.max() == 255
    # Every image of the published set is in exactly one of the two.
    from sklearn.datasets import load_digits

    together = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64)
    published = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, published))
    assert np.bincount(data.y_test).min() >= 34


def test_preparing_twice_reads_once(tmp_path, monkeypatch):
    folder = prepare("digits", tmp_path, print)
    monkeypatch.setattr("dialin.training.datasets._read", lambda *_: pytest.fail("read again"))
    assert prepare("digits", tmp_path, print) == folder
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_an_npz_is_laid_out_in_planes(tmp_path):
    path = write(tmp_path / "a.npz")
    data = load(prepare(f"npz:{path}", tmp_path, print))
    assert data.x_train.shape == (12, 3, 6, 5)
    assert np.array_equal(data.x_train[4, 2], arrays()["x_train"][4, :, :, 2])
    assert data.classes == 3


def test_a_named_set_from_a_changed_file_is_read_anew(tmp_path):
    write(tmp_path / "cifar10.npz")
    assert load(prepare("cifar10", tmp_path, print)).classes == 3
    write(tmp_path / "cifar10.npz", y_train=np.arange(12) % 2, y_test=np.arange(6) % 2)
    assert load(prepare("cifar10", tmp_path, print)).classes == 2


def test_where_nothing_can_be_written_the_temporary_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "file").touch()
    folder = prepare("digits", tmp_path / "file" / "data", print)
    assert folder.is_relative_to(tmp_path / "tmp")
    assert len(load(folder).x_train) == 1438


def test_what_is_prepared_is_read_from_where_nothing_can_be_written(tmp_path, monkeypatch):
    folder = prepare("digits", tmp_path, print)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert prepare("digits", tmp_path, print) == folder


def test_a_writer_that_died_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.rename", die)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as kill -9 would have it
    with pytest.raises(KeyboardInterrupt):
        prepare("digits", tmp_path, print)
    monkeypatch.undo()
    folder = prepare("digits", tmp_path, print)
    assert len(load(folder).x_train) == 1438
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_others_may_read_what_one_has_prepared(tmp_path):
    before = os.umask(0o022)
    try:
        folder = prepare("digits", tmp_path, print)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_loaded_set_is_one_copy_that_nobody_writes_back(tmp_path):
    folder = prepare("digits", tmp_path, print)
    data = load(folder)
    assert isinstance(data.x_train, np.memmap)
    before = int(data.x_train[0, 0, 0, 0])
    data.x_train[0, 0, 0, 0] = before + 1
    assert load(folder).x_train[0, 0, 0, 0] == before


def test_two_processes_read_once(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from dialin.training import datasets

        root, read = Path(sys.argv[1]), datasets._read

        def counted(*arguments):
            with (root / "reads").open("a") as file:
                file.write("read ")
            while not (root / "both").exists():  # the other one has come to the door
                time.sleep(0.01)
            return read(*arguments)

        datasets._read = counted
        print("ready", flush=True)
        sys.stdin.readline()
        print(datasets.prepare("digits", root / "data", print))
    """)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, **pipes) as one, subprocess.Popen(command, cwd=ROOT, **pipes) as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("\n")
            process.stdin.flush()
        (tmp_path / "both").touch()
        said = {process.communicate(timeout=60)[0] for process in (one, two)}
    assert len(said) == 1
    assert (tmp_path / "reads").read_text() == "read "


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.npz")
    first = prepare(f"npz:{path}", tmp_path, print)
    write(path, y_train=np.arange(12) % 2, y_test=np.arange(6) % 2)
    second = prepare(f"npz:{path}", tmp_path, print)
    assert first != second
    assert load(second).classes == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "no array 'y_test'; there are x_train, y_train, x_test"),
        ({"x_train": np.zeros((12, 6, 5, 3))}, "x_train is float64; images are uint8, 0 to 255"),
        (
            {"x_train": np.zeros((12, 6, 5, 7), np.uint8)},
            "x_train has shape (12, 6, 5, 7); allowed: (n, height, width) or",
        ),
        ({"x_train": np.zeros((12, 30), np.uint8)}, "x_train has shape (12, 30); allowed"),
        ({"x_train": np.zeros((0, 6, 5), np.uint8)}, "x_train has shape (0, 6, 5), so it is empty"),
        ({"x_test": np.zeros((6, 9, 9, 3), np.uint8)}, "images of x_train are (3, 6, 5), those of x_test (3, 9, 9)"),
        ({"y_train": np.arange(11) % 3}, "y_train has 11 labels for 12 images"),
        ({"y_train": np.arange(12) % 3 - 1}, "y_train has the label -1; labels start at 0"),
        ({"y_train": np.arange(12) / 2}, "y_train is float64 of shape (12,); labels are whole numbers of shape (n,)"),
        ({"y_train": np.zeros(12, int)}, "y_train has one class only; at least two are needed"),
        ({"y_test": np.array([0, 1, 2, 3, 4, 5])}, "y_test has class 5, and y_train only 0 to 2"),
        ({"y_train": np.array([None] * 12)}, "not a readable .npz file"),
        ({"y_train": np.array([12] + [0] * 11)}, "y_train has class 12; 12 images have 0 to 11"),
        (
            {"y_train": np.array([2**63] + [0] * 11, np.uint64)},
            "y_train has class 9223372036854775808; 12 images have 0 to 11",
        ),
    ],
)
def test_an_npz_that_is_refused(tmp_path, changes, message):
    path = write(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError) as caught:
        read_npz(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_files_that_are_no_npz(tmp_path):
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="an .npy file; a data set is an .npz with x_train"):
        read_npz(tmp_path / "array.npz")
    junk = tmp_path / "junk.npz"
    junk.write_bytes(b"PK but not really")
    with pytest.raises(DataError, match="not a readable .npz file"):
        read_npz(junk)
    with pytest.raises(DataError, match="does not exist"):
        prepare(f"npz:{tmp_path / 'none.npz'}", tmp_path, print)


def picture(path, color, size=(7, 5), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def test_a_folder_with_train_and_test(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for index in range(count):
            picture(tmp_path / part / "cat" / f"{index}.png", (200, 0, 0))
            picture(tmp_path / part / "dog" / f"{index}.png", (0, 200, 0))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    x_train, y_train, x_test, y_test = read_folder(tmp_path)
    assert (x_train.shape, x_test.shape) == ((6, 3, 5, 7), (4, 3, 5, 7))
    assert (y_train.tolist(), y_test.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert x_train[0, :, 0, 0].tolist() == [200, 0, 0]


def test_a_folder_of_classes_gives_a_fifth_to_the_test(tmp_path):
    for index in range(10):
        picture(tmp_path / "a" / f"{index}.png", index, mode="L")
        picture(tmp_path / "b" / f"{index}.png", 100 + index, mode="L")
    x_train, _, x_test, y_test = read_folder(tmp_path)
    assert (x_train.shape, x_test.shape, y_test.tolist()) == ((16, 1, 5, 7), (4, 1, 5, 7), [0, 0, 1, 1])


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "none")
    picture(tmp_path / "a" / "1.png", 1, mode="L")
    with pytest.raises(DataError, match="1 folders; there must be one a class, two at least"):
        read_folder(tmp_path)
    picture(tmp_path / "b" / "1.png", 1, size=(4, 4), mode="L")
    with pytest.raises(DataError, match=r"b/1.png: \(4, 4\) \(height, width\), the first image is \(5, 7\)"):
        read_folder(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b/1.png: not a readable image"):
        read_folder(tmp_path)


def test_pixels_that_would_be_cut_are_refused(tmp_path):
    picture(tmp_path / "a" / "1.png", 7, mode="L")
    picture(tmp_path / "b" / "1.png", 4000, mode="I;16")
    with pytest.raises(DataError, match=r"b/1.png: pixels are 'I;16'; images have 8 bits a channel"):
        read_folder(tmp_path)


def test_no_folder_of_images_is_left_out(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            picture(tmp_path / part / name / "1.png", 7, mode="L")
    (tmp_path / "test" / "b" / "1.png").unlink()
    with pytest.raises(DataError, match="test/b: no images; read are"):
        read_folder(tmp_path)
    (tmp_path / "test" / "b").rmdir()
    (tmp_path / "test" / "a").rename(tmp_path / "test" / "b")  # the test split may lack a class; labels stay the same
    assert read_folder(tmp_path)[3].tolist() == [1]
    picture(tmp_path / "test" / "c" / "1.png", 7, mode="L")
    with pytest.raises(DataError, match=r"test/c: no class of .*/train, which has a, b"):
        read_folder(tmp_path)


def test_one_image_a_class_leaves_none_for_the_test(tmp_path):
    for name in "ab":
        picture(tmp_path / name / "1.png", 7, mode="L")
    with pytest.raises(DataError, match="one image a class; a class needs two or more"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "unknown data set 'mnits'; did you mean 'mnist'?"),
        ("../digits", "unknown data set '../digits'; did you mean 'digits'?"),
        ("", "unknown data set ''; allowed: cifar10, cifar100, digits, fashion_mnist, mnist"),
        ("x" * 300, f"unknown data set {'x' * 300!r}; allowed"),
        ("npz:", "no data set 'npz:'; allowed: npz:PATH, folder:PATH, or one of digits, mnist"),
        ("zip:a.zip", "no data set 'zip:a.zip'; allowed: npz:PATH"),
        ("npz:a\0b", "npz:a\0b: not a path that can be read"),
        (f"npz:{'x' * 300}", f"npz:{'x' * 300}: not a path that can be read"),
    ],
)
def test_what_is_no_data_set_leaves_nothing_behind(tmp_path, name, message):
    with pytest.raises(DataError) as caught:
        prepare(name, tmp_path / "inner" / "data", print)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def mirror(tmp_path):
    """A local web server of a folder, as a data set's mirror would be; (folder, address)."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_data_set_is_downloaded_once_with_a_word(tmp_path, mirror, monkeypatch):
    from torchvision.datasets import FashionMNIST

    folder, address = mirror
    images, labels = arrays(shape=(28, 28))["x_train"], np.arange(12) % 10
    resources = []
    for name, array in (
        ("train-images", images),
        ("train-labels", labels),
        ("t10k-images", images),
        ("t10k-labels", labels),
    ):
        kind = "idx3" if "images" in name else "idx1"
        packed = gzip.compress(idx(array), mtime=0)
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(packed)
        resources.append((f"{name}-{kind}-ubyte.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    said = []
    data = load(prepare("fashion_mnist", tmp_path / "data", said.append))
    assert said == [f"downloading fashion_mnist to {tmp_path / 'data'}"]
    assert np.array_equal(data.x_train[:, 0], images)
    assert (tmp_path / "data" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:900], r"fashion_mnist in .* is damaged \(shape"),
        (lambda whole: b"", r"fashion_mnist in .* is damaged"),
        (lambda whole: idx(np.zeros((11, 28, 28))), "y_train has 12 labels for 11 images"),
    ],
    ids=["cut", "empty", "shorter"],
)
def test_a_damaged_download_is_named(tmp_path, damage, message):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((12, 28, 28))))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(12) % 10))
    assert load(prepare("fashion_mnist", tmp_path, print)).x_train.shape == (12, 1, 28, 28)
    shutil.rmtree(tmp_path / "prepared")
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(damage(images.read_bytes()))
    with pytest.raises(DataError, match=message):
        prepare("fashion_mnist", tmp_path, pytest.fail)


def test_without_a_network_the_folder_is_named(tmp_path, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nobody listens
    with pytest.raises(DataError) as caught:
        prepare("fashion_mnist", tmp_path, print)
    assert str(caught.value).startswith(f"fashion_mnist is not in {tmp_path} and could not be downloaded")
    assert f"or as {tmp_path / 'fashion_mnist'}.npz with x_train" in str(caught.value)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"])
def test_torchvision_says_in_its_message_that_a_data_set_is_missing(tmp_path, name):
    import torchvision

    with pytest.raises(RuntimeError) as caught:
        getattr(torchvision.datasets, name)(tmp_path, download=False)
    assert "not found" in str(caught.value), (
        "torchvision changed its message: sources._is_missing takes a missing data set for a damaged one"
    )


def test_the_real_data_sets(real_data):
    cifar = load(prepare("cifar10", real_data, print))
    assert (cifar.x_train.shape, cifar.x_test.shape, cifar.classes) == ((50000, 3, 32, 32), (10000, 3, 32, 32), 10)
    fashion = load(prepare("fashion_mnist", real_data, print))
    assert (fashion.x_train.shape, fashion.x_test.shape, fashion.classes) == (
        (60000, 1, 28, 28),
        (10000, 1, 28, 28),
        10,
    )
    assert np.bincount(fashion.y_train).tolist() == [6000] * 10
