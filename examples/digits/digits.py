"""What the trainers and the check share: images, order of training, the model and its file.

Everything here is a function of fixed seeds, so that each rank can work it out by itself, and comes
to the same as its peers without asking them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Double precision costs nothing at this size. Sums differ with the number of ranks in their last
# digit only, too little to change the answer for an image.
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

SEED = 7
EPOCHS = 30
BATCH = 64  # Images per step, of all ranks together.
LEARNING_RATE = 0.05
MOMENTUM = 0.9

# Two hidden layers between 8x8 pixels and 10 digits. The names are those in the file.
SHAPES: dict[str, tuple[int, ...]] = {
    "w1": (64, 128),
    "b1": (128,),
    "w2": (128, 64),
    "b2": (64,),
    "w3": (64, 10),
    "b3": (10,),
}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())
MODEL_FILE = "digits.npz"


START = time.monotonic()


class Images(NamedTuple):
    """Images, one a row of 64 pixels from 0 to 1, and the digits that they show."""

    pixels: Floats
    labels: Labels

    def shard(self, rank: int, world_size: int) -> Images:
        """Every `world_size`-th image from `rank` on. Image i lies at i // world_size in it."""
        own = slice(rank, None, world_size)
        return Images(self.pixels[own].copy(), self.labels[own].copy())


def tell(text: str) -> None:
    """Says what happens, with the time since the start."""
    print(f"{time.monotonic() - START:5.1f} s  {text}", flush=True)


def tell_rank(rank: int, world_size: int) -> None:
    """Says who runs where: the process can be found by its id on that node."""
    node = os.environ.get("YARD_NODE_NAME", os.uname().nodename)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    tell(f"rank {rank} of {world_size} on {node}, pid {os.getpid()}, threads: {threads}")


def read() -> tuple[Images, Images]:
    """Images for training and for the test, always the same ones."""
    # Most of the start goes into this import, so it waits until a rank has said who it is.
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    pixels, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels / 16.0, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return Images(train_x, train_y), Images(test_x, test_y)


def own_batches(epoch: int, count: int, rank: int, world_size: int) -> list[NDArray[np.int64]]:
    """Where in its shard a rank finds its images of each batch of an epoch.

    All ranks draw one order of all images. So a batch holds the same images however many ranks
    there are, and each rank takes those that it has: about an equal share, not exactly.
    """
    order = np.random.default_rng([SEED, epoch]).permutation(count)
    batches = [order[first : first + BATCH] for first in range(0, count, BATCH)]
    return [batch[batch % world_size == rank] // world_size for batch in batches]


def batch_len(step: int, count: int) -> int:
    """How many images of all ranks are in a batch. The last one of an epoch may be short."""
    return min(BATCH, count - step * BATCH)


def views(flat: Floats) -> dict[str, Floats]:
    """The matrices within one long vector: peers exchange it, and we compute with these."""
    parts: dict[str, Floats] = {}
    first = 0
    for name, shape in SHAPES.items():
        last = first + int(np.prod(shape))
        parts[name] = flat[first:last].reshape(shape)
        first = last
    return parts


def initial() -> Floats:
    """The parameters that training starts from (He et al. 2015; biases are 0)."""
    rng = np.random.default_rng(SEED)
    flat = np.zeros(SIZE)
    for part in views(flat).values():
        if part.ndim == 2:
            part[:] = rng.standard_normal(part.shape) * np.sqrt(2.0 / part.shape[0])
    return flat


def layers(parts: dict[str, Floats], pixels: Floats) -> tuple[Floats, Floats, Floats]:
    """What each layer makes of the images; the last has a score for each digit."""
    first = np.maximum(pixels @ parts["w1"] + parts["b1"], 0.0)
    second = np.maximum(first @ parts["w2"] + parts["b2"], 0.0)
    return first, second, second @ parts["w3"] + parts["b3"]


def save(folder: Path, flat: Floats, test_accuracy: float) -> Path:
    """Writes the model so that whoever finds the file finds all of it, even after a power cut."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    temporary = folder / f".{MODEL_FILE}.{os.getpid()}"
    with temporary.open("wb") as file:
        np.savez(file, test_accuracy=test_accuracy, **views(flat))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    # The new name is durable only when its folder is.
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path
