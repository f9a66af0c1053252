"""The classes of images, real and generated, by the names that data sets give them.

Names count, never positions: in the order of names «fake» comes before «real», but «nature» after
«ai», so that a number would mean one class in one data set and the other class in the next.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from forensics.errors import UserError
from forensics.images.listing import as_text

_REAL = re.compile("reals?|natur(e|al)|originals?|authentic|genuine|pristine|human")
_GENERATED = re.compile("fakes?|ai|generated|synthe(tic|si[sz]ed)|manipulated|tampered|forged")
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


def _class_of(word: str) -> bool | None:
    """True for a word for real images, False for one for generated images, None for others."""
    return True if _REAL.fullmatch(word) else False if _GENERATED.fullmatch(word) else None


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())


def refuse_both_classes(
    given: Path, folders: Iterable[str], remedy: Callable[[str, str], str]
) -> None:
    """Refuse a source in which folders of both classes meet.

    Args:
        given: the source, for the message.
        folders: paths of the folders of its images, relative to it.
        remedy: how to choose a folder, given its path and its name.

    Raises:
        UserError: if some folder on the paths means real and another one generated images.
    """
    found: dict[bool, list[str]] = {True: [], False: []}
    for folder in sorted(folders):
        names = folder.split("/")
        for depth, name in enumerate(names, 1):
            class_ = is_real(name)
            if class_ is not None:
                found[class_].append("/".join(names[:depth]))
    if not all(found.values()):
        return
    real, generated = (as_text(found[of][0]) for of in (True, False))
    options = " or ".join(remedy(path, path.rpartition("/")[2]) for path in (real, generated))
    raise UserError(
        f"{as_text(str(given))} has real images ({real}) and generated images ({generated}), but a "
        f"source has one class: choose with {options}.",
        key=str(given),
    )
