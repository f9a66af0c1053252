"""Build a folder in the layout of ForenSynths: GENERATOR/{0_real,1_fake}, from folders of images.

    python experiments/benchmark_layouts/build.py DATA TREE

DATA has one folder for each source of `GENERATORS`; the training images of the README's detector,
the first ones, are not used. Files are copied, since links are never followed.
"""

import argparse
import shutil
from pathlib import Path
from typing import NamedTuple

from forensics.images.listing import list_images

COUNT = 600
"""Images of each class of a generator."""


class Images(NamedTuple):
    """A generator's source and that of its real images, of which the last ones are left out."""

    generated: str
    real: str
    left_out: int


GENERATORS = {
    "pggan": Images("starter_pggan", "utkface", 0),
    "dcgan": Images("starter_dcgan", "utkface", COUNT),
    "resynthesis": Images("resyn_celeba", "celeba", 0),
}
"""Each against real images of the source that it was made from; no image is used twice."""


def build(data: Path, tree: Path) -> None:
    """Copy the images of every generator and of its real source.

    Args:
        data: folder with one folder for each source.
        tree: the folder to write, which must not exist.
    """
    tree.mkdir(parents=True)
    for name, images in GENERATORS.items():
        for class_, source, left_out in (
            ("1_fake", images.generated, 0),
            ("0_real", images.real, images.left_out),
        ):
            files = list_images(data / source).images
            to = tree / name / class_
            to.mkdir(parents=True)
            for file in files[len(files) - left_out - COUNT : len(files) - left_out]:
                shutil.copy(data / source / file.path, to)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("tree", type=Path)
    arguments = parser.parse_args()
    build(arguments.data, arguments.tree)
