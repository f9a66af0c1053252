"""A trained network as one file: weights and everything needed to use them.

The format is safetensors, which holds numbers and text and can hold no code. The text is a JSON
object with the network's name and settings, of a detector also the rules images were prepared by
and the thresholds; a checksum over all of it tells a damaged file.
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

from forensics.atomic import atomic
from forensics.errors import UserError

FORMAT = 1


class ModelFile(NamedTuple):
    """A network read from its file.

    Attributes:
        model: the network, in evaluation mode, on the CPU.
        card: what the file says of it, see `save_model`.
        sha256: of the weights alone: the same network written twice has one.
    """

    model: nn.Module
    card: dict[str, Any]
    sha256: str


def save_model(path: Path, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Write a network's file, atomically.

    Args:
        path: the file.
        model: the network.
        card: must hold ``model`` (its name among the options of its kind), ``model_settings``
            and ``image_size``; all else is for whoever uses it. Plain JSON values.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    text = json.dumps({"format": FORMAT, **card}, sort_keys=True)
    metadata = {"forensics": text, "sha256": checksum(text, tensors)}
    with atomic(path) as file:
        file.write(save(tensors, metadata))


def load_model(path: Path, options: Mapping[str, type]) -> ModelFile:
    """Read a network's file; nothing in it is run.

    Args:
        path: the file.
        options: settings by name, such as `forensics.detectors.DETECTORS`: what may be in it.

    Raises:
        UserError: if it is missing, damaged, no file of `save_model`, of another format, or of a
            network or setting that this version does not know.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is no readable file of a network ({error}): name a .safetensors file "
            "that a run has left."
        ) from error
    text = metadata.get("forensics")
    if text is None:
        raise UserError(
            f"{path} is a safetensors file, but of no network of ours: name one that a "
            "run has left."
        )
    if metadata.get("sha256") != checksum(text, tensors):
        raise UserError(f"{path} is damaged: it does not match its own checksum; copy it anew.")
    try:
        card = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} does not say what it holds ({error}): copy it anew.") from error
    lacking = {"format", "model", "model_settings", "image_size"} - card.keys()
    if lacking:
        raise UserError(f"{path} says nothing of {', '.join(sorted(lacking))}: copy it anew.")
    if card["format"] != FORMAT:
        raise UserError(
            f"{path} has format {card['format']}, this version reads {FORMAT}: use the version "
            f"that wrote it, {card.get('version', 'unknown')}."
        )
    settings = options.get(str(card["model"]))
    if settings is None:
        raise UserError(
            f"{path} holds a {card['model']}, which is not among {', '.join(options)}: name "
            "another file, or use the version that wrote this one."
        )
    try:
        network = settings(**card["model_settings"])
        # Without memory first: settings may ask for more of it than the file has weights for.
        with torch.device("meta"), _WithoutFirstWeights():
            network.build(card["image_size"]).load_state_dict(tensors, assign=True)
        model = network.build(card["image_size"])
        model.load_state_dict(tensors)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise UserError(
            f"{path} does not fit this version's {card['model']} "
            f"({' '.join(str(error).split())[:200]}): use the version that wrote it."
        ) from error
    return ModelFile(model.eval(), card, checksum("", tensors))


class _WithoutFirstWeights(TorchFunctionMode):
    """Leaves out drawing a network's first weights.

    Without memory there is nothing to draw, but torch imports its compiler for it: two seconds.
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
        # As bytes, because numpy does not know all of torch's types.
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
