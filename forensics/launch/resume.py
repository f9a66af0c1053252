"""The command line of a run that is resumed or sampled."""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from forensics.errors import UserError


def resumed_arguments(arguments: list[str]) -> list[str]:
    """The command line of an earlier run, with the changes of this one.

    Args:
        arguments: this command line; returned unchanged unless it has ``resume=FOLDER``, to resume
            the run in that folder, or ``sample=FOLDER``, to sample the generator trained there.

    Raises:
        UserError: if the folder has no run, or there are other arguments than settings.
    """
    names = [argument.lstrip("+").partition("=")[0] for argument in arguments]
    key = next((name for name in names if name in ("resume", "sample")), None)
    if key is None:
        return arguments
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            raise UserError(
                f"{key}=FOLDER accepts only settings KEY=VALUE as further arguments: leave out "
                f"{argument}."
            )
    parser = OverridesParser.create()
    new = {parsed.key_or_group: parsed for parsed in parser.parse_overrides(arguments)}
    folder = new[key].value()
    if folder is None:
        return arguments
    record = Path(str(folder)) / ".hydra"
    for file in ("overrides.yaml", "hydra.yaml"):
        if not (record / file).is_file():
            raise UserError(
                f"{key}={folder} is not a run folder: it has no .hydra/{file}; name one below "
                "outputs."
            )
    hydra = _load(record / "hydra.yaml").hydra
    if key == "sample" and hydra.job.config_name != "generate":
        raise UserError(f"sample={folder} is not a run of generate.py: name one that is.")
    options = ["--config-name", str(hydra.job.config_name)]
    for place in hydra.runtime.config_sources:
        if place.provider == "command-line":
            options += ["--config-dir", str(place.path)]
    saved = [str(override) for override in _load(record / "overrides.yaml")]
    arguments = [argument for argument in arguments if not argument.startswith("hydra.run.dir=")]
    if key == "resume":
        # The default of ``name`` contains the current time.
        saved = [f'name="{Path(hydra.runtime.output_dir).name}"', *saved]
        arguments.append(f'hydra.run.dir="{folder}"')
    else:
        saved = [override for override in saved if not override.startswith("name=")]
    kept = {parsed.key_or_group: parsed for parsed in parser.parse_overrides(saved)}
    # Plug-ins are imported only if the user names them, never because a file does.
    if "plugin" in kept and "plugin" not in new:
        given = kept["plugin"].input_line
        raise UserError(f"{key}={folder} was started with {given}: add it.", key="plugin")
    return [
        *options,
        *(str(parsed.input_line) for name, parsed in kept.items() if name not in new),
        *arguments,
    ]


def _load(path: Path) -> Any:  # noqa: ANN401
    try:
        return OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}): resume another run.") from error
