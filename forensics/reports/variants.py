"""Variants: the settings that differ between the runs of a study."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from forensics.checks import dotted
from forensics.preprocess import PREPROCESSES

Settings = Mapping[str, Any]
"""Settings by dotted keys, with the options ``model`` and ``preprocess`` beside them."""

OPTIONS = ("model", "preprocess")
"""Groups of settings that an option's name stands for."""

NO_VARIANT = (
    "seed", "name", "resume", "plugin", "dataset.root", "dataset.folders", "dataset.train_on",
)  # fmt: skip
"""Settings, or groups of them, that make no variant: training sources are an axis of their own."""

CIRCUMSTANCES = ("trainer", "perturb", "cache_dir")
"""Settings, or groups of them, that make variants only of runs that nothing else tells apart."""

MOVED = {"learning_rate": "model.learning_rate", "betas": "model.betas"}
"""Settings that earlier versions had elsewhere."""

PAPER_MODEL = "dcgan_discriminator"
PAPER_NAMES = {"none": "M", "blur": "M_GB", "noise": "M_GN"}
"""The detector of arXiv 1902.11153, and what it is called by its preprocess."""


class Variant(NamedTuple):
    """One way to train, of those that a study compares.

    Attributes:
        settings: those that vary over the study, by dotted key, as a command line gives them.
        label: the same in words.
        name: the paper's where the variant is one of the paper's, else the label.
    """

    settings: tuple[tuple[str, str], ...]
    label: str
    name: str


def training_set(generators: Sequence[str]) -> str:
    """Name the generators that were trained on, as tables do."""
    return "+".join(generators) or "real images alone"


def trained_with(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run of train.py by dotted keys, from its ``result.json``."""
    settings = dotted(result["settings"]) | {name: result[name] for name in OPTIONS}
    return {MOVED.get(key, key): value for key, value in settings.items()}


def variants(runs: Sequence[Settings], left_out: Sequence[str]) -> list[Variant]:
    """The variant of each run.

    Args:
        runs: the settings of each.
        left_out: settings, or groups of them, that make no variant.

    A setting that one run has and another lacks differs, unless it is none. Settings of a model
    or preprocess count only between runs of the same one: between others its name says it all.
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
    """Plain ones first, then by preprocess as in the paper's table; for a stable sort."""
    settings = dict(variant.settings)
    known = list(PREPROCESSES)
    preprocess = settings.get("preprocess")
    return len(settings), known.index(preprocess) if preprocess in known else len(known)


def _left_out(key: str, value: Any, names: Sequence[str]) -> bool:  # noqa: ANN401
    none = value is None or (value == "none" and key not in OPTIONS)
    return none or any(key == name or key.startswith(f"{name}.") for name in names)


def _scope(key: str, run: Mapping[str, str]) -> tuple[str, ...]:
    """Runs in which a key may be compared: of a model's settings those of the same model."""
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
    """A value as a command line gives it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
