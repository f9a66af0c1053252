"""The lines of epochs and the grid of preprocessed images."""

from __future__ import annotations

import itertools
import logging
import warnings
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from forensics.data.datamodule import Batch
from forensics.training.callbacks import ProgressOfImages, Shown, before_and_after


class Given(pl.LightningModule):
    """Logs given validation losses, one for each epoch, and the epoch's number as train/loss."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.losses = losses

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401
        return self.weight * 0

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", float(self.current_epoch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        self.log("val/loss", self.losses[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Data(pl.LightningDataModule):
    """One batch of nothing."""

    batch_size = 1

    def train_dataloader(self) -> DataLoader[Batch]:
        batch = Batch(torch.zeros(1, 3, 2, 2), torch.ones(1), torch.zeros(1), 0, 0)
        return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def lines_of(losses: list[float], tmp_path: Any, caplog: pytest.LogCaptureFixture) -> list[str]:  # noqa: ANN401
    best = ModelCheckpoint(
        tmp_path, "best", monitor="val/loss", mode="min", save_on_train_epoch_end=True
    )
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "forensics"):
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=len(losses), logger=False,
            callbacks=[ProgressOfImages(), best], enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(Given(losses), datamodule=Data())
    return [line for line in caplog.messages if line.startswith("epoch")]


def test_a_line_for_each_epoch_has_its_own_losses_and_marks_the_best_so_far(
    tmp_path: Any,  # noqa: ANN401
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert lines_of([0.5, 0.25, 0.25, 0.75, 0.125], tmp_path, caplog) == [
        "epoch 1 of 5: train/loss 0.00, val/loss 0.500, best so far",
        "epoch 2 of 5: train/loss 1.00, val/loss 0.250, best so far",
        "epoch 3 of 5: train/loss 2.00, val/loss 0.250",  # not better: the earlier one is kept
        "epoch 4 of 5: train/loss 3.00, val/loss 0.750",
        "epoch 5 of 5: train/loss 4.00, val/loss 0.125, best so far",
    ]


class TestGrid:
    def test_marks_the_class_of_each_image_and_keeps_captions_inside(self) -> None:
        images = torch.rand(4, 3, 32, 32) * 255
        names = ("kernel_size", "standard_deviation", "probability_of_jpeg")
        strengths = {name: torch.arange(4) / 3 for name in names}
        shown = Shown(images, images, torch.tensor([1.0, 1.0, 0.0, 0.0]), strengths)
        figure = before_and_after([shown, shown._replace(strengths={})])
        figure.draw_without_rendering()
        first, second = figure.axes
        assert [label.get_text() for label in first.get_xticklabels()] == [
            "real", "real", "generated", "generated",
        ]  # fmt: skip
        assert second.get_title(loc="left") == "batch 2: unchanged"
        caption = first.get_title(loc="left")
        assert "kernel size 0, 0.333, 0.667, 1" in " ".join(caption.split())
        whole = figure.bbox
        labels = [*first.get_xticklabels(), *first.get_yticklabels(), *second.get_xticklabels()]
        boxes = [text.get_window_extent() for text in [first._left_title, *labels]]  # type: ignore[attr-defined]
        for box in boxes:
            assert whole.x0 <= box.x0
            assert box.x1 <= whole.x1
        columns = [label.get_window_extent() for label in first.get_xticklabels()]
        for left, right in itertools.pairwise(columns):
            assert left.x1 < right.x0
        # TensorBoard's card has about 350 px of the figure's 1000.
        assert columns[0].height * 350 / whole.width >= 6

    def test_shows_the_images_above_their_copies(self) -> None:
        before, after = torch.full((1, 3, 8, 8), 10.0), torch.full((1, 3, 8, 8), 200.0)
        figure = before_and_after([Shown(before, after, torch.ones(1), {})])
        shown = figure.axes[0].images[0].get_array()
        assert shown is not None
        assert shown.shape == (16, 8, 3)
        assert (shown[:8] == 10).all()
        assert (shown[8:] == 200).all()
