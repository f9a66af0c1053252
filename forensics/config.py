"""Root settings; the only place that registers anything with Hydra.

``conf/`` has the values; the dataclasses define the settings, their types and ranges.
"""

import copy
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict

from forensics.checks import dotted, expanded, plain
from forensics.data.ingest.found import found_sources
from forensics.data.settings import DatasetSettings
from forensics.detectors import DETECTORS, plugins
from forensics.errors import UserError
from forensics.evaluation.settings import EvaluateSettings
from forensics.generators import GENERATORS
from forensics.preprocess import PREPROCESSES
from forensics.preprocess.steps import Steps
from forensics.training.settings import GenerateSettings, TrainerSettings, TrainSettings

OPTIONS = {"model": DETECTORS, "preprocess": PREPROCESSES, "generator": GENERATORS}
"""Options of the groups whose options have different settings classes."""

Settings = TrainSettings | GenerateSettings | EvaluateSettings
S = TypeVar("S", TrainSettings, GenerateSettings, EvaluateSettings)


def register(arguments: Sequence[str] = ()) -> None:
    """Register the types behind ``conf/`` and those of plug-ins with Hydra.

    They are below ``schema/``, so that the groups themselves list options only; a plug-in's
    detector is an option, too, with the default values of its settings. Folders of sweeps are named
    with ``${plus:LIST}``.

    Args:
        arguments: the command line; the module of ``plugin=MODULE`` is imported.

    Raises:
        UserError: if a plug-in cannot be used.
    """
    plugins.load_installed()
    for argument in arguments:
        key, _, module = argument.partition("=")
        if key == "plugin" and module != "null":
            plugins.load_module(module)
    OmegaConf.register_new_resolver("plus", "+".join, replace=True)
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=TrainSettings)
    store.store(group="schema", name="dataset", node=DatasetSettings)
    store.store(group="schema", name="trainer", node=TrainerSettings)
    store.store(group="schema", name="generate", node=GenerateSettings)
    store.store(group="schema", name="evaluate", node=EvaluateSettings)
    for group, options in OPTIONS.items():
        for name, node in options.items():
            store.store(group=f"schema/{group}", name=name, node=node)
    for name in plugins.PLUGINS:
        store.store(group="model", name=name, node=DETECTORS[name])


def typed(config: DictConfig, kind: type[S]) -> S:
    """Turn a composed config into settings, with their ranges checked.

    The sources of ``dataset.find_layout`` are found here, so that settings have their names.

    Args:
        config: the composed config of any entry point.
        kind: the settings class of this entry point.

    Raises:
        UserError: if a value is out of range or missing, a key is unknown, or these are another
            program's settings.
    """
    if module := OmegaConf.select(config, "plugin"):
        plugins.load_module(module)  # a job's process may not have imported it yet
    _refuse_unknown(config, "")
    if OmegaConf.select(config, "dataset.find_layout") and not OmegaConf.is_missing(
        config.dataset, "root"
    ):
        config = _with_sources(config, testing=kind is EvaluateSettings)
    missing = OmegaConf.missing_keys(config)
    if missing:
        key = min(missing)
        raise UserError(f"{key} has no value: give it one with {key}=VALUE.")
    settings = OmegaConf.to_object(config)
    if not isinstance(settings, kind):
        raise UserError(
            "The run belongs to another program: resume runs of train.py with train.py, runs of "
            "generate.py with generate.py."
        )
    return settings


def _with_sources(config: DictConfig, *, testing: bool) -> DictConfig:
    """Fill in the sources that ``dataset.find_layout`` finds; values that are given remain."""
    dataset = config.dataset
    keys = ("real", "unseen_real", "generators", "pairs", "train_on", "folders", "below")
    set_ = {key: dataset[key] for key in keys if not OmegaConf.is_missing(dataset, key)}
    given: dict[str, Any] = {
        key: OmegaConf.to_object(value) for key, value in set_.items() if OmegaConf.is_config(value)
    }
    names = given.get("real", [])
    root = Path(expanded("dataset.root", dataset.root))
    folders = {name: Path(expanded("dataset.folders", given["folders"].get(name, str(root / name))))
               for name in names}  # fmt: skip
    found = found_sources(
        root,
        folders,
        given.get("generators"),
        given.get("train_on"),
        testing=testing,
    )
    found["unseen_real"] += given["unseen_real"]
    for key in ("folders", "below", "pairs"):
        found[key] |= given.get(key, {})
    config = copy.deepcopy(config)
    with open_dict(config.dataset):
        for key, value in found.items():
            config.dataset[key] = value
    return config


def _refuse_unknown(node: DictConfig, prefix: str) -> None:
    """Refuse unknown keys: Hydra lets ``+KEY=VALUE`` add any, which nothing would read.

    Keys that ``~KEY`` removed are refused, too.

    Untyped maps, such as ``dataset.folders``, accept any key.
    """
    kind = OmegaConf.get_type(node)
    known = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    for name in known or ():
        if name not in node.keys():  # noqa: SIM118 - values that are missing, too
            raise UserError(
                f"{prefix}{name} was removed: leave out ~{prefix}{name}.", key=f"{prefix}{name}"
            )
    for name in map(str, node):
        key = f"{prefix}{name}"
        if known is not None and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f"did you mean {prefix}{close[0]}?" if close else "leave it out."
            raise UserError(f"There is no setting {key}: {guess}", key=key)
        inner = node._get_node(name)
        if isinstance(inner, DictConfig) and not inner._is_missing() and not inner._is_none():
            _refuse_unknown(inner, f"{key}.")


def option(settings: object) -> str:
    """Name of the option, in one of the groups of `OPTIONS`, that a settings object belongs to.

    A composition has a name of its own.
    """
    if isinstance(settings, Steps):
        return settings.name
    pairs = (pair for options in OPTIONS.values() for pair in options.items())
    return next(name for name, kind in pairs if type(settings) is kind)


def flat(settings: Settings) -> dict[str, Any]:
    """Settings as the command line names them: options by their group, values by dotted keys."""
    groups = {group: getattr(settings, group, None) for group in OPTIONS}
    options = {group: option(value) for group, value in groups.items() if value}
    return options | dotted(plain(settings))
