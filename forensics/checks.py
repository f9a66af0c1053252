"""Range checks shared by several settings classes, and settings as plain values."""

import dataclasses
import math
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


def channels(values: Sequence[int], key: str) -> None:
    """Refuse an empty list of output channels, or channel counts below 1."""
    require(bool(values) and min(values) >= 1, key, values, "be numbers of at least 1")


def source_name(key: str, name: str) -> None:
    """Refuse a name that is not a folder directly below the data set's root."""
    plain_name = bool(name) and "/" not in name and not name.startswith(".")
    require(plain_name, key, repr(name), "name sources: folders below dataset.root")


def run_name(name: str) -> None:
    """Refuse a name that would put the run's folder at or outside ``outputs``."""
    path = PurePath(name)
    inside = bool(path.parts) and ".." not in path.parts and not path.is_absolute()
    require(inside, "name", repr(name), "be that of a folder below outputs (any other: "
            "hydra.run.dir=FOLDER)")  # fmt: skip


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
