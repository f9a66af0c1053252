"""Parameters and multiply-adds of every detector, for the table of docs/detectors.md.

``python experiments/detectors/detector_cost.py [SIDE]`` prints a row for each option of ``model``;
SIDE is the images' height and width in pixels, 128 if left out.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from forensics import config
from forensics.detectors import DETECTORS
from forensics.training.settings import TrainSettings

CONF = Path(__file__).parents[2] / "conf"


class Cost(NamedTuple):
    """Cost of a detector.

    Attributes:
        parameters: numbers that training changes, or that come from a backbone's file.
        multiply_adds: of convolutions and matrix products, for one image.
    """

    parameters: int
    multiply_adds: int


def cost(name: str, side: int) -> Cost:
    """Cost of a detector with the values of ``conf/model``.

    Args:
        name: one of `DETECTORS`.
        side: height and width of the images in pixels.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", ["name=cost", "dataset.root=/", f"model={name}"])
    settings = config.typed(composed, TrainSettings)
    counter = FlopCounterMode(display=False)
    # Shapes alone: the largest detectors have gigabytes of weights.
    with torch.device("meta"):
        detector = settings.detector.build(side, pretrained=False).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), counter:
        detector.to_empty(device="cpu")(torch.zeros(1, 3, side, side))
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)


if __name__ == "__main__":
    config.register()
    size = int(sys.argv[1]) if sys.argv[1:] else 128
    for option in DETECTORS:
        if option == "ensemble":  # costs what its members do
            continue
        parameters, multiply_adds = cost(option, size)
        print(f"{option} | {parameters:,} | {multiply_adds / 1e6:,.0f} M")
