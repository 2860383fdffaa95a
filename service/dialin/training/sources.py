"""Sources of images: scikit-learn, torchvision, an .npz file, a folder of images. All return the same arrays.

A new named data set is its name in `NAMES`, a branch in `read_named`, and a test in `tests/training/test_sources.py`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialin.errors import DataError, did_you_mean
from dialin.training.splits import stratified_split

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""x_train (n, channels, height, width) uint8, y_train (n,) int64, x_test, y_test."""

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TEST_FRACTION = 0.2
"""Fraction of a data set without a test split that becomes one."""
MOST_CHANNELS = 4
"""Channels of an image, at most."""
_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
# Folders that torchvision makes below the data folder, where they have other names than the data set's class.
_KEPT_AS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
NAMES = ("digits", *_TORCHVISION)
_PARTS = ("x_train", "y_train", "x_test", "y_test")


def packed_file(name: str, data_dir: Path) -> Path | None:
    """Return `data_dir/NAME.npz` if a person has put it there, else None. Raises DataError for an unknown name."""
    if name not in NAMES:
        raise DataError(f"unknown data set {name!r}; {did_you_mean(name, NAMES)}")
    packed = data_dir / f"{name}.npz"
    return packed if name in _TORCHVISION and packed.exists() else None


def find_data(dataset: str, data_dir: Path) -> str:
    """Return in words where a data set is. Nothing is read.

    `dataset` is a name, `npz:PATH` or `folder:PATH`. Raises DataError for a missing path and an unknown name.
    """
    kind, _, path = dataset.partition(":")
    if path:
        found = Path(path).expanduser()
        if not (found.is_file() if kind == "npz" else found.is_dir()):
            raise DataError(f"{found}: no such {'file' if kind == 'npz' else 'folder'}")
        return str(found)
    packed = packed_file(dataset, data_dir)
    kept = [packed, data_dir / _KEPT_AS.get(dataset, _TORCHVISION[dataset])]
    there = next((place for place in kept if place is not None and place.exists()), None)
    return str(there) if there is not None else f"not in {data_dir} yet; the first run downloads it"


def read_named(name: str, data_dir: Path, progress: Callable[[str], None]) -> Arrays:
    """Return a data set by its name.

    digits comes from scikit-learn, the others from `data_dir/NAME.npz`, or else from torchvision, which downloads what
    `data_dir` does not have.
    """
    packed = packed_file(name, data_dir)
    if name == "digits":
        return _read_digits()
    return read_npz(packed) if packed is not None else _read_torchvision(name, data_dir, progress)


def read_npz(path: Path) -> Arrays:
    """Return the arrays x_train, y_train, x_test and y_test of an .npz file.

    Images are (n, h, w) or (n, h, w, channels) uint8, labels whole numbers from 0. Raises DataError, which names the
    file, the array, what was found and what is allowed.
    """
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: an .npy file; a data set is an .npz with {', '.join(_PARTS)}")
            missing = [name for name in _PARTS if name not in file]
            if missing:
                raise DataError(f"{path}: no array {missing[0]!r}; there are {', '.join(file.files) or 'none'}")
            arrays = {name: file[name] for name in _PARTS}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from None
    return _checked(str(path), arrays)


