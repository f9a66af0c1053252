"""Training of the autoencoders of a resynthesis, several at once, with checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from forensics.compute import in_order, torch_threads
from forensics.errors import UserError
from forensics.generators import Resynthesis
from forensics.generators.resynthesis import BATCH, Critic, fit
from forensics.progress import Progress
from forensics.runs import CHECKPOINTS
from forensics.training import checkpoints


def fit_autoencoders(
    model: Resynthesis,
    rows: NDArray[np.uint8],
    seed: int,
    folder: Path,
    about: Mapping[str, Any],
    resumed: Path | None,
) -> list[float]:
    """Train every autoencoder that is not trained yet.

    Args:
        model: the autoencoders with fresh weights, on the device to compute on.
        rows: ``(n, S, S, 3)`` uint8, the images.
        seed: decides crops and critics, independently of which autoencoders train together.
        folder: the run's folder, for the checkpoint.
        about: metadata of the checkpoint: ``settings`` by dotted keys and ``images``, a hash of
            the images.
        resumed: a checkpoint with some trained autoencoders, or None.

    Returns:
        The error of each autoencoder in grey levels, see `forensics.generators.resynthesis.fit`.

    Raises:
        UserError: if the checkpoint has other images.
    """
    errors: dict[int, float] = {}
    weights: dict[int, dict[str, torch.Tensor]] = {}
    if resumed is not None:
        kept = checkpoints.load(resumed)
        if kept["images"] != about["images"]:
            raise UserError(
                "The images are not those that the run began with: restore them, or start a new "
                "run.",
                key="real",
            )
        errors, weights = kept["errors"], kept["state_dicts"]
    for number, state in weights.items():
        model.autoencoders[number].load_state_dict(state)
    # Sequentially, because initial weights come from torch's global generator.
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    critics = [Critic().to(device) for _ in range(len(model.autoencoders))]

    def train(number: int) -> tuple[int, float]:
        draws = np.random.default_rng([seed, number])
        return number, fit(model.autoencoders[number], critics[number], rows, draws)

    missing = [number for number in range(len(model.autoencoders)) if number not in errors]
    crops = [BATCH * autoencoder.architecture.steps for autoencoder in model.autoencoders]
    label = f"fit {len(missing)} autoencoders"
    with (
        torch_threads(1),
        Progress(label, sum(crops[number] for number in missing)) as progress,
    ):
        for number, error in in_order(train, missing, at_once=len(missing)):
            errors[number] = error
            weights[number] = model.autoencoders[number].state_dict()
            # Epoch 0, so that `checkpoints.to_resume` accepts any ``max_epochs``.
            content = {**about, "epoch": 0, "errors": errors, "state_dicts": weights}
            checkpoints.AtomicCheckpoints().save_checkpoint(
                content, folder / CHECKPOINTS / checkpoints.LAST
            )
            progress.advance(crops[number])
    return [errors[number] for number in range(len(model.autoencoders))]
