"""One self-contained page of scored images: thumbnails by verdict."""

import base64
import heapq
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from PIL import Image

from forensics.compute import in_order
from forensics.files import atomic
from forensics.images.containers import RejectedImage
from forensics.images.decode import decode
from forensics.images.geometry import ResizeFilter, to_square
from forensics.images.listing import as_text
from forensics.progress import Progress
from forensics.scoring.text import Limits, beside, common_folder, probability_text

SHOWN = 500
"""Maximum number of images per verdict: a page of 1500 images, about 20 MB, opens at once."""

THUMBNAIL_SIZE = 256
_AT_ONCE = 64
_GROUPS = {"generated": "generated", "unsure": "unsure", "real": "real", "unreadable": None}


def write_gallery(
    page: Path,
    rows: Callable[[], Iterable[Mapping[str, Any]]],
    counts: Mapping[str, int],
    paths: Sequence[str],
    facts: Mapping[str, Any],
    limits: Limits | None,
    explained: Callable[[int], str | None],
) -> None:
    """Write the page, atomically.

    Args:
        page: the file; an existing one is replaced.
        rows: returns the rows of a table of predictions, in order, at each call.
        counts: number of images by verdict, and of ``error``.
        paths: path of each row's file; files of shown rows are read again.
        facts: texts ``detector`` and ``limits``, and whether it is a detector of ``toy`` faces.
        limits: the probabilities at which verdicts change, None without calibration.
        explained: path of a row's explanation, relative to the page; None if there is none.
    """
    names = [as_text(path) for path in paths]
    folder = common_folder(names)
    groups = []
    for name, verdict in _GROUPS.items():
        of_verdict = ((n, row) for n, row in enumerate(rows()) if row["verdict"] == verdict)
        # Unreadable files have no logit, and keep their order.
        first = heapq.nsmallest(SHOWN, of_verdict, key=lambda item: item[1]["logit"] or 0)
        files = [paths[number] for number, _ in first] if verdict else []
        with Progress(f"thumbnails, {name}", len(files)) as progress:
            entries = [
                dict(row)
                | {
                    "name": row["path"][len(folder) :],
                    "probability": probability_text(row["probability_real"]),
                    "beside": beside(row, limits),
                    "explanation": verdict and _url(explained(number)),
                }
                for number, row in first
            ]
            for entry, thumbnail in zip(
                entries, in_order(_thumbnail, files, _AT_ONCE), strict=False
            ):
                entry["thumbnail"] = thumbnail
                progress.advance()
        count = counts.get(verdict or "error", 0)
        groups.append({"name": name, "count": count, "entries": entries})
    template = resources.files("forensics.scoring").joinpath("page.html").read_text()
    html = (
        Environment(autoescape=True)
        .from_string(template)
        .render(groups=groups, total=sum(counts.values()), folder=folder, **facts)
    )
    with atomic(page) as file:
        file.write(html.encode())


def _thumbnail(path: str) -> str:
    """A data URI, or "" for a file that has changed since it was scored."""
    source = Path(path)
    if not source.is_file():  # reading a pipe could block
        return ""
    try:
        image = decode(source, 1).pixels
    except (RejectedImage, OSError):
        return ""
    square = Image.fromarray(to_square(image, THUMBNAIL_SIZE, ResizeFilter.lanczos))
    encoded = io.BytesIO()
    square.save(encoded, "webp", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _url(path: str | None) -> str | None:
    """A relative path as a URL, which no name can turn into one of another kind."""
    return path and f"./{quote(os.fsencode(path))}"
