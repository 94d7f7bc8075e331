"""The data sets: scikit-learn's handwritten digits, and Fashion-MNIST."""

import gzip
import hashlib
import math
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pooch
import requests

VARIABLE = "ADAMW_JAX_DATA"

# The files of Zalando Research's data set (MIT licence), as published.
FASHION_MNIST_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": (
        26421880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train-labels-idx1-ubyte.gz": (
        29515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "t10k-images-idx3-ubyte.gz": (
        4422102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        5148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}


class DataError(RuntimeError):
    """Data is missing or damaged; the message says which file, and what to do."""


class Split(NamedTuple):
    """Images and their labels.

    Attributes:
      images: float32[n, pixels], standardized by the training images' mean and deviation.
      labels: int32[n], classes 0 to 9.
    """

    images: jax.Array
    labels: jax.Array


class Data(NamedTuple):
    """A data set. Each run draws its own validation images from the training images."""

    train: Split
    test: Split


class Size(NamedTuple):
    """How large a data set is.

    Attributes:
      images: the number of training images.
      pixels: the number of pixels of an image.
    """

    images: int
    pixels: int


# What can be known of each data set without its files.
SIZES = {"digits": Size(1438, 64), "fashion-mnist": Size(60000, 784)}


def load(name: str, directory: Path | None = None) -> Data:
    """Loads a data set onto the device.

    Args:
      name: "digits" (1,797 images 8×8, a fifth of them for the test) or "fashion-mnist"
        (60,000 + 10,000 images 28×28).
      directory: the directory of the Fashion-MNIST files; see `fashion_mnist`.

    Raises:
      DataError: a file is missing or damaged and cannot be downloaded.
    """
    if name == "digits":
        train_x, train_y, test_x, test_y = _digits()
    else:
        train_x, train_y, test_x, test_y = fashion_mnist(directory)
    mean, deviation = train_x.mean(dtype=np.float64), train_x.std(dtype=np.float64)

    def split(images, labels):
        flat = images.reshape(len(images), math.prod(images.shape[1:]))
        standardized = ((flat - mean) / deviation).astype(np.float32)
        return Split(jnp.asarray(standardized), jnp.asarray(labels, jnp.int32))

    return Data(split(train_x, train_y), split(test_x, test_y))


def _digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return images[train], labels[train], images[test], labels[test]


def fashion_mnist(
    directory: Path | None = None, cache: Path | None = None, url: str = FASHION_MNIST_URL
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads Fashion-MNIST: training images and labels, test images and labels.

    Args:
      directory: contains the four files, directly or in a folder `fashion-mnist`; by default the
        one that the environment variable ADAMW_JAX_DATA names.
      cache: the directory that the files are downloaded to if there is no `directory`; by default
        in the user's cache. A file gets its name there only once its checksum is right.
      url: the address of the files, without their names.

    Returns:
      uint8 arrays [60000, 28, 28], [60000], [10000, 28, 28] and [10000].

    Raises:
      DataError: a file is missing or damaged and cannot be downloaded.
    """
    given = directory or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if given:
        paths = [_checked(given, name) for name in FASHION_MNIST]
    else:
        paths = _downloaded(cache or Path(pooch.os_cache("adamw_jax")), url)
    train_x, train_y, test_x, test_y = map(_read_idx, paths)
    return train_x, train_y, test_x, test_y


def _checked(directory: Path, name: str) -> Path:
    inside = directory / "fashion-mnist"
    path = (inside if inside.is_dir() else directory) / name
    mend = (
        f"Get it from {FASHION_MNIST_URL}{name}, or give no data directory "
        f"(--data-dir, {VARIABLE}), so that it is downloaded"
    )
    size, digest = FASHION_MNIST[name]
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing. {mend}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {mend}") from error
    if len(content) < size:
        raise DataError(f"{path} is truncated: {len(content)} of {size} bytes. {mend}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{path} is corrupt: its SHA-256 is not {digest}. {mend}")
    return path


def _downloaded(cache: Path, url: str) -> list[Path]:
    registry = {name: f"sha256:{digest}" for name, (_, digest) in FASHION_MNIST.items()}
    downloader = pooch.create(cache, url, registry=registry, retry_if_failed=1)
    try:
        return [Path(downloader.fetch(name)) for name in FASHION_MNIST]
    except (OSError, ValueError, requests.RequestException) as error:
        # pooch raises ValueError for a wrong checksum.
        raise DataError(
            f"cannot download Fashion-MNIST from {url} into {cache}: {error}. Try again, or put "
            f"the files {', '.join(FASHION_MNIST)} into a directory and give it as "
            f"--data-dir or {VARIABLE}"
        ) from error


def _read_idx(path: Path) -> np.ndarray:
    # IDX: a magic number whose last byte is the number of dimensions, then the dimensions as
    # big-endian integers, then the values, which here are unsigned bytes.
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
