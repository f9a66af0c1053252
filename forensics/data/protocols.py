"""What decides the part of an image: the protocols of `forensics.data.settings.Protocol`."""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from forensics.data.ingest.classes import categories, parts_on
from forensics.data.settings import PARTS, DatasetSettings, Protocol
from forensics.data.sources import Source
from forensics.errors import UserError

Rows = NDArray[np.int64]


class Offered(NamedTuple):
    """Rows of each source, in the order of the sources, that a protocol has for each part.

    Attributes:
        train: rows for training and, without others for it, for validation.
        validation: rows for validation; empty for every source if a share of ``train`` validates.
        test: rows for the test.
        groups: for `Protocol.by_group`, the group of each row, else None; rows of images that were
            made from others have none.
        notes: sentences on what was given and is of no use.
    """

    train: list[Rows]
    validation: list[Rows]
    test: list[Rows]
    groups: list[list[str]] | None = None
    notes: tuple[str, ...] = ()


def offered(
    sources: Sequence[Source], settings: DatasetSettings, origins: Collection[str]
) -> Offered:
    """The rows that the protocol of the settings has for each part, copies included.

    No part depends on the seed, so that runs with different seeds test the same images.

    Args:
        sources: those of ``settings.names``, in order.
        settings: the protocol, roles and counts.
        origins: sources whose images were made from others of the sources. They follow their
            originals, so nothing is taken from them here.

    Raises:
        UserError: if what is given decides nothing, or contradicts itself.
    """
    if settings.split is Protocol.first_last:
        return _first_last(sources, settings, origins)
    ordinary = [source for source in sources if source.name not in origins]
    groups: dict[str, list[str]] = {}
    notes: list[str] = []
    if settings.split is Protocol.given:
        parts = _given(ordinary, settings)
    elif settings.split is Protocol.listed:
        parts, notes = _listed(ordinary, settings)
    else:
        groups = {source.name: _groups(source, settings.group) for source in ordinary}
        parts = _by_group(groups, settings)

    # They only validate; what is for the test stays out of any choice.
    role = {"train": "train", "validation": "train"}
    for name in settings.validate_on:
        parts[name] = [role.get(part, "") for part in parts.get(name, ())]

    def rows(part: str, count: int | None) -> list[Rows]:
        found = (np.array(parts.get(source.name, ())) == part for source in sources)
        return [_spread(np.flatnonzero(of), count) for of in found]

    return Offered(
        rows("train", settings.train_count),
        rows("validation", None),
        rows("test", settings.test_count),
        [groups.get(source.name, []) for source in sources] if groups else None,
        tuple(notes),
    )


def _spread(rows: Rows, count: int | None) -> Rows:
    """At most ``count`` of the rows, evenly spaced: folders come one after the other."""
    if count is None or len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // count]


def _first_last(
    sources: Sequence[Source], settings: DatasetSettings, origins: Collection[str]
) -> Offered:
    """The paper's: the first images train, the last ones test.

    A source too small for both counts is split in their proportion, and a real source has no more
    test images than the largest generator, so that the real class does not dominate accuracies.
    """
    train, test = cast(int, settings.train_count), cast(int, settings.test_count)
    trained = {*settings.real, *settings.train_on}
    tested: dict[str, int] = {}
    for source in sources:
        count = min(test, len(source))
        if source.name in trained and len(source) < train + test:
            count = min(count, max(1, round(len(source) * test / (train + test))))
        is_tested = source.name not in origins and source.name not in settings.validate_on
        tested[source.name] = count if is_tested else 0
    of_generators = [tested[name] for name in settings.generators if name not in origins]
    largest = max(of_generators, default=test)
    tested |= {name: min(tested[name], largest) for name in settings.real}
    return Offered(
        [np.arange(min(train, len(source) - tested[source.name])) for source in sources],
        [np.empty(0, np.int64) for _ in sources],
        [np.arange(len(source) - tested[source.name], len(source)) for source in sources],
    )


def _given(sources: Sequence[Source], settings: DatasetSettings) -> dict[str, list[str]]:
    """Parts by the names of folders, such as train, valid and test.

    Without any folder for the test, the folders for validation are the test's. Sources that are
    only tested or validated on need no such folders.
    """
    parts = {source.name: _parts(source) for source in sources}
    has_test = any("test" in of for of in parts.values())
    for name, of in parts.items():
        if set(of) > {""}:
            raise UserError(
                f"The source {name} has images both inside and outside its folders of a split: "
                "move either away, or choose another dataset.split.",
                key="dataset.split",
            )
        if "" in of and name in (*settings.real, *settings.train_on):
            raise UserError(
                f"The source {name} has no folders train, valid and test for dataset.split=given: "
                "choose another dataset.split.",
                key="dataset.split",
            )
        if "" in of:
            parts[name] = ["train" if name in settings.validate_on else "test"] * len(of)
    if not has_test:
        renamed = {"validation": "test"}
        parts = {name: [renamed.get(part, part) for part in of] for name, of in parts.items()}
    return parts


