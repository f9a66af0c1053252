"""Mutated image files: nothing crashes, hangs, or is taken for complete with other pixels.

``python experiments/reliability/mutated_files.py`` makes files of every accepted kind, changes each
by one seeded mutation, decodes it with `forensics.images.decode` and with OpenCV, and writes
mutated_files.csv, counts by format and mutation, and mutated_files_listed.csv, the files that need
a look. A stopped run resumes. ``--write NUMBER`` writes one file instead, to look at it.
"""

import argparse
import csv
import io
import json
import multiprocessing
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forensics.data.demo.scene import draw_scene
from forensics.images.containers import RejectedImage, read_parts
from forensics.images.decode import decode

HERE = Path(__file__).parent
DISTANCE = 2.0
"""Mean absolute difference in grey levels beyond which two results are other pixels."""

SLOW_SECONDS = 60.0
_EOI = b"\xff\xd9"
_SIDE = 192

Rng = np.random.Generator
Pixels = NDArray[np.uint8]


class Mutated(NamedTuple):
    """A file and what it was made from.

    Attributes:
        kind: the name of the original in `originals`.
        mutation: the name of the mutation in `MUTATIONS`.
        original: the content before.
        content: the content after.
    """

    kind: str
    mutation: str
    original: bytes
    content: bytes


