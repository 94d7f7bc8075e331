"""The study's comparison in PyTorch, on a few made-up images."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
SCRIPT = Path(__file__).parents[1] / "docs" / "study_in_pytorch.py"


def test_the_script_learns_and_says_who_leads(tmp_path):
    random = np.random.default_rng(0)
    for kind, count in ("train", 1200), ("t10k", 300):
        labels = random.integers(10, size=count, dtype=np.uint8)
        images = random.integers(60, size=(count, 784), dtype=np.uint8)
        images[np.arange(count), 70 * labels] = 255  # a bright pixel says which class it is
        for name, header, values in ("images-idx3", 16, images), ("labels-idx1", 8, labels):
            content = gzip.compress(bytes(header) + values.tobytes())
            (tmp_path / f"{kind}-{name}-ubyte.gz").write_bytes(content)
    command, alone = [sys.executable, SCRIPT, tmp_path, "2"], {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout
    accuracies = np.array(re.findall(r"(\d+\.\d\d) %", said), float).reshape(2, 2)
    assert (accuracies > 60).all()
    (lead,) = re.findall(r"AdamW leads by (\S+) points \(mean of 2 seeds\)", said)
    assert float(lead) == pytest.approx(np.diff(accuracies).mean(), abs=0.011)
