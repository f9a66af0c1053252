"""Sampling of a trained generator into a folder that is a source.

An unfinished folder has ``.sampling.json``, a complete one ``source.json``: the images' provenance,
so that interrupted sampling resumes and images of different generators are never mixed.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forensics.compute import in_order, torch_threads
from forensics.errors import UserError
from forensics.files import Record, remove_unfinished, write_json
from forensics.generators import Gan, HubPggan, Resynthesis
from forensics.generators.gan import to_uint8
from forensics.images.listing import PROVENANCE, list_images
from forensics.progress import Progress
from forensics.runs import locked

BEGUN = ".sampling.json"

AT_ONCE = 50
"""Images per block. A constant, not a setting: sums over another number of images may round
differently, and the same seed must give the same images."""

BLOCKS_AT_ONCE = 2
"""Number of blocks that are made or written at the same time."""


Make = Callable[[range], Tensor]
"""Maps the numbers of images to the images, ``(n, 3, S, S)`` float in [-1, 1]."""


def from_latents(generator: Gan | HubPggan, seed: int) -> Make:
    """Images of a generator from the latents of a seed; for `write_samples`."""
    generator.eval()

    def make(numbers: range) -> Tensor:
        draws = torch.Generator().manual_seed(_seed_of(seed, numbers.start // AT_ONCE))
        return generator.sample(generator.draw_latents(AT_ONCE, draws))[: len(numbers)]

    return make


def from_originals(generator: Resynthesis, rows: NDArray[np.uint8], seed: int) -> Make:
    """Images that autoencoders make from real images, ``per_image`` each; for `write_samples`."""
    generator.eval()

    def make(numbers: range) -> Tensor:
        return generator.remake(
            rows[[number // generator.per_image for number in numbers]], numbers, seed
        )

    return make


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Context in which a source's folder belongs to this process; see `write_samples`.

    Raises:
        UserError: if another process samples or prepares it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder, folder.with_name(f".{folder.name}.lock")):
        remove_unfinished(folder)
        yield


def write_samples(make: Make, folder: Path, images: int, made_by: Mapping[str, Any]) -> None:
    """Fill a folder with ``000000.png`` and so on; resumes an interrupted call.

    Args:
        make: makes the images; image i must be a function of i.
        folder: created if missing.
        images: total number of images in the folder.
        made_by: identity of these images; plain JSON values.

    Raises:
        UserError: if the folder has other images, or cannot be written.
    """
    _refuse_others(folder, made_by)
    missing = [n for n in range(images) if not (folder / name_of(n)).exists()]
    Record(folder / BEGUN).begin(made_by)
    wanted = set(missing)

    def write(block: int) -> int:
        numbers = range(block * AT_ONCE, min((block + 1) * AT_ONCE, images))
        rows = to_uint8(make(numbers)).cpu().numpy()
        written = [(row, n) for row, n in zip(rows, numbers, strict=True) if n in wanted]
        for row, number in written:
            _write(folder / name_of(number), row)
        return len(written)

    # Cores that share a block would wait for each other after every layer, and for writing.
    threads = max(1, torch.get_num_threads() // BLOCKS_AT_ONCE)
    with torch_threads(threads), Progress("sample", len(missing)) as progress:
        blocks = sorted({number // AT_ONCE for number in missing})
        for written in in_order(write, blocks, BLOCKS_AT_ONCE):
            progress.advance(written)


def finish(folder: Path, card: Mapping[str, Any]) -> None:
    """Mark a folder as complete, with its provenance."""
    write_json(folder / PROVENANCE, card)
    (folder / BEGUN).unlink(missing_ok=True)


def _refuse_others(folder: Path, card: Mapping[str, Any]) -> None:
    """Refuse a folder with images of another provenance."""
    folder.mkdir(parents=True, exist_ok=True)
    made_by, _ = Record(folder / BEGUN).read()
    if made_by is None and (folder / PROVENANCE).exists():
        try:
            made_by = json.loads((folder / PROVENANCE).read_text())
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
    if list_images(folder).images:
        raise UserError(
            f"{folder} holds images that were not made here: choose another folder with "
            "source=NAME."
        )


def _seed_of(seed: int, block: int) -> int:
    state = np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def name_of(number: int) -> str:
    """File name of an image."""
    return f"{number:06d}.png"


def _write(path: Path, row: NDArray[np.uint8]) -> None:
    """Write one image atomically."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(stored_png(row))
    unfinished.replace(path)


def stored_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG without compression, whose writing takes a twentieth of the time, and reading a sixth.

    Compression would make it a quarter to a half smaller. Pillow tries all filters for each line,
    even if nothing is to be compressed.

    Args:
        image: ``(H, W, 3)`` uint8.

    Source: the W3C's PNG specification.
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, _ = image.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter, 0 for none
    lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 0)),
            chunk(b"IEND", b""),
        ]
    )


def read_samples(folder: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """The first images of a folder written by `write_samples`."""
    for number in range(count):
        with Image.open(folder / name_of(number)) as image:
            yield np.asarray(image)
