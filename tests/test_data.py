import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from experiments.harness import data

REAL = Path(os.environ[data.VARIABLE]) if os.environ.get(data.VARIABLE) else None
needs_fashion_mnist = pytest.mark.skipif(
    REAL is None, reason=f"the real files are not at hand: set {data.VARIABLE}"
)


@pytest.fixture
def no_directory(monkeypatch):
    monkeypatch.delenv(data.VARIABLE, raising=False)


@pytest.fixture
def serve():
    """Serves a directory on the loopback interface, and counts the requests."""
    servers = []

    def start(directory):
        requests = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format, *args):
                requests.append(self.path)

        handler = functools.partial(Handler, directory=directory)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/", requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def files(tmp_path):
    inside = REAL / "fashion-mnist"
    return shutil.copytree(inside if inside.is_dir() else REAL, tmp_path / "files")


def test_digits_are_split_without_loss_or_overlap():
    loaded = data.load("digits")
    images = np.concatenate([np.asarray(split.images) for split in loaded])
    assert len(np.unique(images, axis=0)) == 1797
    for split, n in zip(loaded, (1438, 359), strict=True):
        assert split.images.shape == (n, 64) and split.labels.shape == (n,)
        assert set(np.unique(split.labels)) == set(range(10))


def test_training_images_are_standardized():
    images = np.asarray(data.load("digits").train.images)
    assert images.dtype == np.float32
    assert abs(images.mean()) < 1e-5 and abs(images.std() - 1) < 1e-5


@pytest.mark.parametrize(
    "name", ["digits", pytest.param("fashion-mnist", marks=needs_fashion_mnist)]
)
def test_a_data_set_is_as_large_as_is_said_without_its_files(name):
    loaded, size = data.load(name), data.SIZES[name]
    assert loaded.train.images.shape == (size.images, size.pixels)
    assert loaded.test.images.shape[1] == size.pixels


@needs_fashion_mnist
@pytest.mark.parametrize("way", ["argument", "variable", "files themselves"])
def test_fashion_mnist_is_found_in_a_directory(way, monkeypatch):
    inside = REAL / "fashion-mnist"
    directory = inside if way == "files themselves" and inside.is_dir() else REAL
    if way == "variable":
        monkeypatch.setenv(data.VARIABLE, str(directory))
        directory = None
    train_x, train_y, test_x, test_y = data.fashion_mnist(directory)
    assert train_x.shape == (60000, 28, 28) and test_x.shape == (10000, 28, 28)
    assert (np.bincount(train_y) == 6000).all() and (np.bincount(test_y) == 1000).all()
    # The mean pixel of the training images, as the data set is usually normalized.
    assert train_x.mean() / 255 == pytest.approx(0.2860, abs=1e-4)


@needs_fashion_mnist
def test_damaged_files_are_refused_by_name_with_a_remedy(tmp_path):
    directory = files(tmp_path)
    name = "t10k-labels-idx1-ubyte.gz"
    path = directory / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[100] ^= 1
    for content, problem in [
        (whole[:-1], "is truncated: 5147 of 5148 bytes"),
        (bytes(flipped), "is corrupt"),
        (None, "is missing"),
    ]:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(data.DataError, match=rf"{path} {problem}.*Get it from .*{name}"):
            data.fashion_mnist(directory)


@needs_fashion_mnist
def test_files_are_downloaded_once(tmp_path, serve, no_directory):
    url, requests = serve(files(tmp_path))
    for _ in range(2):
        train_x, *_ = data.fashion_mnist(cache=tmp_path / "cache", url=url)
    assert train_x.shape == (60000, 28, 28)
    assert len(requests) == 4


@needs_fashion_mnist
def test_a_damaged_file_in_the_cache_is_downloaded_again(tmp_path, serve, no_directory):
    directory = files(tmp_path)
    cache = shutil.copytree(directory, tmp_path / "cache")
    (cache / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half a fi")
    url, requests = serve(directory)
    data.fashion_mnist(cache=cache, url=url)
    assert len(requests) == 1


def test_a_wrong_download_leaves_nothing_behind(tmp_path, serve, no_directory):
    served = tmp_path / "served"
    served.mkdir()
    for name in data.FASHION_MNIST:
        (served / name).write_bytes(b"not the file")
    url, _ = serve(served)
    with pytest.raises(data.DataError, match="cannot download Fashion-MNIST.*--data-dir"):
        data.fashion_mnist(cache=tmp_path / "cache", url=url)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_network_says_what_to_do(tmp_path, serve, no_directory):
    url, _ = serve(tmp_path)  # which serves no such file
    with pytest.raises(data.DataError, match=f"put the files .* {data.VARIABLE}"):
        data.fashion_mnist(cache=tmp_path / "cache", url=url)
    with pytest.raises(data.DataError, match=f"put the files .* {data.VARIABLE}"):
        data.fashion_mnist(cache=tmp_path / "cache", url="http://127.0.0.1:9/")  # nobody listens
