"""A trained network as one file: weights and everything needed to use them.

The format is safetensors: numbers and text, without code. The text is a JSON object in sections;
``network`` has the network's name and settings. A checksum over the complete content detects
damaged files. Files of earlier formats are upgraded when they are read.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from forensics.errors import UserError
from forensics.files import atomic, parsed

FORMAT = 4

Content = dict[str, Any]
Upgrade = Callable[[Content, dict[str, Tensor]], tuple[Content, dict[str, Tensor]]]
"""Maps metadata and tensors of one format to those of the next."""


class ModelFile(NamedTuple):
    """A network read from its file.

    Attributes:
        model: the network, in evaluation mode, on the CPU.
        card: metadata of the file, see `save_model`.
        sha256: sha256 of the weights alone, independent of the metadata.
    """

    model: nn.Module
    card: dict[str, Any]
    sha256: str


def save_model(path: Path, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Write a network's file, atomically.

    Args:
        path: the file.
        model: the network.
        card: metadata, plain JSON values. Section ``network`` must have ``name`` (one of the
            options of its kind), ``settings`` and ``image_size``, and may have ``plugin``, the
            distribution or module with the network; the rest depends on the kind of file.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    text = json.dumps({"format": FORMAT, **card})
    metadata = {"forensics": text, "sha256": checksum(text, tensors)}
    with atomic(path) as file:
        file.write(save(tensors, metadata))


def load_model(
    path: Path, options: Mapping[str, type], upgrades: Mapping[int, Upgrade], **build: bool
) -> ModelFile:
    """Read a network's file; no code in it is run.

    Args:
        path: the file.
        options: permitted networks: settings classes by name, such as
            `forensics.detectors.DETECTORS`.
        upgrades: functions that upgrade to the next format, by format.
        build: further arguments of the settings' ``build``.

    Raises:
        UserError: if the file is missing, damaged, not written by `save_model`, of an unsupported
            format, or has an unknown network or setting.
    """

    def refused(reason: str) -> UserError:
        return UserError(f"{path} {reason}.", key=str(path))

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = f"cannot be read ({error}): name a run's folder or its .safetensors file"
        raise refused(reason) from error
    text = metadata.get("forensics")
    if text is None:
        raise refused("is a safetensors file of another program: name one written by a run")
    if metadata.get("sha256") != checksum(text, tensors):
        raise refused("is damaged, it does not match its own checksum: copy it again")
    try:
        card = dict(parsed(text))
        while (format_ := card["format"]) in upgrades and format_ != FORMAT:
            card, tensors = upgrades[format_](card, tensors)
        if format_ != FORMAT:
            raise refused(
                f"has format {format_}, this version reads up to {FORMAT}: use the version that "
                "wrote it"
            )
        network = card["network"]
        name, given, size = (network[key] for key in ("name", "settings", "image_size"))
        plugin = network.get("plugin")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise refused(f"has no usable metadata ({error!r}): copy it again") from error
    if str(name) not in options and plugin is not None:
        raise refused(
            f"has a {name} of the plug-in {plugin}, which is missing: install {plugin}, or name "
            f"its module with plugin={plugin} or --plugin {plugin}"
        )
    if str(name) not in options:
        raise refused(
            f"has a {name}, which is not among {', '.join(options)}: name another file, or use the "
            "version that wrote this one"
        )
    try:
        settings = options[str(name)](**given)
        # First without memory: damaged settings may describe a network larger than the weights.
        with torch.device("meta"), _WithoutFirstWeights():
            settings.build(size, **build).load_state_dict(tensors, assign=True)
        model = settings.build(size, **build)
        model.load_state_dict(tensors)
    except (
        UserError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise refused(
            f"does not fit this version's {name} ({reason}): use the version that wrote it"
        ) from error
    return ModelFile(model.eval(), card, checksum("", tensors))


class _WithoutFirstWeights(TorchFunctionMode):
    """Skips the initialisation of a network's weights.

    On the meta device it has no effect, but makes torch import its compiler: two seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return given.get("tensor", *args[:1])
        return func(*args, **given)


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """A sha256 in hexadecimal of a text and of tensors with their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because numpy lacks some of torch's types.
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
