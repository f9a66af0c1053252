"""The command line of a run that is resumed or sampled.

A folder may come from anywhere, so its files are data: of ``.hydra/config.yaml`` only values of our
own settings are used, as one more config that Hydra checks against their types. Nothing of it
reaches Hydra's own settings, names a class or a config folder, or reads the environment.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, OmegaConf

from forensics.checks import expanded
from forensics.detectors.card import current
from forensics.errors import UserError
from forensics.generators import GENERATORS, TRAINED
from forensics.launch.arguments import quoted
from forensics.training.settings import GenerateSettings, TrainSettings

RESUMED = "resumed"
"""Name of the config with a folder's settings."""

GROUPS = ("model", "preprocess", "generator")
"""Groups whose options have settings of their own."""

_REFERENCE = re.compile(r"\$\{")
_COMPUTED = re.compile(r"\$\{.*:", re.DOTALL)
"""What may be computed from anything but other settings; even a resolver's name may be."""

_RECORD = ("config.yaml", "hydra.yaml", "overrides.yaml")


def resumed_arguments(arguments: list[str]) -> list[str]:
    """A command line that continues an earlier run, with the changes of this one.

    Args:
        arguments: this command line; returned unchanged unless it has ``resume=FOLDER``, to resume
            the run in that folder, or ``sample=FOLDER``, to sample the generator trained there. The
            result may be given again, as Lightning does to start a process for each device.

    Raises:
        UserError: if the folder has no run or one with anything but our settings, or there are
            other arguments than settings and ``--config-dir``.
    """
    names = [argument.lstrip("+").partition("=")[0] for argument in arguments]
    key = next((name for name in names if name in ("resume", "sample")), None)
    if key is None:
        return arguments
    if f"{key}=null" in (argument.lstrip("+") for argument in arguments):
        return arguments
    options, given = _split(arguments, key)
    parsed = OverridesParser.create().parse_overrides(given)
    new = {override.key_or_group: override.value() for override in parsed}
    folder = Path(expanded(key, str(new[key])))
    record, choices = _record(folder, key)
    program = "generate" if "generator" in record else "train"
    if key == "sample" and program != "generate":
        raise UserError(f"sample={folder} is not a run of generate.py: name one that is.", key=key)
    # Plug-ins are imported only if the user names them, never because a file does.
    plugin = record.pop("plugin", None)
    if plugin is not None and "plugin" not in new:
        raise UserError(f"{key}={folder} was started with plugin={plugin}: add it.", key="plugin")
    for group in set(choices) & set(new):  # the settings are another option's
        del record[group]
    overridden = [{f"override {group}": choice} for group, choice in choices.items()]
    if MISSING in record.get("dataset", {}).values():  # a layout's, which are found again
        overridden.append({"override dataset": "folders"})
    defaults = {"defaults": [program, *overridden, "_self_"]}
    ConfigStore.instance().store(RESUMED, defaults | record)
    if key == "resume":
        if str(folder) != new.get("hydra.run.dir", str(folder)):
            raise UserError("resume=FOLDER continues in its folder: leave out hydra.run.dir.")
        if "hydra.run.dir" not in new:
            given.append(f"hydra.run.dir={quoted(str(folder))}")
        if "name" not in new:  # its default contains the current time
            given.append(f"name={quoted(folder.resolve().name)}")
    return ["--config-name", RESUMED, *options, *given]


def _split(arguments: list[str], key: str) -> tuple[list[str], list[str]]:
    """Options that name a config folder, and settings.

    Raises:
        UserError: if there is another option.
    """
    options, given = [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name in ("--config-name", "-cn", "--config-dir", "-cd"):
            value = [] if equals else [next(rest, "")]
            if [name, *value] != ["--config-name", RESUMED]:
                options += [argument, *value]
        elif argument.startswith("-") or not equals:
            raise UserError(
                f"{key}=FOLDER accepts only settings KEY=VALUE as further arguments: leave out "
                f"{argument}."
            )
        else:
            given.append(argument)
    return options, given


def _record(folder: Path, key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that a run was started with, and the options of its groups.

    Raises:
        UserError: if they are missing, or there is anything besides our settings.
    """
    config, hydra, overrides = (_load(folder, name, key) for name in _RECORD)

    def refused(reason: str) -> UserError:
        return UserError(f"{key}={folder} is refused, because its record {reason}.", key=key)

    for override in overrides:
        # Hydra's own are recorded elsewhere, so this program has not written these.
        if re.match(r"[+~]*hydra\b|~", str(override)) or "_target_" in str(override):
            raise refused(f"has the override {override}")
    kinds = (TrainSettings, GenerateSettings)
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    if not isinstance(config, dict) or not config:
        raise refused("has no settings")
    for name in config:
        if name not in known:
            raise refused(f"has {name}, which is no setting of a run")
    settings = {name: value for name, value in config.items()
                if name not in ("name", "resume", "sample")}  # fmt: skip
    _refuse_texts(_COMPUTED, settings, refused)
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
        every = hydra["hydra"]["runtime"]["choices"]
        choices = {group: str(every[group]) for group in GROUPS if group in settings}
    except Exception as error:
        raise refused(f"cannot be read ({error})") from error
    _refuse_texts(_REFERENCE, content, refused)  # put together from several values
    for group in (*choices, "dataset", "trainer"):
        if not isinstance(settings.get(group, {}), dict):
            raise refused(f"has {group}={settings[group]}")
    for group, choice in choices.items():
        # Only names of options: Hydra would follow a path to a file elsewhere.
        if not choice.isidentifier() or choice in set(GENERATORS) - set(TRAINED):
            raise refused(f"has {group}={choice}, which is not trained here")
    if "model" in choices:  # a run of an earlier version may lack some
        groups = {group: dict(content.get(group, {})) for group in ("model", "dataset")}
        given = {f"{group}.{name}": of for group, named in groups.items()
                 for name, of in named.items()}  # fmt: skip
        for key_, of in current({"model": choices["model"]} | given).items():
            group, _, name = key_.partition(".")
            if name:
                groups[group][name] = of
        content |= groups
    return {str(name): value for name, value in content.items()}, choices


def _refuse_texts(
    pattern: re.Pattern[str],
    value: Any,  # noqa: ANN401
    refused: Callable[[str], UserError],
) -> None:
    """Refuse texts in which a pattern is found, anywhere in containers."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            _refuse_texts(pattern, inner, refused)
    elif isinstance(value, str) and pattern.search(value):
        raise refused(f"has the value {value}")


def _load(folder: Path, name: str, key: str) -> Any:  # noqa: ANN401
    path = folder / ".hydra" / name
    if not path.is_file():
        raise UserError(
            f"{key}={folder} is not a run folder: it has no .hydra/{name}; name one below outputs.",
            key=key,
        )
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}): {key} another run.") from error
