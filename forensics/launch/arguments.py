"""Texts on a command line as their users typed them.

In Hydra's grammar ``1_000`` is a number, and ``~``, ``=``, ``(`` and letters beyond ASCII are
errors in an unquoted value. Names and paths may have any of them.
"""

import dataclasses
import os
import re
import typing
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

FOLDERS, QUOTES = "dataset.folders.", ("'", '"')

_ONE_FOLDER = ("resume", "sample")
"""Settings of one value, never a sweep's."""

_LIST_ELEMENT = re.compile(r"""(?<=[\[,])[^\[\],]+(?=[\],])""")
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*|0|[1-9](_?[0-9])*", re.ASCII)
_SPECIAL_IN_KEYS, _ESCAPED = re.compile(r"[()\[\]{}:=,\\\s]"), r"\\\g<0>"


def as_typed(arguments: list[str]) -> list[str]:
    """Quote names and paths where Hydra would read something else.

    Sources may have dots in their names in ``dataset.folders.NAME=FOLDER``, with ``+`` or without.
    Values with quotes or braces are left to Hydra's grammar, as are values with commas that are no
    lists: they may be a sweep's.

    Args:
        arguments: options and settings, as given to a program.
    """
    texts = _texts()
    return [_as_typed(argument, texts) for argument in arguments]


def _as_typed(argument: str, texts: set[str]) -> str:
    key, equals, value = argument.partition("=")
    if key in ("--config-dir", "-cd") and equals:  # which a shell leaves as it is
        return f"{key}={os.path.expanduser(value)}"
    name = key.lstrip("+")
    if name.startswith(FOLDERS) and equals:
        value = value if value[:1] in QUOTES else quoted(value)
        source = name.removeprefix(FOLDERS)
        if _PLAIN_KEY.fullmatch(source):
            return f"+{name}={value}"
        return f"+{FOLDERS[:-1]}={{{_SPECIAL_IN_KEYS.sub(_ESCAPED, source)}:{value}}}"
    if name not in texts or value.lower() in ("", "null") or value[0] in QUOTES:
        return argument
    if value.startswith("["):
        if re.search(r"""["'{}]""", value):
            return argument
        return f"{key}={_LIST_ELEMENT.sub(lambda one: _text(one[0].strip()), value)}"
    if "," not in value or name in _ONE_FOLDER:
        return f"{key}={_text(value)}"
    if re.search(r"""[()="'{}]""", value):  # a function such as choice(a, b), or a path
        return argument
    return f"{key}={','.join(_text(part.strip()) for part in value.split(','))}"


def quoted(text: str) -> str:
    """A text as a quoted value of Hydra's grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def _text(value: str) -> str:
    """A value that Hydra reads as this text; unchanged where it does so already."""
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return quoted(value)
    # A backslash may escape what follows the value.
    same = isinstance(read, str) and read == value and "\\" not in value
    return value if same else quoted(value)


def _texts() -> set[str]:
    """Keys of all settings that are texts or lists of texts; evaluate.py's are train.py's."""
    # Here, because commands that only score print their errors by this package, too.
    from forensics.detectors import DETECTORS
    from forensics.generators import GENERATORS
    from forensics.training.settings import GenerateSettings, TrainSettings

    settings = {"": (TrainSettings, GenerateSettings)}
    groups = {"model.": DETECTORS.values(), "generator.": GENERATORS.values()}
    keys = {key for prefix, kinds in (settings | groups).items()
            for kind in kinds for key in _texts_of(kind, prefix)}  # fmt: skip
    return {*keys, "detector", "hydra.run.dir", "hydra.sweep.dir"}


def _texts_of(settings: type, prefix: str) -> Iterator[str]:
    for name, kind in typing.get_type_hints(settings).items():
        if dataclasses.is_dataclass(kind):
            yield from _texts_of(typing.cast(type, kind), f"{prefix}{name}.")
        elif kind in (str, str | None, list[str]):
            yield f"{prefix}{name}"
