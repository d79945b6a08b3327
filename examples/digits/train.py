"""Data-parallel training of a small network on handwritten digits, over MPI, in plain numpy.

Each rank holds a shard of the images and a replica of the network. In each step it computes the
gradient for its own images of the batch; the gradients of all ranks are added up (allreduce), and
every replica takes the same step with their mean. So the replicas stay equal, and the result does
not depend on the number of ranks, but for rounding.

    mpirun -n 4 python3 -m mpi4py train.py
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from mpi4py import MPI

import digits
from digits import Floats, Images, Labels, tell


def add_gradient(
    parts: dict[str, Floats], gradient: dict[str, Floats], pixels: Floats, labels: Labels
) -> tuple[float, int]:
    """Puts the gradient, summed over the images, into `gradient`. Returns loss and right answers.

    A sum and not a mean: ranks have unequal numbers of images, and the mean of means would give
    some images more weight than others.
    """
    first, second, out = digits.layers(parts, pixels)
    out -= out.max(axis=1, keepdims=True)  # exp() must not overflow
    log_of_sum = np.log(np.exp(out).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    loss = float((log_of_sum[:, 0] - out[rows, labels]).sum())
    right = int((out.argmax(axis=1) == labels).sum())

    at_out = np.exp(out - log_of_sum)
    at_out[rows, labels] -= 1.0
    at_second = (at_out @ parts["w3"].T) * (second > 0.0)
    at_first = (at_second @ parts["w2"].T) * (first > 0.0)
    for layer, (entering, leaving) in enumerate(
        [(pixels, at_first), (first, at_second), (second, at_out)], start=1
    ):
        gradient[f"w{layer}"][:] = entering.T @ leaving
        gradient[f"b{layer}"][:] = leaving.sum(axis=0)
    return loss, right


def train(comm: MPI.Comm, shard: Images, count: int, flat: Floats, velocity: Floats) -> None:
    """Trains in place. `count` is the number of images of all ranks."""
    gradient = np.empty_like(flat)
    parts, gradient_parts = digits.views(flat), digits.views(gradient)
    for epoch in range(digits.EPOCHS):
        totals = np.zeros(2)
        batches = digits.own_batches(epoch, count, comm.rank, comm.size)
        for step, own in enumerate(batches):
            totals += add_gradient(parts, gradient_parts, shard.pixels[own], shard.labels[own])
            comm.Allreduce(MPI.IN_PLACE, gradient, op=MPI.SUM)
            gradient /= digits.batch_len(step, count)
            velocity *= digits.MOMENTUM
            velocity += gradient
            flat -= digits.LEARNING_RATE * velocity
        comm.Allreduce(MPI.IN_PLACE, totals, op=MPI.SUM)
        if comm.rank == 0:
            loss, right = totals / count
            tell(f"epoch {epoch + 1:2}/{digits.EPOCHS}  loss {loss:.4f}  accuracy {right:6.1%}")


def check_replicas(comm: MPI.Comm, flat: Floats, velocity: Floats) -> str:
    """Fails on every rank unless all have the same, bit for bit; returns the checksum.

    The velocity holds what is left of all averaged gradients, the parameters hold their effect. A
    rank that ever got another sum, or missed a step, shows here.
    """
    mine = hashlib.sha256(flat.tobytes() + velocity.tobytes()).hexdigest()[:16]
    all_ranks = comm.allgather(mine)
    if strangers := [rank for rank, other in enumerate(all_ranks) if other != all_ranks[0]]:
        raise SystemExit(
            f"replicas diverged: ranks {strangers} differ from rank 0, checksums {all_ranks}"
        )
    return mine


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network on handwritten digits over MPI.")
    parser.add_argument(
        "--out", type=Path, default=Path("model"), help="folder for the model (default: model)"
    )
    out: Path = parser.parse_args().out

    comm = MPI.COMM_WORLD
    digits.tell_rank(comm.rank, comm.size)
    tell("reading the images")
    training, test = digits.read()
    count, test_count = len(training.labels), len(test.labels)
    shard = training.shard(comm.rank, comm.size)
    tell(f"read {len(shard.labels)} of {count} training images")

    flat, velocity = digits.initial(), np.zeros(digits.SIZE)
    comm.Barrier()  # or the first epoch would take as long as the slowest rank reads
    tell("training")
    train(comm, shard, count, flat, velocity)

    checksum = check_replicas(comm, flat, velocity)
    tell(f"replica has checksum {checksum}, as all {comm.size} have")

    own = test.shard(comm.rank, comm.size)
    answers = digits.layers(digits.views(flat), own.pixels)[-1].argmax(axis=1)
    right = comm.allreduce(int((answers == own.labels).sum()), op=MPI.SUM)
    if comm.rank == 0:
        accuracy = right / test_count
        tell(f"test accuracy {accuracy:.2%} ({right} of {test_count} images it never saw)")
        tell(f"saved {digits.save(out, flat, accuracy)}")


if __name__ == "__main__":
    main()
