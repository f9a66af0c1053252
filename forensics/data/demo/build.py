"""The demo data set: toy faces that are rendered, not downloaded.

Rendered faces replace photographs, and three simple models of GAN upsampling replace GANs, so that
every command runs on any machine within a minute. **Figures measured on it say nothing about real
GANs**; it only illustrates the question: a detector learns the traces of one generator and misses
part of another's.

An image is made in three steps: `draw_scene` draws a face at 1.5 times the size; ``_camera``
simulates lens, sensor noise and antialiased reduction; and, for the generated sources,
``_regenerate`` regenerates the finished image from a quarter-size copy, as a generator's last two
blocks would. Scene and camera model are the same for all sources (each with its own faces), so that
colour, contrast and framing do not separate the classes.
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
_LAST = 999_999
"""Number in the name of a source's last image."""


def build_demo(root: Path, counts: Mapping[str, int]) -> None:
    """Render the missing folders of demo images, on all cores, and show progress.

    A folder ``<root>/<source>`` contains ``000000.png`` and so on, and ``source.json``; its last
    images do not depend on the count. It is either complete or absent, even if the process is
    killed or several processes build at once. A demo folder with fewer images than required, or
    of another render version, is replaced.

    Args:
        root: created if missing.
        counts: required number of images, >= 1, by source, a key of ``DEMO_SOURCES``.

    Raises:
        UserError: if a source is unknown, a count is not positive, or a folder of that name
            has other content; then nothing is written.
        OSError: if the root cannot be written.
    """
    require_known(counts)
    for source, count in counts.items():
        if count < 1:
            raise UserError(f"the demo source {source!r} needs at least 1 image, not {count}")
    if not any(_is_missing(root / source, count) for source, count in counts.items()):
        return  # without the lock: a complete demo may be on a read-only disk
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".demo.lock"):
        # Checked again: another process may have built while this one waited for the lock.
        missing = {s: n for s, n in counts.items() if _is_missing(root / s, n)}
        if missing:
            with Progress("render the toy faces", sum(missing.values())) as progress:
                for source, count in missing.items():
                    _build_source(root, source, count, progress)


def _is_missing(folder: Path, count: int) -> bool:
    """Whether the folder must be built; UserError if it exists and is not a demo folder."""
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
    # Counted from the end: the last images, the test images, do not depend on the count, and
    # neither do their names, by which reports recognise them.
    before_last = count - 1 - number
    name = f"{_LAST - before_last}.png"
    Image.fromarray(render(source, before_last)).save(folder / name, compress_level=1)


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