@cache
def originals() -> dict[str, bytes]:
    """A file of each kind; the format is the first word of its name."""
    scene = draw_scene(np.random.default_rng(0))
    levels = (scene * 255 if scene.max() <= 1 else scene).clip(0, 255).astype(np.uint8)
    if levels.shape[0] == 3:
        levels = np.ascontiguousarray(levels.transpose(1, 2, 0))
    image = Image.fromarray(levels).resize((_SIDE, _SIDE * 3 // 4), Image.Resampling.LANCZOS)
    grey = image.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = image.copy()
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    turned = Image.Exif()
    turned[0x0112] = 6

    def file(of: Image.Image, format_: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        of.save(buffer, format_, **options)
        return buffer.getvalue()

    return {
        "jpeg": file(image, "jpeg", quality=75),
        "jpeg 4:4:4": file(image, "jpeg", quality=95, subsampling=0),
        "jpeg progressive": file(image, "jpeg", quality=85, progressive=True),
        "jpeg restarts": file(image, "jpeg", quality=85, restart_marker_blocks=3),
        "jpeg optimised": file(image, "jpeg", quality=30, optimize=True),
        "jpeg turned": file(image, "jpeg", quality=90, exif=turned),
        "jpeg grey": file(grey, "jpeg"),
        "jpeg cmyk": file(image.convert("CMYK"), "jpeg"),
        "png": file(image, "png"),
        "png transparent": file(clear, "png"),
        "png palette": file(image.convert("P"), "png", transparency=bytes([0, 128, 255])),
        "png 16 bit": file(deep, "png"),
        "png turned": file(image, "png", exif=turned),
        "webp": file(image, "webp", quality=80),
        "webp lossless": file(image, "webp", lossless=True),
        "webp transparent": file(clear, "webp", quality=80),
        "webp turned": file(image, "webp", quality=80, exif=turned),
    }


def _place(rng: Rng, content: bytes) -> int:
    return int(rng.integers(12, len(content)))


def _flips(rng: Rng, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(2 ** rng.integers(0, 6))):
        changed[_place(rng, content)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _bytes(rng: Rng, content: bytes) -> bytes:
    start, length = _place(rng, content), int(rng.integers(1, 65))
    return content[:start] + rng.bytes(length) + content[start + length :]


def _cut(rng: Rng, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _cut_with_end(rng: Rng, content: bytes) -> bytes:
    end = {b"\xff\xd8": _EOI, b"\x89P": content[-12:]}.get(content[:2], b"")
    return _cut(rng, content) + end


def _insertion(rng: Rng, content: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + rng.bytes(int(rng.integers(1, 65))) + content[start:]


def _deletion(rng: Rng, content: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + content[start + int(rng.integers(1, 65)) :]


def _zeros(rng: Rng, content: bytes) -> bytes:
    start = _place(rng, content)
    length = min(int(2 ** rng.integers(4, 12)), len(content) - start - 2)
    return content[:start] + bytes(max(0, length)) + content[start + max(0, length) :]


def _tail(rng: Rng, content: bytes) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 5000)))


def _parts(content: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Signature, chunks or segments, and what follows them."""
    if content.startswith(b"\x89PNG"):
        at, found = 8, []
        while at < len(content):
            end = at + 12 + int.from_bytes(content[at : at + 4])
            found.append(content[at:end])
            at = end
        return content[:8], found, b""
    if content.startswith(b"RIFF"):
        at, found = 12, []
        while at < len(content):
            length = int.from_bytes(content[at + 4 : at + 8], "little")
            end = at + 8 + length + length % 2
            found.append(content[at:end])
            at = end
        return content[:12], found, b""
    at, found = 2, []
    while content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        found.append(content[at:end])
        at = end
    return content[:2], found, content[at:]


def _joined(signature: bytes, parts: list[bytes], rest: bytes) -> bytes:
    """A file of these parts, with the right size of a WebP and the checksums of a PNG."""
    if signature.startswith(b"\x89PNG"):
        parts = [part[:-4] + struct.pack(">I", zlib.crc32(part[4:-4])) for part in parts]
    body = b"".join(parts)
    if signature.startswith(b"RIFF"):
        signature = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP"
    return signature + body + rest


def _part_flips(rng: Rng, content: bytes) -> bytes:
    """Flipped bits in one part, with its right length and checksum."""
    signature, parts, rest = _parts(content)
    number = int(rng.integers(len(parts)))
    head, tail = (8, 4) if signature.startswith(b"\x89PNG") else (8 if rest == b"" else 4, 0)
    part = bytearray(parts[number])
    for _ in range(int(rng.integers(1, 4))):
        if len(part) > head + tail:
            part[int(rng.integers(head, len(part) - tail))] ^= 1 << int(rng.integers(8))
    parts[number] = bytes(part)
    return _joined(signature, parts, rest)


def _part_order(rng: Rng, content: bytes) -> bytes:
    signature, parts, rest = _parts(content)
    one, other = rng.integers(len(parts), size=2)
    parts[one], parts[other] = parts[other], parts[one]
    return _joined(signature, parts, rest)


def _part_twice(rng: Rng, content: bytes) -> bytes:
    signature, parts, rest = _parts(content)
    parts.insert(int(rng.integers(len(parts) + 1)), parts[int(rng.integers(len(parts)))])
    return _joined(signature, parts, rest)


def _part_missing(rng: Rng, content: bytes) -> bytes:
    signature, parts, rest = _parts(content)
    del parts[int(rng.integers(len(parts)))]
    return _joined(signature, parts, rest)


def _odd_exif(rng: Rng) -> bytes:
    """Exif data of random entries, with an orientation among them or not."""
    order = str(rng.choice(["<", ">"]))
    tags = sorted(int(tag) for tag in rng.integers(0x0100, 0x9000, int(rng.integers(1, 6))))
    entries = [
        struct.pack(f"{order}HHI", tag, int(rng.integers(14)), int(rng.integers(2**32)))
        + rng.bytes(4)
        for tag in tags
    ]
    if rng.random() < 0.7:
        value = struct.pack(f"{order}HH", int(rng.integers(1, 9)), 0)
        entry = struct.pack(f"{order}HHI", 0x0112, 3, 1) + value
        entries.insert(sum(tag < 0x0112 for tag in tags), entry)
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return mark + struct.pack(f"{order}IH", 8, len(entries)) + b"".join(entries) + bytes(4)


def _metadata(rng: Rng, content: bytes) -> bytes:
    """Odd, but valid, metadata before or behind the pixels; no pixel changes."""
    signature, parts, rest = _parts(content)
    noise = rng.bytes(int(rng.integers(0, 40_000)))
    exif = rng.random() < 0.5
    data = _odd_exif(rng) if exif else noise
    if signature.startswith(b"\x89PNG"):
        packed = zlib.compress(bytes(int(rng.integers(1, 30_000_000))), 1)
        kind, data = (
            (b"eXIf", data)
            if exif
            else [
                (b"tEXt", b"Comment\0" + noise),
                (b"zTXt", b"Comment\0\0" + packed),
                (b"iTXt", b"Comment\0\1\0\0\0" + packed),
                (b"iCCP", b"profile\0\0" + packed),
                (b"prVt", noise),
            ][int(rng.integers(5))]
        )
        parts = [part for part in parts if part[4:8] != b"eXIf" or not exif]
        parts.insert(1, struct.pack(">I", len(data)) + kind + data + bytes(4))
    elif signature.startswith(b"RIFF"):
        parts = [part for part in parts if part[:4] not in (b"VP8X", b"EXIF")]
        features = bytes([0x0C | 0x10 * (parts[0][:4] == b"ALPH"), 0, 0, 0])
        size = struct.pack("<I", _SIDE - 1)[:3] + struct.pack("<I", _SIDE * 3 // 4 - 1)[:3]
        kind = b"EXIF" if exif else b"XMP "
        chunk = kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        extended = b"VP8X" + struct.pack("<I", 10) + features + size
        parts = [extended, *parts, chunk]
    else:
        code = 0xE1 if exif else int(rng.choice([*range(0xE1, 0xEE), 0xEF, 0xFE]))
        data = b"Exif\0\0" + data if exif else data
        parts = [part for part in parts if part[1] != 0xE1 or not exif]
        segment = bytes([0xFF, code]) + struct.pack(">H", len(data) + 2) + data
        parts.insert(int(rng.integers(len(parts) + 1)), segment)
    return _joined(signature, parts, rest)


MUTATIONS: dict[str, Callable[[Rng, bytes], bytes]] = {
    "flipped bits": _flips,
    "random bytes": _bytes,
    "cut": _cut,
    "cut, with an end mark": _cut_with_end,
    "inserted bytes": _insertion,
    "deleted bytes": _deletion,
    "zeros": _zeros,
    "bytes behind the end": _tail,
    "flipped bits in a part, checksum right": _part_flips,
    "parts exchanged": _part_order,
    "a part twice": _part_twice,
    "a part missing": _part_missing,
    "odd metadata": _metadata,
}


def mutated(number: int) -> Mutated:
    """The file of a number, always the same."""
    rng = np.random.default_rng(number)
    kinds, mutations = list(originals()), list(MUTATIONS)
    kind = kinds[number % len(kinds)]
    mutation = mutations[number // len(kinds) % len(mutations)]
    original = originals()[kind]
    return Mutated(kind, mutation, original, MUTATIONS[mutation](rng, original))


def by_opencv(content: bytes) -> Pixels | None:
    """Pixels by OpenCV with our rules for orientation, 16 bits and transparency."""
    data = np.frombuffer(content, np.uint8)
    try:
        stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        upright = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if stored is None or upright is None:
        return None
    if stored.ndim == 3 and stored.shape[2] == 4:
        highest = 255 if stored.dtype == np.uint8 else 65_535
        alpha = stored[..., 3:] / highest
        colour = stored[..., :3] * (255 / highest)
        blended = np.rint(colour * alpha + 255 * (1 - alpha)).astype(np.uint8)
        value = read_parts(io.BytesIO(content)).orientation.value
        turned = blended.swapaxes(0, 1) if value in (5, 6, 7, 8) else blended
        turned = turned[::-1] if value in (3, 4, 7, 8) else turned
        upright = turned[:, ::-1] if value in (2, 3, 6, 7) else turned
    return np.asarray(upright[..., ::-1], np.uint8)


def distance(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference in grey levels; 255 for images of different sizes."""
    if one.shape != other.shape:
        return 255.0
    return float(np.abs(one.astype(int) - other).mean())


def moved(shown: Pixels, before: Pixels) -> float:
    """The distance of the most similar orientation, which metadata may change by right."""
    turns = [np.rot90(side, turn) for side in (before, before[:, ::-1]) for turn in range(4)]
    return min(distance(shown, turn) for turn in turns)


def judged(number: int) -> dict[str, Any]:
    """What becomes of a file.

    Returns:
        ``verdict`` accepted, flagged, rejected or crash; ``why``; ``seconds``; ``moved``, the
        distance from the pixels before the mutation; and ``apart``, that from OpenCV's, None where
        OpenCV refuses the file.
    """
    file = mutated(number)
    row: dict[str, Any] = {"number": number, "kind": file.kind, "mutation": file.mutation}
    start = time.perf_counter()
    try:
        pixels, why, _ = decode(file.content, 1)
        verdict = "flagged" if why else "accepted"
    except RejectedImage as error:
        return row | {
            "verdict": "rejected",
            "why": str(error),
            "seconds": time.perf_counter() - start,
        }
    except Exception as error:
        return row | {"verdict": "crash", "why": repr(error), "seconds": 0.0}
    row |= {"verdict": verdict, "why": why, "seconds": time.perf_counter() - start}
    shown = np.asarray(pixels)
    other = by_opencv(file.content)
    return row | {
        "moved": moved(shown, np.asarray(decode(file.original, 1).pixels)),
        "apart": None if other is None else distance(shown, other),
    }


def _work(connection: Connection, start: int, count: int) -> None:
    for number in range(start, count):
        connection.send(judged(number))


def run(count: int, kept: Path) -> list[dict[str, Any]]:
    """Judge files in a process of their own, so that one that kills or stops it is only a row."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text().splitlines() if kept.exists() else []
    rows = [json.loads(line) for line in lines][:count]
    context = multiprocessing.get_context("spawn")
    with kept.open("a") as out:
        while len(rows) < count:
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(theirs, len(rows), count))
            worker.start()
            theirs.close()
            while len(rows) < count:
                try:
                    row = ours.recv() if ours.poll(SLOW_SECONDS) else {"verdict": "hang"}
                except EOFError:
                    row = {"verdict": "crash", "why": "the process ended"}
                if "number" not in row:
                    file = mutated(len(rows))
                    row |= {"number": len(rows), "kind": file.kind, "mutation": file.mutation}
                rows.append(row)
                out.write(f"{json.dumps(row)}\n")
                out.flush()
                if row["verdict"] in ("hang", "crash"):
                    break
            worker.kill()
            worker.join()
    return rows


def needs_a_look(row: dict[str, Any]) -> bool:
    """Whether a file stops the program, or OpenCV sees other pixels in one without a flag."""
    apart = row.get("apart")
    differs = row["verdict"] == "accepted" and apart is not None and apart > DISTANCE
    return row["verdict"] in ("crash", "hang") or differs


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts by format and mutation."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"].split()[0], row["mutation"]), []).append(row)
    found = []
    for (format_, mutation), group in sorted(groups.items()):
        verdicts = Counter(row["verdict"] for row in group)
        accepted = [row for row in group if row["verdict"] == "accepted"]
        found.append(
            {
                "format": format_,
                "mutation": mutation,
                "files": len(group),
                **{
                    verdict: verdicts[verdict]
                    for verdict in ("rejected", "flagged", "accepted", "crash", "hang")
                },
                "accepted_changed": sum(row["moved"] > DISTANCE for row in accepted),
                "accepted_refused_by_opencv": sum(row["apart"] is None for row in accepted),
                "accepted_other_than_opencv": sum(map(needs_a_look, accepted)),
                "slowest_seconds": round(max(row.get("seconds", 0.0) for row in group), 3),
            }
        )
    return found


def main() -> None:
    """Judge the files and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--kept", type=Path, default=Path("outputs/mutated_files.jsonl"))
    parser.add_argument("--write", type=int, metavar="NUMBER")
    given = parser.parse_args()
    if given.write is not None:
        file = mutated(given.write)
        path = Path(f"{given.write}.{file.kind.split()[0]}")
        path.write_bytes(file.content)
        print(f"{path}: {file.kind}, {file.mutation}")
        return
    rows = run(given.count, given.kept)
    for name, table in (
        ("mutated_files.csv", summary(rows)),
        ("mutated_files_listed.csv", [row for row in rows if needs_a_look(row)]),
    ):
        columns = list(dict.fromkeys(key for row in table for key in row)) or ["number"]
        with (HERE / name).open("w", newline="") as out:
            writer = csv.DictWriter(out, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
