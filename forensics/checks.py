"""Range checks shared by several settings classes, and settings as plain values."""

import dataclasses
import math
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from forensics.errors import UserError


def require(holds: bool, key: str, value: object, range_: str) -> None:
    """Refuse a setting out of range.

    Args:
        holds: whether the value is in range.
        key: the setting's name on the command line.
        value: the setting's value.
        range_: the requirement, completing «must», such as ``be at least 1``.
    """
    if not holds:
        given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        raise UserError(f"{key} must {range_}, not {given}.", key=key)


def at_least(settings: object, group: str = "", **least: float) -> None:
    """Refuse numbers that are not finite or below their lower bounds.

    Args:
        settings: an object with the numbers as attributes.
        group: prefix of the settings' keys, with a dot, such as ``model.``.
        least: lower bounds by attribute name.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        holds = math.isfinite(value) and value >= bound
        require(holds, group + name, value, f"be at least {bound}")


def adam(settings: Any, group: str) -> None:  # noqa: ANN401
    """Refuse a ``learning_rate`` and ``betas`` that Adam cannot work with."""
    rate, betas = settings.learning_rate, settings.betas
    holds = math.isfinite(rate) and rate > 0
    require(holds, f"{group}learning_rate", rate, "be a finite number above 0")
    holds = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    require(holds, f"{group}betas", betas, "be two numbers in [0, 1)")


def image_size(size: int, *, least: int) -> None:
    """Refuse images smaller than a detector's layers need: nothing would be left of them."""
    require(size >= least, "dataset.image_size", size, f"be at least {least}")


def channels(values: Sequence[int], key: str) -> None:
    """Refuse an empty list of output channels, or channel counts below 1."""
    require(bool(values) and min(values) >= 1, key, values, "be numbers of at least 1")


def source_name(key: str, name: str) -> None:
    """Refuse a name that is not a folder directly below the data set's root."""
    plain_name = bool(name) and not {"/", "\0"} & {*name} and not name.startswith((".", "~"))
    require(plain_name, key, repr(name), "name sources: folders below dataset.root")


def run_name(name: str) -> None:
    """Refuse a name that would put the run's folder at or outside ``outputs``."""
    path = PurePath(name)
    inside = bool(path.parts) and ".." not in path.parts and not path.is_absolute()
    inside = inside and not any(
        part.startswith("~") for part in path.parts
    )  # in a shell, elsewhere
    require(inside, "name", repr(name), "be that of a folder below outputs (any other: "
            "hydra.run.dir=FOLDER)")  # fmt: skip


def expanded(key: str, path: str) -> str:
    """A path with ``~`` as the home folder, as a shell would write it.

    Args:
        key: the setting's name on the command line.
        path: the setting's value.

    Raises:
        UserError: if it begins with ``~`` and names no user, because it would be taken for a
            folder of that name in the current one.
    """
    whole = os.path.expanduser(path)
    require(not whole.startswith("~"), key, path, "name a user's folder after ~; write ./~... for "
            "a folder of that name")  # fmt: skip
    return whole


def plain(settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """A dataclass as plain containers, for files; enums become their names."""

    def leaf(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [leaf(item) for item in value]
        return str(value) if isinstance(value, StrEnum) else value

    return dataclasses.asdict(
        settings, dict_factory=lambda pairs: {key: leaf(value) for key, value in pairs}
    )


def dotted(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested containers by dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping)
        pairs |= dotted(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return pairs


def expand(settings: object, *names: str) -> None:
    """Replace paths among settings by their `expanded` ones; None stays."""
    for name in names:
        path = getattr(settings, name)
        if path is not None:
            setattr(settings, name, expanded(name, path))


def mismatch(value: Any, kind: Any, place: str = "it") -> str | None:  # noqa: ANN401
    """How plain values differ from a type, as a file's may; None if they have it.

    Args:
        value: the values, as read from JSON.
        kind: ``str``, ``int``, ``float`` (finite), ``bool``, ``None``, ``Any``, a union, a list,
            a dictionary by text, a dataclass or a TypedDict. Further keys of the last are ignored.
        place: the values' name.

    Returns:
        The first place and what is there, such as «it.seed is None», or that it «is missing».
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return None
    if origin in (types.UnionType, typing.Union):
        found = [mismatch(value, one, place) for one in inner]
        return None if None in found else max((one for one in found if one), key=len)
    if origin is typing.NotRequired:
        return mismatch(value, inner[0], place)
    parts: list[tuple[Any, Any, str]] = []
    if origin is list and isinstance(value, list):
        parts = [(one, inner[0], f"{place}[{number}]") for number, one in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        parts = [(one, inner[1], f"{place}.{key}") for key, one in value.items()]
    elif isinstance(kind, type) and issubclass(kind, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right = number and abs(value) <= sys.float_info.max  # also of integers that no float can be
        return None if right else f"{place} is {repr(value)[:60]}"
    elif isinstance(kind, type) and isinstance(value, dict) and hasattr(kind, "__annotations__"):
        optional: frozenset[str] = getattr(kind, "__optional_keys__", frozenset())
        for key, of in typing.get_type_hints(kind).items():
            if key in value:
                parts.append((value[key], of, f"{place}.{key}"))
            elif key not in optional:
                return f"{place}.{key} is missing"
    else:
        wanted = types.NoneType if kind is None else kind
        return None if type(value) is wanted else f"{place} is {repr(value)[:60]}"
    return next(filter(None, (mismatch(*part) for part in parts)), None)
