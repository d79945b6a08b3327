"""The training of train.py with PyTorch's DistributedDataParallel over gloo, on CPUs.

The same images in the same batches, the same start and the same steps: so the same losses come out,
to the digits that are printed. DDP does what train.py does by hand.

Every rank is started by somebody else, who sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import digits
from digits import Floats, Images, tell


def network(flat: Floats) -> nn.Sequential:
    """The network with these parameters. `nn.Linear` keeps its matrix transposed."""
    parts = {name: torch.from_numpy(part) for name, part in digits.views(flat).items()}
    modules: list[nn.Module] = []
    for layer in (1, 2, 3):
        weight, bias = parts[f"w{layer}"], parts[f"b{layer}"]
        linear = nn.Linear(weight.shape[0], weight.shape[1], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def parameters(model: nn.Sequential) -> Floats:
    """The parameters as one vector, in the order of the file."""
    tensors = [tensor.detach().numpy().T.ravel() for tensor in model.parameters()]
    return np.concatenate(tensors)


def train(model: nn.Module, shard: Images, count: int, rank: int, world_size: int) -> None:
    """Trains in place. `count` is the number of images of all ranks."""
    replica = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(
        replica.parameters(), lr=digits.LEARNING_RATE, momentum=digits.MOMENTUM
    )
    pixels, labels = torch.from_numpy(shard.pixels), torch.from_numpy(shard.labels)
    for epoch in range(digits.EPOCHS):
        totals = torch.zeros(2, dtype=torch.float64)
        for step, own in enumerate(digits.own_batches(epoch, count, rank, world_size)):
            out = replica(pixels[own])
            loss = nn.functional.cross_entropy(out, labels[own], reduction="sum")
            optimizer.zero_grad()
            # DDP takes the mean over ranks. With this factor it is the mean over images, also when
            # ranks have unequal numbers of them.
            (loss * world_size / digits.batch_len(step, count)).backward()
            optimizer.step()
            totals[0] += loss.item()
            totals[1] += (out.argmax(dim=1) == labels[own]).sum()
        dist.all_reduce(totals)
        if rank == 0:
            mean, right = (totals / count).tolist()
            tell(f"epoch {epoch + 1:2}/{digits.EPOCHS}  loss {mean:.4f}  accuracy {right:6.1%}")


def check_replicas(flat: Floats, world_size: int) -> None:
    """Fails on every rank unless all have the same parameters, bit for bit."""
    mine = torch.from_numpy(flat)
    replicas = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(replicas, mine)
    if strangers := [rank for rank, it in enumerate(replicas) if not torch.equal(it, replicas[0])]:
        raise SystemExit(f"replicas diverged: ranks {strangers} differ from rank 0")
    tell(f"replica is the same as on all {world_size}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network on handwritten digits with DDP.")
    parser.add_argument(
        "--out", type=Path, default=Path("model"), help="folder for the model (default: model)"
    )
    out: Path = parser.parse_args().out

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    digits.tell_rank(rank, world_size)
    tell(f"meeting the others at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
    dist.init_process_group("gloo", init_method="env://")

    tell("reading the images")
    training, test = digits.read()
    count, test_count = len(training.labels), len(test.labels)
    shard = training.shard(rank, world_size)
    tell(f"read {len(shard.labels)} of {count} training images")

    model = network(digits.initial())
    dist.barrier()  # or the first epoch would take as long as the slowest rank reads
    tell("training")
    train(model, shard, count, rank, world_size)
    flat = parameters(model)
    check_replicas(flat, world_size)

    own = test.shard(rank, world_size)
    answers = digits.layers(digits.views(flat), own.pixels)[-1].argmax(axis=1)
    right = torch.tensor(int((answers == own.labels).sum()))
    dist.all_reduce(right)
    if rank == 0:
        accuracy = right.item() / test_count
        tell(f"test accuracy {accuracy:.2%} ({right.item()} of {test_count} images it never saw)")
        tell(f"saved {digits.save(out, flat, accuracy)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
