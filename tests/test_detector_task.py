"""The training loop of a detector, against the same training written out by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from sklearn.metrics import accuracy_score, log_loss, recall_score, roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from forensics.data.datamodule import Batch
from forensics.detectors import Detector
from forensics.detectors.base import Optimization, Schedule, Step
from forensics.errors import UserError
from forensics.preprocess.base import Draws
from forensics.training.detector_task import DetectorTask

SEED = 7
SIZE = 4
SETTINGS = {"seed": SEED, "model.learning_rate": 0.05}


def adam(**changes: Any) -> Optimization:  # noqa: ANN401
    """Settings whose every value shows after some steps."""
    usual: dict[str, Any] = {"learning_rate": 0.05, "betas": [0.5, 0.9], "weight_decay": 0.1}
    constant = {"schedule": Schedule.constant, "warmup_epochs": 0.0}
    return Optimization(**(usual | constant | changes))


class Linear(Detector):
    """A logistic model of the mean colour, which keeps what it was given."""

    def __init__(self, optimization: Optimization) -> None:
        super().__init__(optimization)
        self.score = nn.Linear(3, 1)
        self.drawn: list[tuple[int, int]] = []
        self.torch_seeds: list[int] = []
        self.scored: list[Tensor] = []
        self.contiguous: list[bool] = []
        self.prepared: list[Tensor] = []
        self.after_steps = 0

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(images.mean(dim=(2, 3)) / 255).squeeze(1)
        return scores

    def remember(self, images: Tensor, scores: Tensor, draws: Draws) -> None:
        """What a training step was given and gave."""
        if self.training:
            self.drawn.append((draws.shared.initial_seed(), draws.own.initial_seed()))
            self.torch_seeds.append(torch.initial_seed())
            self.scored.append(scores.detach())
            self.contiguous.append(images.is_contiguous(memory_format=torch.channels_last))

    def after_step(self) -> None:
        self.after_steps += 1

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        assert not self.scored  # before the first step
        self.prepared += [labels for _, labels in batches]


class Plain(Linear):
    """With the default step, which makes its scores logits."""

    def __init__(self, optimization: Optimization) -> None:
        super().__init__(optimization)
        self.register_forward_pre_hook(lambda _, given: self._before(given[0]))
        self.register_forward_hook(lambda _, __, scores: self._after(scores))

    def _before(self, images: Tensor) -> None:
        self._images = images

    def _after(self, scores: Tensor) -> None:
        draws = Draws(torch.Generator(), torch.Generator())
        self.remember(self._images, scores, draws)


class Hinge(Linear):
    """With a loss of its own, in another unit, and a further number to log."""

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        scores = self(images)
        self.remember(images, scores, draws)
        loss = (1 - (2 * labels - 1) * scores).relu().mean()
        return Step(loss, scores, {"margin": scores.abs().mean()})


class ClosedForm(Linear):
    """Nothing trains by gradient, and a step scores nothing."""

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        return Step(None, None)

    def optimizer(self) -> None:
        return None


@dataclass
class Images:
    """Batches of training, whose last is as large as others, and of validation, which are not."""

    training: list[tuple[Tensor, Tensor]]
    validation: list[tuple[Tensor, Tensor]]

    @classmethod
    def make(cls, batches: int = 3, sizes: tuple[int, ...] = (7, 2)) -> Images:
        draws = torch.Generator().manual_seed(0)

        def batch(size: int) -> tuple[Tensor, Tensor]:
            labels = (torch.arange(size) % 2 == 0).float()
            noise = 255 * torch.rand((size, 3, SIZE, SIZE), generator=draws)
            return 0.7 * noise + 60 * labels[:, None, None, None], labels

        return cls([batch(6) for _ in range(batches)], [batch(size) for size in sizes])


class Data(pl.LightningDataModule):
    """Those batches, the same in each epoch."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self._images = images

    def _batches(self, of: list[tuple[Tensor, Tensor]], epoch: int) -> DataLoader[Any]:
        batches = [
            Batch(images, labels, torch.arange(len(labels)), epoch, number)
            for number, (images, labels) in enumerate(of)
        ]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        return self._batches(self._images.training, self.trainer.current_epoch)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._batches(self._images.validation, 0)

    def prepared_batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._images.training


