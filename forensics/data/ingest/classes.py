"""The classes of images, real and generated, by the names that data sets give them.

Names count, never positions: in the order of names «fake» comes before «real», but «nature» after
«ai», so that a number would mean one class in one data set and the other class in the next.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from forensics.errors import UserError
from forensics.images.listing import as_text

_REAL = re.compile("reals?|natur(e|al)|originals?|authentic|genuine|pristine|human")
_GENERATED = re.compile(
    "fakes?|ai(gc)?|generated|synthe(tic|sis|si[sz]ed)|manipulated|tampered|forged"
)
_LIKELY_GENERATED = re.compile("deepfakes?")
"""Words that are also names of generators."""
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NEUTRAL = re.compile("(image|img|face|photo|picture|video|frame|sequence|sample)s?|data|class")
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_FEW = 2
"""Folders beside one another, one of which is named train: whether the other one is a category, or
images that are in no part, is not clear."""


def is_real(name: str) -> bool | None:
    """Whether a name means real images: ``0_real``, ``REAL``, ``nature``, ``real_train``.

    Returns:
        False if it means generated ones: ``1_fake``, ``ai``, ``manipulated_sequences``; None if it
        means no class, such as ``real_madrid``.
    """
    words = [word for word in _words(name) if word not in _PARTS and not _NEUTRAL.fullmatch(word)]
    classes = {_class_of(word) for word in words}
    return classes.pop() if len(classes) == 1 else None


def part_of(name: str) -> str | None:
    """The part of a split that a name means, train, validation or test, or None.

    ``valid`` and ``fake_train`` mean one, ``train_station`` does not.
    """
    words = _words(name)
    named = {_PARTS[word] for word in words if word in _PARTS}
    alone = all(
        word in _PARTS or _NEUTRAL.fullmatch(word) or _class_of(word) is not None for word in words
    )
    return named.pop() if len(named) == 1 and alone else None


def parts_on(path: str, categories: Collection[str]) -> list[str | None]:
    """The part that each folder on a path means, by `part_of`, or None; `categories` mean none."""
    names = path.split("/")
    return [
        None if "/".join(names[:depth]) in categories else part_of(name)
        for depth, name in enumerate(names, 1)
    ]


def categories(folders: Iterable[str]) -> frozenset[str]:
    """Folders that are named like a part but are a category: ForenSynths has trains, beside buses.

    Such a folder is beside several, none of which is named like a part or a class, and all have
    the same folders below them.

    Args:
        folders: paths of the folders that have images, relative to that of the data set.

    Returns:
        Paths among these folders and those above them.
    """
    below: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for folder in folders:
        names = folder.split("/")
        for depth, name in enumerate(names):
            below["/".join(names[:depth])][name].add("/".join(names[depth + 1 :]))
    found = set()
    for above, beside in below.items():
        parts = [name for name in beside if part_of(name) is not None]
        are_alike = len({frozenset(inner) for inner in beside.values()}) == 1
        no_class = all(is_real(name) is None for name in beside)
        if len(parts) == 1 and len(beside) > _FEW and are_alike and no_class:
            found.add(f"{above}/{parts[0]}".lstrip("/"))
    return frozenset(found)


def _class_of(word: str) -> bool | None:
    """True for a word for real images, False for one for generated images, None for others."""
    return True if _REAL.fullmatch(word) else False if _GENERATED.fullmatch(word) else None


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", _CAPITAL.sub(" ", name).casefold())


def _leaning(name: str) -> bool | None:
    """As `is_real`, but a name may have other words: ``celeb-real``, ``AiArtData``."""
    words = _words(name)
    classes = {False if _LIKELY_GENERATED.fullmatch(word) else _class_of(word) for word in words}
    classes -= {None}
    return classes.pop() if len(classes) == 1 else None


def refuse_both_classes(
    given: Path, folders: Iterable[str], remedy: Callable[[str, str], str]
) -> None:
    """Refuse a source in which folders of both classes meet.

    Args:
        given: the source, for the message.
        folders: paths of the folders of its images, relative to it.
        remedy: how to choose a folder, given its path and its name.

    Raises:
        UserError: if some folder on the paths means real and another one generated images, or two
            folders side by side do so among other words.
    """
    found: dict[bool, list[str]] = {True: [], False: []}
    beside: dict[str, dict[bool, str]] = defaultdict(dict)
    for folder in sorted(folders):
        names = folder.split("/")
        for depth, name in enumerate(names, 1):
            path = "/".join(names[:depth])
            class_ = is_real(name)
            if class_ is not None:
                found[class_].append(path)
            leaning = _leaning(name)
            if leaning is not None:
                beside["/".join(names[: depth - 1])].setdefault(leaning, path)
    if all(found.values()):
        real, generated = found[True][0], found[False][0]
    else:
        pairs = [pair for pair in beside.values() if len(pair) > 1]
        if not pairs:
            return
        real, generated = pairs[0][True], pairs[0][False]
    real, generated = as_text(real), as_text(generated)
    options = " or ".join(remedy(path, path.rpartition("/")[2]) for path in (real, generated))
    raise UserError(
        f"{as_text(str(given))} has real images ({real}) and generated images ({generated}), but a "
        f"source has one class: choose with {options}.",
        key=str(given),
    )
