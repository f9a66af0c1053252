"""Images of a trained generator as a folder that is at once a source.

A folder that is being written has ``.sampling.json``, one that is complete ``source.json``: what
made it, so that an interrupted one goes on and none is ever mixed with another's images.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from forensics.compute import in_order, torch_threads
from forensics.errors import UserError
from forensics.files import Record, write_json
from forensics.generators import Gan, HubPggan
from forensics.generators.gan import to_uint8
from forensics.images.listing import list_images
from forensics.progress import Progress

COMPLETE, BEGUN = "source.json", ".sampling.json"

AT_ONCE = 50
"""Samples made together. A constant, not a setting: sums over another number of images may round
differently, and the same seed shall give the same images."""

BLOCKS_AT_ONCE = 2
"""So many times `AT_ONCE` samples are being made or written."""


def write_samples(
    generator: Gan | HubPggan, folder: Path, images: int, made_by: Mapping[str, Any]
) -> None:
    """Fill a folder with ``000000.png`` and so on; resumes where it was interrupted.

    Image i is a function of the generator, the seed and i.

    Args:
        generator: on the device that is to compute.
        folder: made if missing.
        images: how many the folder shall hold.
        made_by: what tells these images from others; plain JSON values, ``seed`` among them,
            which decides the latents.

    Raises:
        UserError: if the folder holds anything else, or cannot be written.
    """
    _claim(folder, made_by)
    missing = [n for n in range(images) if not (folder / _name(n)).exists()]
    Record(folder / BEGUN).begin(made_by)
    wanted = set(missing)
    generator.eval()

    def write(block: int) -> int:
        draws = torch.Generator().manual_seed(_seed_of(made_by["seed"], block))
        made = generator.sample(generator.draw_latents(AT_ONCE, draws))
        rows = to_uint8(made).cpu().numpy()
        numbers = range(block * AT_ONCE, (block + 1) * AT_ONCE)
        written = [(row, n) for row, n in zip(rows, numbers, strict=True) if n in wanted]
        for row, number in written:
            _write(folder / _name(number), row)
        return len(written)

    # Cores that share a block wait for each other after every layer, and all of them for writing;
    # those with a block of their own do not.
    threads = max(1, torch.get_num_threads() // BLOCKS_AT_ONCE)
    with torch_threads(threads), Progress("sample", len(missing)) as progress:
        blocks = sorted({number // AT_ONCE for number in missing})
        for written in in_order(write, blocks, BLOCKS_AT_ONCE):
            progress.advance(written)


def finish(folder: Path, card: Mapping[str, Any]) -> None:
    """Mark a folder as complete, with its provenance."""
    write_json(folder / COMPLETE, card)
    (folder / BEGUN).unlink(missing_ok=True)


def _claim(folder: Path, card: Mapping[str, Any]) -> None:
    """Refuse a folder whose images are not of this card."""
    folder.mkdir(parents=True, exist_ok=True)
    made_by, _ = Record(folder / BEGUN).read()
    if made_by is None and (folder / COMPLETE).exists():
        try:
            made_by = json.loads((folder / COMPLETE).read_text())
        except ValueError:
            made_by = {}
    if made_by is not None:
        if any(made_by.get(key) != value for key, value in card.items()):
            raise UserError(
                f"{folder} holds images of another generator or seed: choose another folder with "
                "source=NAME, or remove it.",
                key=str(folder),
            )
        return
    if next(iter(list_images(folder)), None) is not None:
        raise UserError(
            f"{folder} holds images that were not made here: choose another folder with "
            "source=NAME."
        )


def _seed_of(seed: int, block: int) -> int:
    state = np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _write(path: Path, row: NDArray[np.uint8]) -> None:
    """Write one image; a name with an image behind it has a complete one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    # Runs are the only repetitions sought: twice as fast as looking further, and smaller, too.
    Image.fromarray(row).save(unfinished, "png", compress_level=1, compress_type=zlib.Z_RLE)
    unfinished.replace(path)


def read_samples(folder: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """The first images of a folder written by `write_samples`."""
    for number in range(count):
        with Image.open(folder / _name(number)) as image:
            yield np.asarray(image)
