"""Data sets of every kind, good and bad, and one download over real HTTP."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
from PIL import Image

from service.errors import DataError
from service.training.datasets import load, prepare
from service.training.sources import read_folder, read_npz


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
    monkeypatch.setattr("service.training.datasets._read", lambda *_: pytest.fail("read again"))
    assert prepare("digits", tmp_path, print) == folder
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_an_npz_is_laid_out_in_planes(tmp_path):
    path = write(tmp_path / "a.npz")
    data = load(prepare(f"npz:{path}", tmp_path, print))
    assert data.x_train.shape == (12, 3, 6, 5)
    assert np.array_equal(data.x_train[4, 2], arrays()["x_train"][4, :, :, 2])
    assert data.classes == 3


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
    ],
)
def test_an_npz_that_is_refused(tmp_path, changes, message):
    path = write(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError) as caught:
        read_npz(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_files_that_are_no_npz(tmp_path):
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


def test_an_unknown_name(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'mnits'; did you mean 'mnist'"):
        prepare("mnits", tmp_path, print)


def idx_archive(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


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
        packed = idx_archive(array)
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(packed)
        resources.append((f"{name}-{kind}-ubyte.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    said = []
    data = load(prepare("fashion_mnist", tmp_path / "data", said.append))
    assert said == [f"downloading fashion_mnist to {tmp_path / 'data'}"]
    assert np.array_equal(data.x_train[:, 0], images)
    assert (tmp_path / "data" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").exists()


def test_without_a_network_the_folder_is_named(tmp_path, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nobody listens
    with pytest.raises(DataError) as caught:
        prepare("fashion_mnist", tmp_path, print)
    assert str(caught.value).startswith(f"fashion_mnist is not in {tmp_path} and could not be downloaded")
    assert f"or as {tmp_path / 'fashion_mnist'}.npz with x_train" in str(caught.value)


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
