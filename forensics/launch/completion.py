"""Completion of a program's settings in a shell.

Hydra has its own, which takes seconds, because it composes the configuration of a program with all
its imports. This one reads the names of groups, options and keys from the files of ``conf/``.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


def completer(conf: Path, name: str) -> Callable[..., list[str]]:
    """The settings that a program has, for ``argcomplete``.

    Args:
        conf: the folder of all settings.
        name: the program.

    Returns:
        A function of the word to complete and the parsed arguments, whose ``settings`` are the
        words before it; returns the words that it may become.
    """

    def complete(prefix: str, parsed_args: Any, **_: object) -> list[str]:  # noqa: ANN401
        given = dict(
            word.split("=", 1)
            for word in getattr(parsed_args, "settings", None) or ()
            if "=" in word
        )
        return [word for word in _words(conf, name, prefix, given) if word.startswith(prefix)]

    return complete


def _words(conf: Path, name: str, prefix: str, given: Mapping[str, str]) -> Iterator[str]:
    """All settings of a program; after ``GROUP=``, the options of the group."""
    content = _read(conf / f"{name}.yaml")
    groups: dict[str, str] = {}
    for entry in content.pop("defaults"):
        if isinstance(entry, dict):
            groups |= entry
    group, equals, value = prefix.partition("=")
    if equals and group in groups:
        earlier = prefix[: len(prefix) - len(value.rpartition(",")[2])]  # of a sweep
        yield from (f"{earlier}{path.stem}" for path in sorted((conf / group).glob("*.yaml")))
        return
    del content["hydra"]
    yield from (f"{group}=" for group in groups)
    yield from (f"{key}=" for key in _dotted(content))
    for group, default in groups.items():
        chosen = conf / group / f"{given.get(group, default).partition(',')[0]}.yaml"
        yield from (f"{group}.{key}=" for key in sorted(set(_keys(conf, chosen))))


def _keys(conf: Path, file: Path) -> Iterator[str]:
    """The keys of an option, and of the files that it is based on."""
    content = _read(file)
    for entry in content.pop("defaults", []):
        base = str(entry).partition("@")[0]
        yield from _keys(
            conf, (conf / base[1:] if base[0] == "/" else file.parent / base).with_suffix(".yaml")
        )
    yield from _dotted(content)


def _read(file: Path) -> dict[str, Any]:
    """A file of settings; empty for one that is no file, such as a type or a plug-in's."""
    return dict(yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}


def _dotted(content: Mapping[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from (f"{key}.{inner}" for inner in _dotted(value))
        else:
            yield key
