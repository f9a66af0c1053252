"""The demo data set: a toy that is drawn, not downloaded.

Faces drawn by the code below stand in for photographs, and three simple imitations of how GAN
generators upsample stand in for GANs, so that every command runs on any machine within a minute.
**Nothing measured on it says anything about real GANs**; it only shows the shape of the question:
a detector learns one generator's traces and misses part of another's.

One image is made in three steps: ``_scene`` draws a face at 1.5 times the size; ``_camera`` gives
it the lens, the sensor noise and the antialiased reduction that photographs have; and, for the
generated sources, ``_regenerate`` makes the finished image again from a quarter-size one, the
way a generator's last two blocks would. Drawing and camera are the same for all sources (each has
other faces), so that colour, contrast and framing do not tell the classes apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from filelock import FileLock
from PIL import Image

from forensics.compute import in_order
from forensics.data.demo.artefacts import RENDER_VERSION, render, require_known
from forensics.errors import UserError
from forensics.files import staged, write_json
from forensics.images.listing import PROVENANCE
from forensics.progress import Progress

_AT_ONCE = 16


def build_demo(root: Path, counts: Mapping[str, int]) -> None:
    """Make the folders of demo images that are not there yet, on all cores, and show progress.

    A folder ``<root>/<source>`` holds ``000000.png`` and so on, and ``source.json``; its last
    images are the same however many there are. It appears complete or not at all, whenever the
    process ends and however many build at once. A folder of ours that has fewer images than
    asked, or another render version, is replaced.

    Args:
        root: made if missing.
        counts: source, a key of ``DEMO_SOURCES``, to the number of images it needs, >= 1.

    Raises:
        UserError: if a source is unknown, a count is not positive, or a folder of that name
            holds something else; nothing is written then.
        OSError: if the root cannot be written.
    """
    require_known(counts)
    for source, count in counts.items():
        if count < 1:
            raise UserError(f"the demo source {source!r} needs at least 1 image, not {count}")
    if not any(_is_missing(root / source, count) for source, count in counts.items()):
        return  # without the lock: a finished demo may lie on a read-only disk
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".demo.lock"):
        # Asked again: another process may have built while this one waited for the lock.
        missing = {s: n for s, n in counts.items() if _is_missing(root / s, n)}
        if missing:
            with Progress("render the toy faces", sum(missing.values())) as progress:
                for source, count in missing.items():
                    _build_source(root, source, count, progress)


def _is_missing(folder: Path, count: int) -> bool:
    """Whether the folder must be built; a UserError if it is there and not ours to replace."""
    if not folder.exists():
        return True
    try:
        manifest = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        ours = manifest["toy"] is True
        stale: bool = manifest["render_version"] != RENDER_VERSION or manifest["count"] < count
    except (OSError, ValueError, TypeError, KeyError):
        ours = False
    if not ours:
        raise UserError(
            f"{folder} is in the way of the demo data set and was not made by it; "
            "move it elsewhere or choose another folder for the demo"
        )
    return stale


def _write_image(folder: Path, source: str, count: int, number: int) -> None:
    # Counted from the end: the last images, which test, are the same however many train.
    pixels = render(source, count - 1 - number)
    Image.fromarray(pixels).save(folder / f"{number:06d}.png", compress_level=1)


def _build_source(root: Path, source: str, count: int, progress: Progress) -> None:
    with staged(root / source) as folder:
        write = partial(_write_image, folder, source, count)
        for _ in in_order(write, range(count), _AT_ONCE):
            progress.advance()
        manifest = {
            "toy": True,
            "generator": None if source == "demo_real" else source.removeprefix("demo_"),
            "render_version": RENDER_VERSION,
            "count": count,
        }
        write_json(folder / PROVENANCE, manifest)
