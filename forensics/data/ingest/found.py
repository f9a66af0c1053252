"""Sources of a data set by its layout: their names, folders, roles and pairs, as settings."""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forensics.data.ingest.classes import is_real, part_of
from forensics.data.ingest.layouts import Compared, find_layout
from forensics.data.ingest.rows import folders_of, prepared, repeated
from forensics.errors import UserError
from forensics.images.listing import as_text

log = logging.getLogger(__name__)

_TESTED = ("test", "validation", None)
"""Parts of a data set that a test takes the images of: the first that there is."""


def found_sources(
    root: Path,
    given: Mapping[str, Path],
    generators: Sequence[str] | None,
    train_on: Sequence[str] | None,
    *,
    testing: bool,
) -> dict[str, Any]:
    """Find the sources below a folder, and print the mapping.

    The real images of one generator are the source ``real_<generator>``, those of several have the
    name of their folder.

    Args:
        root: the data set's folder.
        given: folder by name of the sources of real images for generators without any of their own.
        generators: those that are used; all if None. A single one names the only generator of a
            data set whose folders do not.
        train_on: those that are trained on; if None, all that have training images.
        testing: test all sources, on images of the data set's test folders, if it has such.
            Otherwise real images of generators that are not trained on are for the test only.

    Returns:
        Settings of `forensics.data.settings.DatasetSettings`: ``folders``, ``below``, ``real``,
        ``unseen_real``, ``generators``, ``train_on`` and ``pairs``.

    Raises:
        UserError: as `find_layout`, and for parquet files, a generator that is not found, or one
            with images both inside and outside the folders of a split.
    """
    layout = find_layout(root, list(given.values()))
    if generators is not None and len(generators) == 1 and layout.is_unnamed:
        (name,) = generators
        named = (dataclasses.replace(one, generator=name) for one in layout.compared)
        layout = dataclasses.replace(layout, compared=tuple(named))
    log.info("%s", layout)
    found: dict[str, list[Compared]] = {}
    for one in layout.compared:
        found.setdefault(one.generator, []).append(one)
    chosen = list(found if generators is None else generators)
    for name in chosen:
        if name not in found:
            raise UserError(
                f"dataset.generators names {name}, but {as_text(str(root))} has "
                f"{as_text(', '.join(found))}: correct it.",
                key="dataset.generators",
            )
        parts = [one.part for one in found[name]]
        if None in parts and len(parts) > 1:
            raise UserError(
                f"{as_text(str(root))} has images of {as_text(name)} both inside and outside its "
                "folders of a split: move either away.",
                key=str(root),
            )
        if testing:
            found[name] = _tested(root, name, found[name])
    if any(one.generated[0].labels for one in layout.compared):
        raise _not_in_folders(root, {name: found[name] for name in chosen})
    if train_on is None:
        in_parts = any(one.part for name in chosen for one in found[name])
        train_on = [
            name
            for name in chosen
            if testing or not in_parts or any(one.part == "train" for one in found[name])
        ]

    below = {name: _paths(root, found[name], "generated") for name in chosen}
    folders = dict.fromkeys(below, str(root))
    reals = {name: _paths(root, found[name], "real") for name in chosen}
    shared = Counter(path for paths in reals.values() for path in paths)
    names_of_given = {_below(root, folder): name for name, folder in given.items()}
    pairs: dict[str, list[str]] = {}
    for generator, paths in reals.items():
        if not any(path in names_of_given or shared[path] > 1 for path in paths):
            pairs[generator] = [f"real_{generator}"]
            folders[f"real_{generator}"], below[f"real_{generator}"] = str(root), paths
            continue
        for path in paths:
            name = names_of_given.get(path, Path(path).name)
            pairs.setdefault(generator, []).append(name)
            folders[name] = str(root / path)  # the path itself, if it is absolute
    of_trained = [name for generator in train_on for name in pairs.get(generator, ())]
    every = dict.fromkeys(name for of in pairs.values() for name in of)
    real = list(every if testing else dict.fromkeys(of_trained))
    return {
        "folders": folders,
        "below": {name: paths for name, paths in below.items() if paths != ["."]},
        "real": real,
        "unseen_real": [name for name in every if name not in real],
        "generators": chosen,
        "train_on": list(train_on),
        "pairs": pairs,
    }


def _not_in_folders(root: Path, found: Mapping[str, Sequence[Compared]]) -> UserError:
    """The refusal of rows of parquet; prints the commands that make folders of them."""
    to = folders_of(root)
    commands: dict[str, None] = {}
    reals = Counter(one.real for of in found.values() for one in of)
    is_shared = any(count > 1 for count in reals.values())
    for name, of in found.items():
        # A name of a class or part would mean that of its images, one of a model can have slashes.
        own = is_real(name) is None and part_of(name) is None
        of_generator = to / re.sub(r"[^\w.-]+|^\.", "_", name if own else f"generator_{name}")
        for one in of:
            place = of_generator / (one.part or "")
            of_real = to / "real" / (one.part or "") if is_shared else place / "real"
            for (images, *_), folder in ((one.generated, place / "fake"), (one.real, of_real)):
                commands[prepared(root, images.labels, folder)] = None
    log.info("%s", as_text("\n".join(commands)))
    settings = repeated(root, *(["dataset.real=[real]"] if is_shared else []))
    return UserError(
        f"{as_text(str(root))} has its images in parquet files: make folders of them with the "
        f"commands above, and repeat this one with {as_text(settings)}.",
        key=str(root),
    )


def _tested(root: Path, name: str, found: Sequence[Compared]) -> list[Compared]:
    """The images of a generator that a test takes."""
    by_part = {one.part: one for one in found}
    part = next((part for part in _TESTED if part in by_part), "train")
    if part == "train":
        raise UserError(
            f"{as_text(str(root))} has only training images of {as_text(name)}: name the folder of "
            "its test images.",
            key=str(root),
        )
    if len(by_part) > 1:
        log.info("%s: tested on the images of its folders of %s", as_text(name), part)
    return [by_part[part]]


def _paths(root: Path, found: Sequence[Compared], of: str) -> list[str]:
    """Folders of a generator's images, ``of`` being generated or real."""
    paths = (images.path for one in found for images in getattr(one, of))
    return list(dict.fromkeys(_below(root, path) for path in paths))


def _below(root: Path, path: Path) -> str:
    """A path below the root relative to it, any other as an absolute one."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path.resolve())
