"""Detectors from outside the package: installed plug-ins, and modules that the user names.

Only installed plug-ins and modules named on a command line are imported, never those that a file
names.
"""

import dataclasses
import importlib
import os
import sys
from importlib.metadata import entry_points

from forensics.detectors import DETECTORS
from forensics.errors import UserError

GROUP = "forensics.detectors"
"""Entry points of this group name settings classes, as `DETECTORS` does."""

PLUGINS: dict[str, str] = {}
"""Distribution or module of each plug-in detector, by the detector's name."""


def load_installed() -> None:
    """Add the detectors of every installed plug-in to `DETECTORS`; repeated calls do nothing.

    Raises:
        UserError: if a plug-in cannot be imported or is not a detector.
    """
    for point in entry_points(group=GROUP):
        origin = point.dist.name if point.dist else point.module
        if PLUGINS.get(point.name) == origin:
            continue
        try:
            settings = point.load()
        except Exception as error:
            raise UserError(
                f"The installed plug-in {origin} cannot be imported ({error}): fix or uninstall "
                "it.",
                key=origin,
            ) from error
        _add(point.name, settings, origin)


def load_module(name: str) -> None:
    """Add a module's dictionary ``DETECTORS`` to `DETECTORS`; repeated calls do nothing.

    Args:
        name: as in an import statement; the current folder is searched, too.

    Raises:
        UserError: if it cannot be imported or has no such dictionary.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        detectors = dict(importlib.import_module(name).DETECTORS)
    except Exception as error:
        raise UserError(
            f"plugin={name} cannot be used ({type(error).__name__}: {error}): name a module with "
            "a dictionary DETECTORS, from names to settings classes.",
            key="plugin",
        ) from error
    for detector, settings in detectors.items():
        if PLUGINS.get(detector) != name:
            _add(detector, settings, name)


def _add(name: str, settings: object, origin: str) -> None:
    if name in DETECTORS:
        raise UserError(
            f"The plug-in {origin} has a detector {name}, which "
            f"{PLUGINS.get(name, 'the package')} already provides: rename it.",
            key=origin,
        )
    if not (
        isinstance(settings, type)
        and dataclasses.is_dataclass(settings)
        and callable(getattr(settings, "build", None))
    ):
        raise UserError(
            f"{name} of the plug-in {origin} is not a dataclass with a method build(image_size, "
            "*, pretrained): see CONTRIBUTING.md.",
            key=origin,
        )
    DETECTORS[name], PLUGINS[name] = settings, origin
