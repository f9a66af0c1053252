"""Time an image in scoring and in training, for each detector, in turns on one thread.

``python experiments/detectors/time_per_image.py MODEL ... --csv TABLE``
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from forensics import config
from forensics.detectors import Detector
from forensics.preprocess import Draws
from forensics.training.settings import TrainSettings

CONF = Path(__file__).parents[2] / "conf"
BATCH = 32
SIZE = 128


def training_step(detector: Detector, images: Tensor, labels: Tensor) -> Callable[[], None] | None:
    """A step of training; None for a detector that is fitted in closed form."""
    optimizer = detector.optimizer()
    if optimizer is None:
        return None

    def step() -> None:
        detector.train()
        loss = detector.step(images, labels, Draws.at(0, 0, 0)).loss
        if loss is not None:
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            detector.after_step()

    return step


def scoring(detector: Detector, images: Tensor) -> Callable[[], None]:
    """A forward pass."""

    def score() -> None:
        detector.eval()
        with torch.inference_mode():
            detector(images)

    return score


def main() -> None:
    """Write milliseconds an image, the median over the rounds, and ratios to the paper's."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("models", nargs="+", help="the first one is what others are compared with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config.register()
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=draws).mul(255)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH).remainder(2).float()
    works: dict[tuple[str, str], Callable[[], None]] = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in given.models:
            settings = config.typed(compose("train", [f"model={name}", "name=x"]), TrainSettings)
            detector = settings.detector.build(SIZE, pretrained=False)
            detector = detector.to(memory_format=torch.channels_last)
            detector.prepare([(images, labels)])
            works[name, "score"] = scoring(detector, images)
            if step := training_step(detector, images, labels):
                works[name, "train"] = step
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    for _ in range(given.rounds + 1):
        for key, work in works.items():
            started = time.perf_counter()
            work()
            seconds[key].append(time.perf_counter() - started)
    of_image = {key: 1000 * statistics.median(times[1:]) / BATCH for key, times in seconds.items()}
    with given.csv.open("w", newline="") if given.csv else sys.stdout as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "score_ms", "score_ratio", "train_ms", "train_ratio"])
        for name in given.models:
            row: list[str] = [name]
            for what in ("score", "train"):
                time_, least = of_image.get((name, what)), of_image[given.models[0], what]
                row += ["", ""] if time_ is None else [f"{time_:.2f}", f"{time_ / least:.2f}"]
            table.writerow(row)


if __name__ == "__main__":
    main()
