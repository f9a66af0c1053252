"""The files to score: named, found in folders, listed in files or on standard input."""

import codecs
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from forensics.errors import UserError
from forensics.images.listing import HIDDEN, LEFTOVER, LINK, SPECIAL, counted, walk

_NOT_OPENED = {
    LINK: "a link, which is followed only if named itself",
    SPECIAL: "a pipe or device, not a file",
}


class Gathered(NamedTuple):
    """The files to score.

    Attributes:
        paths: every file that was given, listed or found.
        refused: reason by path of those that are not opened: links, pipes and devices in folders.
        passed_over: number of hidden and system files in folders, by reason.
    """

    paths: list[str]
    refused: dict[str, str]
    passed_over: Counter[str]


def gather(inputs: Iterable[str], lists: Iterable[str]) -> Gathered:
    """List the paths of all files to score.

    Args:
        inputs: files; folders, for every file below them, whatever its name, except hidden ones
            and those of macOS and Windows; ``-`` for paths on standard input. A link is followed
            if it is named, not if it is found in a folder.
        lists: text files of paths, one per line or separated by NUL; UTF-8 or UTF-16, with or
            without a byte order mark.

    Raises:
        UserError: if there is no file.
        OSError: if a folder or a list cannot be read.
    """
    gathered = Gathered([], {}, Counter())
    for name in inputs:
        if name == "-":
            gathered.paths.extend(_names(sys.stdin.buffer.read()))
        elif os.path.isdir(name):  # False for a name that is too long, which gets a row
            folder = Path(name)
            for path, reason, _ in sorted(walk(folder)):
                if reason in (HIDDEN, LEFTOVER):
                    gathered.passed_over[reason] += 1
                    continue
                gathered.paths.append(str(folder / path))
                if reason:
                    gathered.refused[str(folder / path)] = _NOT_OPENED[reason]
        else:
            gathered.paths.append(name)
    for name in lists:
        gathered.paths.extend(_names(Path(name).read_bytes()))
    if not gathered.paths:
        passed_over = f" ({counted(gathered.passed_over)})" if gathered.passed_over else ""
        raise UserError(
            f"There is nothing to score{passed_over}: name files, folders with files, --list FILE, "
            "or - for paths on standard input."
        )
    return gathered


def _names(content: bytes) -> list[str]:
    """The paths of a list, which may be of Windows or of ``find -print0``."""
    # Of UTF-16 without a mark, too, mostly every second byte is zero.
    zeros = [content[start::2].count(0) for start in (0, 1)]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    elif 2 * max(zeros) > len(content) // 2 > 2 * min(zeros):
        text = content.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le", "replace")
    else:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    names = text.split("\0") if "\0" in text else [n.rstrip("\r") for n in text.split("\n")]
    return [name for name in names if name]
