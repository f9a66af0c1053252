"""The rows of parquet files by their labels, and the commands that make folders of them.

Rows are no source: all that names an image does so by the path of a file.
"""

import logging
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from forensics.data.ingest.classes import part_of
from forensics.data.ingest.parquet import SPLIT, Texts, label_columns, labelled
from forensics.errors import UserError
from forensics.images.listing import as_text

log = logging.getLogger(__name__)

_GENERATOR = re.compile("generator|model", re.IGNORECASE)
_BY_HAND = "make a folder of each class with forensics prepare --label"


class Rows(NamedTuple):
    """What rows are; without a name of a generator, the real ones of all.

    Attributes:
        generator: name of the generator, or "".
        part: train, validation or test, or None.
        real: whether they are real images.
    """

    generator: str
    part: str | None
    real: bool


def rows_by_label(
    root: Path, shards: Sequence[Path], unnamed: str
) -> dict[Rows, tuple[tuple[str, ...], int]]:
    """Group the rows of parquet files by generator, part and class.

    Args:
        root: the files' folder, or the file, for messages.
        shards: the files.
        unnamed: name of the generator without a column of generators.

    Returns:
        For each group its labels, as ``forensics prepare --label`` takes them, and its size.

    Raises:
        UserError: if the columns do not tell the classes or a generator.
    """
    columns = label_columns(shards)
    known = {name: classes for name in columns if (classes := labelled(columns[name]))}
    rows = {name: [known[name].get(text or "") for text in columns[name]] for name in known}
    if not known or any(of_rows != next(iter(rows.values())) for of_rows in rows.values()):
        raise _refused(root, _not_told(root, columns, known))
    by_generator = [name for name in columns if _GENERATOR.search(name)]
    column = next((name for name in known if name not in by_generator), next(iter(known)))
    if None in rows[column]:
        raise _refused(root, f"has rows without a {column}: {_BY_HAND}")
    count = len(rows[column])
    counts: Counter[Rows] = Counter()
    labels: dict[Rows, dict[str, None]] = defaultdict(dict)

    def add(rows: Rows, *of_row: str) -> None:
        counts[rows] += 1
        labels[rows] |= dict.fromkeys(of_row)

    names = columns[by_generator[0]] if by_generator else [unnamed] * count
    splits = columns.get(SPLIT, [None] * count)
    table = zip(names, splits, rows[column], columns[column], strict=True)
    for name, split, real, label in table:
        part = split and part_of(split)
        of_row = [f"{column}={label}", *([f"{SPLIT}={split}"] if part else [])]
        if real:
            add(Rows("", part, real=True), *of_row)
        elif not name:
            raise _refused(root, f"has generated images without a {by_generator[0]}: {_BY_HAND}")
        if name:
            more = [f"{by_generator[0]}={name}"] if by_generator else []
            add(Rows(name, part, bool(real)), *of_row, *more)
    return {of: (tuple(sorted(labels[of])), counts[of]) for of in counts}


def _refused(root: Path, why: str) -> UserError:
    return UserError(f"{as_text(str(root))} {why}.", key=str(root))


def _not_told(root: Path, columns: Mapping[str, Texts], known: Collection[str]) -> str:
    """Why the columns do not tell the classes, and what to do."""
    if known:
        return f"has contradicting columns of classes, {', '.join(known)}: {_BY_HAND}"
    values = {name: sorted({text for text in texts if text}) for name, texts in columns.items()}
    column = next((name for name, of in values.items() if len(of) == 2 and name != SPLIT), None)
    if column is None:
        found = ", ".join(columns) or "none"
        return f"has no column with names of both classes (found: {found}): add one, such as label"
    first, second = (f"{column}={value}" for value in values[column])
    to = folders_of(root)
    log.info("%s\n%s", prepared(root, [first], to / "real"), prepared(root, [second], to / "fake"))
    return (
        f"does not say whether {first} or {second} is real: look at some images; if it is {first}, "
        f"make folders with the commands above, and repeat this one with {repeated(root)}"
    )


def folders_of(root: Path) -> Path:
    """The folder proposed for folders of rows, beside the files."""
    whole = root.resolve()
    return whole.parent / f"{whole.stem}_folders"


def repeated(root: Path, *more: str) -> str:
    """The settings with which the folders are used in the place of the rows."""
    return shlex.join([f"dataset.root={folders_of(root)}", *more])


def prepared(root: Path, labels: Sequence[str], folder: Path) -> str:
    """The command that makes a folder of rows with labels, of small images, too."""
    options = [part for label in labels for part in ("--label", label)]
    command = ["forensics", "prepare", folder.name, str(root.resolve())]
    return shlex.join([*command, "--root", str(folder.parent), "--min-side", "1", *options])