class Epochs(pl.Callback):
    """What was logged and the weights after each epoch, and each step's numbers."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.steps: list[dict[str, float]] = []
        self.rates: list[float] = []
        self.validations = 0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.rates += [group["lr"] for one in trainer.optimizers for group in one.param_groups]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        step = {n: float(v) for n, v in trainer.callback_metrics.items() if n.endswith("_step")}
        self.steps.append(step)

    def on_validation_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.validations += 1

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DetectorTask)
        self.weights.append(copy.deepcopy(module.detector.state_dict()))

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.logged.append({})

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self._end(trainer)

    def on_fit_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._end(trainer)

    def _end(self, trainer: pl.Trainer) -> None:
        if self.logged:
            self.logged[-1] = {n: float(v) for n, v in trainer.callback_metrics.items()}


def fit(
    detector: Linear, images: Images, epochs: int = 3, *, channels_last: bool = False
) -> tuple[Epochs, DetectorTask, pl.Trainer]:
    """Train; returns what was seen."""
    seen = Epochs()
    task = DetectorTask(detector, SEED, SETTINGS, SIZE, channels_last=channels_last)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[seen], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, log_every_n_steps=1, reload_dataloaders_every_n_epochs=1,
    )  # fmt: skip
    trainer.fit(task, datamodule=Data(images))
    return seen, task, trainer


def made(kind: type[Linear] = Plain, **changes: Any) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    return kind(adam(**changes))


# What Lightning says to everyone; `forensics.training.trainer` gives the reasons.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec."),
    pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None."),
    pytest.mark.filterwarnings("ignore:.*training_step. returned .None."),
]


def by_hand(images: Images, epochs: int) -> Linear:
    """The same training as a plain loop of torch."""
    detector: Linear = made(Linear)
    optimizer = torch.optim.Adam(detector.parameters(), 0.05, (0.5, 0.9), weight_decay=0.1)
    for _ in range(epochs):
        for batch, labels in images.training:
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(detector(batch), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return detector


class TestTraining:
    def test_weights_are_those_of_a_plain_loop_of_adam(self) -> None:
        images = Images.make()
        detector = made()
        fit(detector, images)
        for name, expected in by_hand(images, 3).state_dict().items():
            torch.testing.assert_close(detector.state_dict()[name], expected)

    def test_prepare_comes_once_before_the_first_step_and_after_step_after_each(self) -> None:
        images = Images.make()
        detector = made()
        fit(detector, images)
        assert [len(one) for one in detector.prepared] == [6, 6, 6]
        assert detector.after_steps == 9

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_layout_is_as_set(self, channels_last: bool) -> None:
        detector = made()
        fit(detector, Images.make(), 1, channels_last=channels_last)
        assert set(detector.contiguous) == {channels_last}

    def test_draws_are_those_of_the_batchs_place(self) -> None:
        detector = made(Hinge)
        fit(detector, Images.make(2), 2)
        places = [Draws.at(SEED, epoch, number) for epoch in (0, 1) for number in (0, 1)]
        expected = [(one.shared.initial_seed(), one.own.initial_seed()) for one in places]
        assert detector.drawn == expected

    def test_torchs_generator_is_seeded_by_place_alone_and_apart_from_the_draws(self) -> None:
        first, again, other = made(Hinge), made(Hinge), made(Hinge)
        fit(first, Images.make(3), 2)
        torch.manual_seed(1)
        fit(again, Images.make(3), 2)
        fit(other, Images.make(2), 2)
        assert first.torch_seeds == again.torch_seeds
        assert len({*first.torch_seeds, *(one for both in first.drawn for one in both)}) == 18
        assert other.torch_seeds == [first.torch_seeds[place] for place in (0, 1, 3, 4)]

    def test_devices_seed_torchs_generator_differently(self) -> None:
        from forensics.training.detector_task import _global_seed

        batch = Batch(torch.empty(0), torch.empty(0), torch.empty(0), 0, 0)
        assert _global_seed(SEED, batch, 0) != _global_seed(SEED, batch, 1)

    def test_a_schedule_sets_the_rate_of_each_step(self) -> None:
        seen, _, _ = fit(made(schedule="cosine", warmup_epochs=1), Images.make(4), 3)
        rises = [0.05 * step / 4 for step in (1, 2, 3)]
        falls = [0.05 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)]
        assert seen.rates == pytest.approx([*rises, *falls])

    def test_without_a_schedule_the_rate_stays(self) -> None:
        seen, task, _ = fit(made(), Images.make(2), 2)
        assert seen.rates == [0.05] * 4
        assert isinstance(task.configure_optimizers(), torch.optim.Adam)

    def test_checkpoints_have_the_settings(self) -> None:
        checkpoint: dict[str, Any] = {}
        DetectorTask(made(), SEED, SETTINGS, SIZE, channels_last=False).on_save_checkpoint(
            checkpoint
        )
        assert checkpoint == {"settings": SETTINGS}


class TestLogged:
    def test_training_metrics_are_of_the_epochs_own_steps(self) -> None:
        images = Images.make(4)
        detector = made()
        seen, _, _ = fit(detector, images)
        labels = torch.cat([labels for _, labels in images.training]).numpy()
        for epoch, logged in enumerate(seen.logged):
            scores = torch.cat(detector.scored[4 * epoch : 4 * epoch + 4]).numpy()
            called = scores >= 0
            assert logged["train/loss"] == pytest.approx(_nll(labels, scores), rel=1e-5)
            assert logged["train/accuracy"] == pytest.approx(accuracy_score(labels, called))
            assert logged["train/tpr"] == pytest.approx(recall_score(labels, called))
            tnr = recall_score(labels, called, pos_label=0)
            assert logged["train/tnr"] == pytest.approx(tnr)
        assert len({logged["train/loss"] for logged in seen.logged}) == 3

    def test_validation_metrics_weigh_images_alike_and_begin_anew_each_epoch(self) -> None:
        images = Images.make(sizes=(7, 2, 1))
        detector = made()
        seen, _, _ = fit(detector, images)
        every = torch.cat([batch for batch, _ in images.validation])
        labels = torch.cat([labels for _, labels in images.validation]).numpy()
        assert len(seen.logged) == len(seen.weights) == 3
        for logged, weights in zip(seen.logged, seen.weights, strict=True):
            scorer = Linear(adam())
            scorer.load_state_dict(weights)
            with torch.inference_mode():
                scores = scorer(every).numpy()
            called = scores >= 0
            assert logged["val/loss"] == pytest.approx(_nll(labels, scores), rel=1e-5)
            assert logged["val/auroc"] == pytest.approx(roc_auc_score(labels, scores))
            assert logged["val/accuracy"] == pytest.approx(accuracy_score(labels, called))
            assert logged["val/tpr"] == pytest.approx(recall_score(labels, called))
            tnr = recall_score(labels, called, pos_label=0)
            assert logged["val/tnr"] == pytest.approx(tnr)
        assert len({logged["val/loss"] for logged in seen.logged}) == 3

    def test_scores_within_0_and_1_are_logits_all_the_same(self) -> None:
        detector = made(learning_rate=1e-9)
        with torch.no_grad():
            detector.score.weight.zero_()
            detector.score.bias.fill_(0.3)  # above 0, so every image is called real
        seen, _, _ = fit(detector, Images.make(sizes=(8,)), 1)
        for part in ("train", "val"):
            assert (seen.logged[0][f"{part}/tpr"], seen.logged[0][f"{part}/tnr"]) == (1, 0)

    def test_auroc_is_of_the_scores_where_their_sigmoids_tie(self) -> None:
        detector = made(learning_rate=1e-9)
        with torch.no_grad():
            detector.score.weight.fill_(1e4)
        images = Images.make(sizes=(40,))
        seen, _, _ = fit(detector, images, 1)
        ((batch, labels),) = images.validation
        expected = roc_auc_score(labels.numpy(), batch.mean(dim=(1, 2, 3)).numpy())
        assert 0.5 < seen.logged[0]["val/auroc"] == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_one_class_alone_has_no_auroc(self, label: float) -> None:
        images = Images.make()
        for _, labels in images.validation:
            labels.fill_(label)
        seen, _, _ = fit(made(), images, 1)
        assert "val/loss" in seen.logged[0]
        assert "val/auroc" not in seen.logged[0]

    def test_a_loss_of_ones_own_has_no_accuracies(self) -> None:
        images = Images.make(12)
        detector = made(Hinge)
        seen, _, _ = fit(detector, images, 1)
        names = {"train/loss", "train/loss_step", "train/margin_step", "val/loss", "val/auroc"}
        assert seen.logged[0].keys() == names
        # Of every tenth step.
        assert [bool(step) for step in seen.steps] == [*[False] * 9, True, True, True]
        tenth = detector.scored[9].abs().mean()
        assert seen.steps[9]["train/margin_step"] == pytest.approx(float(tenth))
        _, labels = images.training[9]
        losses = 1 - (2 * labels - 1) * detector.scored[9]
        assert seen.steps[9]["train/loss_step"] == pytest.approx(float(losses.relu().mean()))

    def test_what_no_gradient_trains_is_scored(self) -> None:
        images = Images.make(sizes=(40, 3))
        detector = made(ClosedForm)
        seen, _, _ = fit(detector, images, 1)
        labels = torch.cat([labels for _, labels in images.validation])
        with torch.inference_mode():
            scores = torch.cat([detector(batch) for batch, _ in images.validation])
        expected = roc_auc_score(labels.numpy(), scores.numpy())
        assert seen.logged[0] == {"val/auroc": pytest.approx(expected)}


class Breaking(Hinge):
    """Its loss, or its weights, are no number from one step on."""

    breaks_at, in_loss = 10**9, True

    def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
        step = super().step(images, labels, draws)
        assert step.loss is not None
        if self.in_loss and self.training and len(self.scored) == self.breaks_at:
            return step._replace(loss=step.loss * torch.nan)
        return step

    def after_step(self) -> None:
        super().after_step()
        if not self.in_loss and self.after_steps == self.breaks_at:
            with torch.no_grad():
                self.score.bias.fill_(torch.nan)


def broken(at: int, *, in_loss: bool, batches: int = 4) -> tuple[UserError, Breaking]:
    """The error of a training that breaks at a step, from 1."""
    detector: Breaking = made(Breaking)
    detector.breaks_at, detector.in_loss = at, in_loss
    with pytest.raises(UserError) as caught:
        fit(detector, Images.make(batches), 3)
    assert caught.value.key == "model.learning_rate"
    return caught.value, detector


class TestNotFinite:
    def test_a_loss_stops_the_run_before_the_epoch_is_validated(self) -> None:
        error, detector = broken(6, in_loss=True)
        assert "epoch 2" in str(error)
        assert "earlier epochs are kept" in str(error)
        assert len(detector.scored) == 8

    def test_in_the_first_epoch_nothing_is_kept(self) -> None:
        error, _ = broken(2, in_loss=True)
        assert "epoch 1" in str(error)
        assert "kept" not in str(error)

    def test_a_long_epoch_is_not_trained_to_its_end(self) -> None:
        _, detector = broken(3, in_loss=True, batches=40)
        assert len(detector.scored) == 10

    def test_one_finite_step_does_not_hide_an_earlier_one(self) -> None:
        # The loss alone is no number, the weights would stay: step 3 of 4 is finite again.
        class Recovering(Breaking):
            def step(self, images: Tensor, labels: Tensor, draws: Draws) -> Step:
                step = Hinge.step(self, images, labels, draws)
                assert step.loss is not None
                if self.training and len(self.scored) == 2:
                    return step._replace(loss=step.loss + step.loss.detach() * torch.inf)
                return step

        with pytest.raises(UserError, match="epoch 1"):
            fit(made(Recovering), Images.make(4), 1)

    def test_weights_broken_by_the_last_step_stop_the_run_at_its_validation(self) -> None:
        error, detector = broken(4, in_loss=False)
        assert "epoch 1" in str(error)
        assert len(detector.scored) == 4

    def test_scores_without_a_number_have_no_auroc(self) -> None:
        detector = made(ClosedForm)
        with torch.no_grad():
            detector.score.bias.fill_(torch.nan)
        seen, _, _ = fit(detector, Images.make(), 1)
        assert seen.logged == [{}]


def _nll(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    probabilities = 1 / (1 + np.exp(-scores.astype(np.float64)))
    return float(log_loss(labels, np.stack([1 - probabilities, probabilities], axis=1)))
