"""Time a forward pass of the study's detectors on one thread, in turns; count parameters."""

import argparse
import statistics
import sys
import time

import torch
from hydra import compose, initialize_config_dir

from forensics import config
from forensics.training.settings import TrainSettings

DETECTORS = {
    "paper": ["model=dcgan_discriminator"],
    "rp": ["model=residual_patches"],
    "s": ["model=residual_patches", "model.channels=[16,32,64,64]"],
}


def main() -> None:
    """Print a line a detector: parameters, milliseconds an image, ratio to the paper's."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("conf", help="full path of the folder conf")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config.register()
    networks = {}
    with initialize_config_dir(given.conf, version_base="1.3"):
        for name, overrides in DETECTORS.items():
            settings = config.typed(compose("train", [*overrides, "name=x"]), TrainSettings)
            network = settings.detector.build(128, pretrained=False).eval()
            networks[name] = network.to(memory_format=torch.channels_last)
    images = torch.rand(32, 3, 128, 128).mul(255).contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(given.rounds + 1):
            for name, network in networks.items():
                started = time.perf_counter()
                network(images)
                seconds[name].append(time.perf_counter() - started)
    of_image = {name: 1000 * statistics.median(s[1:]) / len(images) for name, s in seconds.items()}
    for name, milliseconds in of_image.items():
        count = sum(parameter.numel() for parameter in networks[name].parameters())
        ratio = milliseconds / of_image["paper"]
        sys.stdout.write(f"{name:<8}{count:>10}{milliseconds:>8.1f} ms{ratio:>8.2f}\n")


if __name__ == "__main__":
    main()
