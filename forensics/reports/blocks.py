"""Blocks of a report's page: tables, figures and images, of which sections consist."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from forensics.files import atomic
from forensics.reports import form
from forensics.reports.study_tables import Table

Block = dict[str, Any]
Section = dict[str, Any]

SHARPNESS = 2
"""Pixels of a figure for each pixel of the page."""


def section(title: str, blocks: list[Block], text: str = "") -> list[Section]:
    """A section of a title, blocks and a text below them; no section without blocks."""
    return [{"title": title, "blocks": blocks, "text": text}] if blocks else []


def table_block(table: Table, title: str = "", *, folded: bool = False) -> Block:
    """A table as a block, which a reader has to unfold if it is ``folded``."""
    header, lines = table
    return {"title": title, "header": header, "lines": lines, "folded": folded}


def figure_block(figure: Figure, to: Path, name: str, title: str = "") -> Block:
    """Write a figure as png and svg into the folder ``to``; returns it as a block."""
    name = name.replace(" ", "_")
    for suffix in ("png", "svg"):
        with atomic(to / f"{name}.{suffix}") as file:
            figure.savefig(file, format=suffix, dpi=96 * SHARPNESS)
        figure.set_layout_engine("none")  # laid out once for both
    image = _data_uri((to / f"{name}.png").read_bytes(), "png")
    width = round(96 * figure.get_figwidth())
    return {"title": title, "image": image, "alt": name.replace("_", " "), "width": width}


def sheet_block(path: Path, captions: Sequence[str], title: str) -> Block:
    """The images of a sheet, side by side in it, each with its caption, as a folded block.

    Raises:
        UserError: if it is no sheet of images.
    """
    tiles = []
    try:
        with Image.open(path, formats=["PNG"]) as sheet:
            size = sheet.height
            for left, caption in zip(range(0, sheet.width, size), captions, strict=False):
                tile = io.BytesIO()
                # There may be hundreds of sheets; the run folders have them losslessly.
                sheet.crop((left, 0, left + size, size)).save(tile, "webp", quality=80)
                tiles.append({"image": _data_uri(tile.getvalue(), "webp"), "caption": caption})
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise form.refused(path, f"is no sheet of images ({error})") from error
    return {"title": title, "tiles": tiles, "folded": True}


def _data_uri(content: bytes, format_: str) -> str:
    return f"data:image/{format_};base64,{base64.b64encode(content).decode()}"
