"""Generated images with real ones' energy at each frequency: what is left to detect but energy?

Each image of a source gets the radial spectrum of an image of the real source. The real source
itself may be among the sources: the control, in which each image gets another one's.
"""

import argparse
from pathlib import Path

import torch
from sources import last_images
from torch import Tensor

from forensics import files
from forensics.preprocess.degradations import match_spectrum


def last(folder: Path, images: int) -> Tensor:
    """A source's last images, ``(n, 3, H, W)`` in [-1, 1]."""
    return torch.from_numpy(last_images(folder, images)).permute(0, 3, 1, 2) / 127.5 - 1


def main() -> None:
    """Write a folder ``SOURCE_matched`` for each source."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("root", type=Path, help="folder of the sources, and of those written")
    parser.add_argument("real", help="the real source")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--images", type=int, default=200, help="of each source, the last ones")
    given = parser.parse_args()
    wanted = last(given.root / given.real, given.images).roll(1, dims=0)
    for source in given.sources:
        made = match_spectrum(last(given.root / source, given.images), wanted, 1.0)
        rows = ((made + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        for number, row in enumerate(rows):
            files.write_image(given.root / f"{source}_matched" / f"{number:06d}.png", row)


if __name__ == "__main__":
    main()
