"""Variants: the settings that differ between the runs of a study."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from forensics.checks import dotted
from forensics.preprocess import PREPROCESSES

Settings = Mapping[str, Any]
"""Settings by dotted keys, plus the options ``model`` and ``preprocess``."""

OPTIONS = ("model", "preprocess")
"""Groups of settings identified by an option's name."""

NO_VARIANT = (
    "seed", "name", "resume", "plugin", "dataset.root", "dataset.folders", "dataset.train_on",
    "debug",
)  # fmt: skip
"""Settings, or groups of them, that do not define variants; training sources are another axis."""

CIRCUMSTANCES = ("trainer", "perturb", "cache_dir")
"""Settings, or groups of them, that define variants only if no other settings differ."""

MOVED = {"learning_rate": "model.learning_rate", "betas": "model.betas"}
"""Keys of earlier versions, with their current keys."""

PAPER_MODEL = "dcgan_discriminator"
PAPER_NAMES = {"none": "M", "blur": "M_GB", "noise": "M_GN"}
"""The detector of arXiv 1902.11153, and its names there by preprocess."""


class Variant(NamedTuple):
    """One of the training variants that a study compares.

    Attributes:
        settings: settings that vary over the study: dotted key and value as on a command line.
        label: the same as text.
        name: the paper's name for a variant of the paper, else the label.
    """

    settings: tuple[tuple[str, str], ...]
    label: str
    name: str

    @property
    def title(self) -> str:
        """The paper's name and the label."""
        return self.name if self.name == self.label else f"{self.name} ({self.label})"


def training_set(generators: Sequence[str]) -> str:
    """Name of a set of training generators in tables."""
    return "+".join(generators) or "real images alone"


def trained_with(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run of train.py by dotted keys, from its ``result.json``."""
    settings = dotted(result["settings"]) | {name: result[name] for name in OPTIONS}
    return {MOVED.get(key, key): value for key, value in settings.items()}


def variants(runs: Sequence[Settings], left_out: Sequence[str]) -> list[Variant]:
    """The variant of each run.

    Args:
        runs: the settings of each run.
        left_out: settings, or groups of them, that do not define variants.

    A setting that one run has and another lacks counts as different, unless it is none. Settings of
    a model or preprocess are compared only between runs of the same model or preprocess; between
    others, its name is the difference.
    """
    said = [
        {key: _text(value) for key, value in run.items() if not _left_out(key, value, left_out)}
        for run in runs
    ]
    every_key = {key for run in said for key in run}
    values: dict[tuple[str, ...], set[str | None]] = defaultdict(set)
    for run in said:
        for key in every_key:
            values[_scope(key, run)].add(run.get(key))
    return [
        _variant(run, {key for key in run if len(values[_scope(key, run)]) > 1}) for run in said
    ]


def order(variant: Variant) -> tuple[int, int]:
    """Sort key: variants with fewest settings first, then by preprocess as in the paper's table."""
    settings = dict(variant.settings)
    known = list(PREPROCESSES)
    preprocess = settings.get("preprocess")
    return len(settings), known.index(preprocess) if preprocess in known else len(known)


def _left_out(key: str, value: Any, names: Sequence[str]) -> bool:  # noqa: ANN401
    none = value is None or (value == "none" and key not in OPTIONS)
    return none or any(key == name or key.startswith(f"{name}.") for name in names)


def _scope(key: str, run: Mapping[str, str]) -> tuple[str, ...]:
    """Scope in which a key is compared: a model's settings only between runs of that model."""
    group, _, inner = key.partition(".")
    return (key, run[group]) if inner and group in OPTIONS else (key,)


def _variant(run: Mapping[str, str], varying: set[str]) -> Variant:
    def place(key: str) -> tuple[int, str]:
        group = key.partition(".")[0]
        return OPTIONS.index(group) if group in OPTIONS else len(OPTIONS), key

    settings = tuple((key, run[key]) for key in sorted(varying, key=place))
    said = [run[key] if key in OPTIONS else f"{key}={run[key]}" for key, _ in settings]
    label = ", ".join(said) or run["preprocess"]
    papers = label == run["preprocess"] and run["model"] == PAPER_MODEL
    return Variant(settings, label, PAPER_NAMES.get(label, label) if papers else label)


def _text(value: Any) -> str:  # noqa: ANN401
    """A value as written on a command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
