"""The study's main comparison in PyTorch alone: AdamW against Adam on Fashion-MNIST, with a cosine.

    python docs/study_in_pytorch.py DIRECTORY [SEEDS]

DIRECTORY has the four files of Fashion-MNIST. The settings are those that the study's tuning chose
by accuracy. A seed draws the validation images, which stop a run, the weights and the order.
"""

import gzip
import itertools
import statistics
import sys
from pathlib import Path

import torch
from torch import nn, optim

ARMS = {
    "Adam": (20, lambda weights: optim.Adam(weights, lr=9.6e-4)),
    "AdamW": (40, lambda weights: optim.AdamW(weights, lr=2.2e-3, weight_decay=0.27)),
}
BATCH, EVERY, WIDTHS = 128, 2, [784, 256, 128, 10]


def load(directory, kind):
    """The images of "train" or "t10k", float32[n, 784], and their labels, int64[n]."""
    files = (f"{kind}-images-idx3-ubyte.gz", 16), (f"{kind}-labels-idx1-ubyte.gz", 8)
    content = [gzip.decompress((Path(directory) / name).read_bytes())[n:] for name, n in files]
    images, labels = (torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in content)
    return images.reshape(-1, 784).float(), labels.long()


def accuracy(network, images, labels):
    """Percent of the images that the network names correctly."""
    with torch.no_grad():
        return 100 * (network(images).argmax(1) == labels).float().mean().item()


def train(epochs, make_optimizer, seed, images, labels, test):
    """Trains a network and returns its test accuracy where its validation accuracy is best."""
    torch.manual_seed(seed)
    validation, left = torch.randperm(len(images)).tensor_split([len(images) // 6])
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(WIDTHS)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer, steps = make_optimizer(network.parameters()), len(left) // BATCH
    cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    best = (0.0, 0.0)
    for epoch in range(1, epochs + 1):
        for batch in left[torch.randperm(len(left))].split(BATCH)[:steps]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
            cosine.step()
        if epoch % EVERY == 0:
            scored = accuracy(network, images[validation], labels[validation])
            best = max(best, (scored, accuracy(network, *test)), key=lambda pair: pair[0])
    return best[1]


if __name__ == "__main__":
    (images, labels), (test_images, test_labels) = (load(sys.argv[1], k) for k in ("train", "t10k"))
    mean, deviation = images.mean(), images.std()
    images, test = (images - mean) / deviation, ((test_images - mean) / deviation, test_labels)
    leads = []
    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
        adam, adamw = (train(*arm, seed, images, labels, test) for arm in ARMS.values())
        leads.append(adamw - adam)
        print(f"seed {seed}: Adam {adam:.2f} %, AdamW {adamw:.2f} %", flush=True)
    print(f"AdamW leads by {statistics.mean(leads):+.2f} points (mean of {len(leads)} seeds)")