def _parts(source: Source) -> list[str]:
    """The part of each image by the folders it is in, "" for none."""
    folders = _folders(source)
    distinct = dict.fromkeys(folders)
    no_parts = categories(distinct)

    def of(folder: str) -> str:
        parts = {part for part in parts_on(folder, no_parts) if part is not None}
        if len(parts) > 1:
            raise UserError(
                f"The source {source.name} has a folder that names several parts of a split, "
                f"{folder}: rename it, or choose another dataset.split.",
                key="dataset.split",
            )
        return parts.pop() if parts else ""

    found = {folder: of(folder) for folder in distinct}
    return [found[folder] for folder in folders]


def _folders(source: Source) -> list[str]:
    """The folder of each image."""
    return [path.rpartition("/")[0] for path in source.paths]


def _listed(
    sources: Sequence[Source], settings: DatasetSettings
) -> tuple[dict[str, list[str]], list[str]]:
    """Parts by files of names, and sentences on names of no image."""
    names: dict[str, str] = {}
    for part in PARTS:
        for name in _lines(settings.listed[part]) if part in settings.listed else ():
            if names.setdefault(name, part) != part:
                raise _in_two_lists(name, (part, names[name]))
    used: set[str] = set()
    parts: dict[str, list[str]] = {}
    for source in sources:
        folder, root = settings.folder(source.name), Path(settings.root)
        places = {source.name}
        if folder.is_relative_to(root):
            places.add(folder.relative_to(root).as_posix())
        parts[source.name] = []
        for path in source.paths:
            found = {above for place in places for above in _upwards(f"{place}/{path}")
                     if above in names}  # fmt: skip
            used |= found
            of = sorted({names[name] for name in found})
            if len(of) > 1:
                raise _in_two_lists(f"{source.name}/{path}", of)
            parts[source.name].append(of[0] if of else "")
    unused = [name for name in names if name not in used]
    if names and not used:
        raise UserError(
            f"dataset.listed has {len(names)} names, such as {unused[0]}, but none is of an image: "
            f"write paths below {settings.root}, or below the name of a source.",
            key="dataset.listed",
        )
    note = f"dataset.listed: {len(unused)} of {len(names)} names are of no image in use"
    return parts, [f"{note}, the first {unused[0]}."] if unused else []


def _lines(file: str) -> list[str]:
    try:
        text = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"dataset.listed: {file} cannot be read ({error}): name a text file with one path on "
            "each line.",
            key="dataset.listed",
        ) from error
    return [line.strip().rstrip("/") for line in text.splitlines() if line.strip()]


def _upwards(path: str) -> Iterable[str]:
    """The path of an image and of every folder above it, without an empty or ``.`` beginning."""
    names = path.removeprefix("./").split("/")
    return ("/".join(names[:depth]) for depth in range(1, len(names) + 1))


def _in_two_lists(name: str, parts: Sequence[str]) -> UserError:
    return UserError(
        f"dataset.listed has {name} in the lists of {' and of '.join(parts)}: remove it from one.",
        key="dataset.listed",
    )


def _groups(source: Source, group: int | str | None) -> list[str]:
    """The group of each image of a source; see `DatasetSettings.group`."""
    found: list[str | None] = []
    if isinstance(group, int):
        folders = _folders(source)
        found = [([""] * group + folder.split("/"))[-group] or None for folder in folders]
    else:
        pattern = re.compile(cast(str, group))
        found = [match[1] if (match := pattern.search(path)) else None for path in source.paths]
    if None in found:
        raise UserError(
            f"dataset.group={group} finds no group of {found.count(None)} images of {source.name}, "
            f"the first {source.paths[found.index(None)]}: correct it.",
            key="dataset.group",
        )
    return cast(list[str], found)


def _by_group(groups: dict[str, list[str]], settings: DatasetSettings) -> dict[str, list[str]]:
    """Parts by group: whole groups, in an order drawn by a hash of their names.

    A group goes to the part that lacks most of its images of training sources, in proportion to the
    counts; first of all each of these sources gets a group for the test, one for validation and one
    for training. Groups of none of these sources are for the test, or for validation.
    """
    every = sorted({name for of in groups.values() for name in of},
                   key=lambda name: hashlib.blake2b(name.encode()).digest())  # fmt: skip
    number = {name: position for position, name in enumerate(every)}
    fitted = [name for name in groups if name in (*settings.real, *settings.train_on)]
    sizes = np.zeros((len(every), len(fitted)))
    for column, name in enumerate(fitted):
        np.add.at(sizes[:, column], [number[group] for group in groups[name]], 1)
    train, test = cast(int, settings.train_count), cast(int, settings.test_count)
    tested = test / (train + test)
    validated = (1 - tested) * settings.validation_share
    order = ("test", "validation", "train")
    room = np.outer([tested, validated, 1 - tested - validated], sizes.sum(axis=0))
    empty = np.ones(room.shape, bool)
    tested_on = {group for name in (*settings.generators, *settings.unseen_real)
                 for group in groups.get(name, ())}  # fmt: skip
    part_of_group: dict[str, str] = {}
    for group, size in zip(every, sizes, strict=True):
        if not size.any():
            part_of_group[group] = "test" if group in tested_on else "validation"
            continue
        lacking = empty[:, size > 0].any(axis=1)
        gain = np.minimum(room, size).sum(axis=1)
        part = int(np.argmax(lacking if lacking.any() else gain))
        room[part] = np.maximum(room[part] - size, 0)
        empty[part, size > 0] = False
        part_of_group[group] = order[part]
    return {name: [part_of_group[group] for group in of] for name, of in groups.items()}