def read_folder(path: Path) -> Arrays:
    """Return the images of a folder that has one folder for each class.

    The layout is PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*, of which a fifth becomes the test split.
    All images must have one size; they are read as colour unless all are grey. Raises DataError.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    train, test = path / "train", path / "test"
    has_both = train.is_dir() and test.is_dir()
    x_train, y_train, x_test, y_test = _read_both(train, test) if has_both else _read_and_split(path)
    if x_train.shape[1:] != x_test.shape[1:]:
        channels = max(x_train.shape[1], x_test.shape[1])
        if x_train.shape[2:] != x_test.shape[2:]:
            raise DataError(
                f"{path}: train images are {x_train.shape[2:]}, test images {x_test.shape[2:]} (height, width)"
            )
        x_train, x_test = (np.repeat(x, channels // x.shape[1], axis=1) for x in (x_train, x_test))
    return x_train, y_train, x_test, y_test


def _read_both(train: Path, test: Path) -> Arrays:
    classes = _class_names(train)
    unknown = sorted(set(_folder_names(test)) - set(classes))
    if unknown:
        raise DataError(f"{test / unknown[0]}: no class of {train}, which has {', '.join(classes)}")
    in_test = [name for name in classes if (test / name).is_dir()]
    return *_read_classes(train, classes), *_read_classes(test, in_test, classes)


def _read_and_split(path: Path) -> Arrays:
    x, y = _read_classes(path, _class_names(path))
    rest, held = stratified_split(y, TEST_FRACTION, seed=0)
    if not len(held):
        raise DataError(f"{path}: one image a class; a class needs two or more, one of them for the test split")
    return x[rest], y[rest], x[held], y[held]


def _read_digits() -> Arrays:
    # Importing scikit-learn takes a second; it is imported only here, once for each data folder.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)  # (n, 64) from 0 to 16, and (n,)
    grey = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    rest, held = stratified_split(labels, TEST_FRACTION, seed=0)
    return grey[rest], labels[rest], grey[held], labels[held]


def _read_torchvision(name: str, data_dir: Path, progress: Callable[[str], None]) -> Arrays:
    from torchvision import datasets

    dataset = getattr(datasets, _TORCHVISION[name])
    try:
        train, test = (dataset(data_dir, train=part, download=False) for part in (True, False))
    except (OSError, RuntimeError, ValueError, AssertionError, IndexError) as error:
        # torchvision checks that its files exist, and for some data sets not that they are complete.
        if not _is_missing(error):
            raise DataError(
                f"{name} in {data_dir} is damaged ({str(error).strip()}). Remove it there, and it is downloaded anew"
            ) from None
        train, test = _download(dataset, name, data_dir, progress)
    parts = (train.data, train.targets, test.data, test.targets)
    return _checked(f"{name} in {data_dir}", {key: np.asarray(part) for key, part in zip(_PARTS, parts, strict=True)})


def _is_missing(error: Exception) -> bool:
    """Whether torchvision says that a data set is not there. It does so in the message of a RuntimeError only.

    `tests/training/test_sources.py` has a canary test for it.
    """
    return "not found" in str(error)


def _download(dataset: Any, name: str, data_dir: Path, progress: Callable[[str], None]) -> tuple[Any, Any]:
    progress(f"downloading {name} to {data_dir}")
    try:
        return dataset(data_dir, train=True, download=True), dataset(data_dir, train=False, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name} is not in {data_dir} and could not be downloaded ({str(error).strip()}). Put it there as "
            f"torchvision.datasets.{_TORCHVISION[name]} keeps it, or as {data_dir / name}.npz with x_train, "
            "y_train, x_test, y_test, or name another folder with --data-dir"
        ) from None


def _checked(where: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The arrays in the form of a data set. Raises DataError, which names `where`, for arrays that cannot be one."""
    x_train, x_test = (_images(where, name, arrays[name]) for name in ("x_train", "x_test"))
    y_train = _labels(where, "y_train", arrays["y_train"], len(x_train))
    y_test = _labels(where, "y_test", arrays["y_test"], len(x_test))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{where}: images of x_train are {x_train.shape[1:]}, those of x_test {x_test.shape[1:]}")
    if len(np.unique(y_train)) < 2:
        raise DataError(f"{where}: y_train has one class only; at least two are needed")
    if y_train.max() >= len(y_train):
        raise DataError(
            f"{where}: y_train has class {y_train.max()}; {len(y_train)} images have 0 to {len(y_train) - 1}"
        )
    if y_test.max() > y_train.max():
        raise DataError(f"{where}: y_test has class {y_test.max()}, and y_train only 0 to {y_train.max()}")
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)


def _images(where: str, name: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise DataError(f"{where}: {name} is {images.dtype}; images are uint8, 0 to 255")
    if images.ndim not in (3, 4) or (images.ndim == 4 and not 1 <= images.shape[3] <= MOST_CHANNELS):
        raise DataError(
            f"{where}: {name} has shape {images.shape}; allowed: (n, height, width) or (n, height, width, channels) "
            f"with 1 to {MOST_CHANNELS} channels"
        )
    if 0 in images.shape:
        raise DataError(f"{where}: {name} has shape {images.shape}, so it is empty")
    planes: NDArray[np.uint8] = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return planes


def _labels(where: str, name: str, labels: NDArray[Any], images: int) -> NDArray[Any]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: {name} is {labels.dtype} of shape {labels.shape}; labels are whole numbers of shape (n,)"
        )
    if len(labels) != images:
        raise DataError(f"{where}: {name} has {len(labels)} labels for {images} images")
    if labels.min() < 0:
        raise DataError(f"{where}: {name} has the label {labels.min()}; labels start at 0")
    return labels


def _class_names(path: Path) -> list[str]:
    names = _folder_names(path)
    if len(names) < 2:
        raise DataError(f"{path}: {len(names)} folders; there must be one a class, two at least")
    return names


def _folder_names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_classes(
    path: Path, folders: list[str], classes: list[str] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of these folders below `path`. A label is the folder's position in `classes`, by default `folders`."""
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    grey = True
    for name in folders:
        before = len(images)
        for file in sorted((path / name).glob("*")):
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            image, is_grey = _read_image(file)
            images.append(image)
            grey = grey and is_grey
            if image.shape != images[0].shape:
                found, first = image.shape[:2], images[0].shape[:2]
                raise DataError(f"{file}: {found} (height, width), the first image is {first}; all must have one size")
        if len(images) == before:
            raise DataError(f"{path / name}: no images; read are {', '.join(sorted(IMAGE_SUFFIXES))}")
        labels += [(classes or folders).index(name)] * (len(images) - before)
    if not images:
        raise DataError(f"{path}: no folder of a class")
    planes = np.stack(images).transpose(0, 3, 1, 2)
    return planes[:, :1] if grey else planes, np.array(labels, dtype=np.int64)


def _read_image(file: Path) -> tuple[NDArray[np.uint8], bool]:
    """An image (height, width, 3), and whether it is grey."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            # Pillow would clip these at 255.
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file}: pixels are {image.mode!r}; images have 8 bits a channel")
            return np.asarray(image.convert("RGB")), image.mode in ("L", "1")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from None
