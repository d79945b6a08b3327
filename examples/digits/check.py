"""Reads a saved model and lets it name the images of the test, with nothing but numpy.

Exits with 1 if the model names too few of them, so that scripts can ask.

    python3 check.py model
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import digits

ACCURACY_MIN = 0.93  # Training reaches 98 %; a model below this did not learn.


def main() -> None:
    parser = argparse.ArgumentParser(description="Check a saved model on the test images.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("model"), help="folder of the model"
    )
    path: Path = parser.parse_args().folder / digits.MODEL_FILE
    try:
        with np.load(path) as file:
            parts = {name: file[name] for name in digits.SHAPES}
    except FileNotFoundError:
        raise SystemExit(f"there is no {path}; run the training first") from None
    _, test = digits.read()
    answers = digits.layers(parts, test.pixels)[-1].argmax(axis=1)
    accuracy = float((answers == test.labels).mean())

    for image, answer in zip(test.pixels[:2].reshape(-1, 8, 8), answers, strict=False):
        print("\n".join("".join(" .:oO@"[int(p * 5)] * 2 for p in row) for row in image))
        print(f"the model says: {answer}")
    print(f"{path}: test accuracy {accuracy:.2%} on {len(answers)} images")
    if accuracy < ACCURACY_MIN:
        raise SystemExit(f"a trained model has at least {ACCURACY_MIN:.0%}")


if __name__ == "__main__":
    main()
