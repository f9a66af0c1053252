"""Checkpoints: atomic, verified, and from which one a run goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from forensics.errors import UserError
from forensics.training import checkpoints
from forensics.training.checkpoints import AtomicCheckpoints, difference, load, to_resume

SETTINGS = {"seed": 0, "max_epochs": 4, "model.schedule": "constant", "dataset.match": "none"}


def saved(folder: Path, name: str = "last.ckpt", epoch: int = 1, **changes: object) -> Path:
    """A checkpoint in a run's folder, as Lightning has it written after an epoch, from 0."""
    path = folder / "checkpoints" / name
    content = {"epoch": epoch, "settings": SETTINGS, "weights": torch.arange(1000.0)} | changes
    AtomicCheckpoints().save_checkpoint(content, path)
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


class TestSave:
    def test_the_last_one_becomes_the_one_before(self, tmp_path: Path) -> None:
        path = tmp_path
        for epoch in range(3):
            before = path.stat().st_ino if epoch else 0
            path = saved(tmp_path, epoch=epoch)
        assert files(tmp_path) == {"last.ckpt", "previous.ckpt"}
        assert path.with_name("previous.ckpt").stat().st_ino == before  # not written again
        assert load(path)["epoch"] == 2
        assert load(path.with_name("previous.ckpt"))["epoch"] == 1

    def test_any_other_is_replaced(self, tmp_path: Path) -> None:
        for epoch in range(2):
            path = saved(tmp_path, "best.ckpt", epoch)
        assert files(tmp_path) == {"best.ckpt"}
        assert load(path)["epoch"] == 1

    def test_where_there_are_no_links_it_is_copied(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_links(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        for epoch in range(3):
            path = saved(tmp_path, epoch=epoch)
        assert load(path.with_name("previous.ckpt"))["epoch"] == 1
        assert load(path)["epoch"] == 2

    @pytest.mark.parametrize(
        "error",
        [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed\nat 5")],
    )
    def test_a_full_disk_names_the_file_and_leaves_the_one_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        path = saved(tmp_path, epoch=1)

        def full(*_: object) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(torch, "save", full)
            with pytest.raises(UserError) as caught:
                saved(tmp_path, epoch=2)
        assert str(path) in str(caught.value)
        assert f"resume={tmp_path}" in str(caught.value)
        assert getattr(error, "strerror", None) or "write failed" in str(caught.value)
        assert "at 5" not in str(caught.value)
        assert files(tmp_path) == {"last.ckpt"}
        assert load(path)["epoch"] == 1

    def test_one_is_removed_and_one_that_is_gone_too(self, tmp_path: Path) -> None:
        path = saved(tmp_path)
        for _ in range(2):
            AtomicCheckpoints().remove_checkpoint(path)
            assert files(tmp_path) == set()


def _cut(content: bytearray) -> bytearray:
    return content[: len(content) // 2]


def _flipped(content: bytearray) -> bytearray:
    content[content.find(torch.arange(1000.0).numpy().tobytes()) + 5] ^= 1
    return content


def _pickled(content: bytearray) -> bytearray:
    return bytearray(b"\x80\x02}q\x00.")


class TestLoad:
    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"last\.ckpt"):
            load(tmp_path / "last.ckpt")

    def test_lightning_reads_by_the_same_way(self, tmp_path: Path) -> None:
        read = AtomicCheckpoints().load_checkpoint(saved(tmp_path))
        torch.testing.assert_close(read["weights"], torch.arange(1000.0))

    @pytest.mark.parametrize("damage", [_cut, _flipped, _pickled])
    @pytest.mark.parametrize(
        ("name", "before", "offered"),
        [("last.ckpt", True, True), ("last.ckpt", False, False), ("best.ckpt", True, False)],
    )
    def test_damage_is_found_and_the_last_ones_predecessor_offered(
        self,
        tmp_path: Path,
        damage: Callable[[bytearray], bytearray],
        name: str,
        before: bool,
        offered: bool,
    ) -> None:
        path = saved(tmp_path, name)
        if before:
            saved(tmp_path, "previous.ckpt", 0)
        path.write_bytes(damage(bytearray(path.read_bytes())))
        with pytest.raises(UserError, match=name) as caught:
            load(path)
        assert ("previous.ckpt" in str(caught.value)) is offered
        assert len(str(caught.value).splitlines()) == 1

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
                return os.mkdir, (str(tmp_path / "exploded"),)

        with pytest.raises(UserError, match="corrupt"):
            load(saved(tmp_path, weights=Bomb()))
        assert not (tmp_path / "exploded").exists()


class TestToResume:
    def test_a_run_without_any_begins_anew(self, tmp_path: Path) -> None:
        assert to_resume(tmp_path, SETTINGS) is None
        saved(tmp_path, "best.ckpt")
        assert to_resume(tmp_path, SETTINGS) is None

    def test_it_goes_on_from_the_last_or_else_from_the_one_before(self, tmp_path: Path) -> None:
        saved(tmp_path, epoch=0)
        last = saved(tmp_path, epoch=1)
        assert to_resume(tmp_path, SETTINGS) == last
        last.unlink()
        assert to_resume(tmp_path, SETTINGS) == last.with_name("previous.ckpt")

    def test_a_file_of_another_program_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "checkpoints" / "last.ckpt"
        AtomicCheckpoints().save_checkpoint({"epoch": 1}, path)
        with pytest.raises(UserError, match=r"last\.ckpt"):
            to_resume(tmp_path, SETTINGS)

    @pytest.mark.parametrize(("epochs", "enough"), [(3, False), (4, True), (5, True)])
    def test_epochs_that_are_complete_cannot_be_taken_back(
        self, tmp_path: Path, epochs: int, enough: bool
    ) -> None:
        path = saved(tmp_path, epoch=3)  # the fourth is complete
        if enough:
            assert to_resume(tmp_path, SETTINGS | {"max_epochs": epochs}) == path
        else:
            with pytest.raises(UserError, match=r"completed 4 epochs.*max_epochs"):
                to_resume(tmp_path, SETTINGS | {"max_epochs": epochs})

    def test_another_setting_is_named_with_both_values(self, tmp_path: Path) -> None:
        saved(tmp_path)
        with pytest.raises(UserError, match="seed=0, not 1"):
            to_resume(tmp_path, SETTINGS | {"seed": 1})

    def test_what_else_must_not_have_changed_is_compared(self, tmp_path: Path) -> None:
        saved(tmp_path)
        changed = SETTINGS | {"perturb": "noise"}
        assert to_resume(tmp_path, changed)
        with pytest.raises(UserError, match="perturb"):
            to_resume(tmp_path, changed, also=["perturb"])

    def test_a_schedule_over_all_epochs_holds_their_number(self, tmp_path: Path) -> None:
        cosine = SETTINGS | {"model.schedule": "cosine"}
        path = saved(tmp_path, settings=cosine)
        assert to_resume(tmp_path, cosine) == path
        with pytest.raises(UserError, match="max_epochs=4, not 5"):
            to_resume(tmp_path, cosine | {"max_epochs": 5})


class TestDifference:
    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({}, None),
            ({"seed": 1}, "seed"),
            ({"a.new": 3}, "a.new"),
            ({"a.new": "none"}, None),
            ({"dataset.match": None}, None),
            ({"max_epochs": 9, "trainer.devices": 2, "name": "x"}, None),
            ({"trainers": 2}, "trainers"),
            ({"seed": 1, "model.schedule": "cosine"}, "model.schedule"),
        ],
    )
    def test_it_is_the_first_that_matters(self, changes: dict[str, Any], key: str | None) -> None:
        assert difference(SETTINGS, SETTINGS | changes) == key
        assert difference(SETTINGS | changes, SETTINGS) == key


class Scripted(pl.LightningModule):
    """Logs a given validation loss in each epoch."""

    def __init__(self, losses: list[float], metric: str) -> None:
        super().__init__()
        self._losses, self._metric = losses, metric
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log(self._metric, self._losses[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1.0)


def trained(
    folder: Path, losses: list[float], metric: str, best_by: str | None, resume: Path | None = None
) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=len(losses), logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
        callbacks=checkpoints.callbacks(folder, best_by), plugins=[AtomicCheckpoints()],
    )  # fmt: skip
    loader = DataLoader(TensorDataset(torch.zeros(1, 1)), batch_size=1)
    path = None if resume is None else str(resume)
    trainer.fit(Scripted(losses, metric), loader, loader, ckpt_path=path, weights_only=True)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.")
@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
class TestCallbacks:
    @pytest.mark.parametrize(
        ("metric", "values", "best"),
        [("val/loss", [3.0, 1.0, 2.0], 1), ("val/auroc", [0.6, 0.7, 0.9, 0.8], 2)],
    )
    def test_the_best_epoch_the_last_and_the_one_before_are_kept(
        self, tmp_path: Path, metric: str, values: list[float], best: int
    ) -> None:
        trained(tmp_path, values, metric, metric)
        assert files(tmp_path) == {"best.ckpt", "last.ckpt", "previous.ckpt"}
        epochs = {name: load(tmp_path / "checkpoints" / name)["epoch"] for name in files(tmp_path)}
        last = len(values) - 1
        assert epochs == {"best.ckpt": best, "last.ckpt": last, "previous.ckpt": last - 1}

    def test_a_best_one_left_by_a_killed_first_epoch_is_replaced(self, tmp_path: Path) -> None:
        saved(tmp_path, "best.ckpt", 7)
        trained(tmp_path, [2.0, 1.0], "val/loss", "val/loss")
        assert files(tmp_path) == {"best.ckpt", "last.ckpt", "previous.ckpt"}
        assert load(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == 1

    def test_without_a_metric_the_last_is_kept(self, tmp_path: Path) -> None:
        trained(tmp_path, [1.0, 1.0], "val/loss", None)
        assert files(tmp_path) == {"last.ckpt", "previous.ckpt"}

    @pytest.mark.parametrize(("later", "best"), [(2.5, 1), (0.5, 3)])
    def test_a_run_that_was_moved_still_knows_its_best(
        self, tmp_path: Path, later: float, best: int
    ) -> None:
        values = [3.0, 1.0, 2.0]
        trained(tmp_path / "here", values, "val/loss", "val/loss")
        (tmp_path / "here").rename(tmp_path / "there")
        last = tmp_path / "there" / "checkpoints" / "last.ckpt"
        trained(tmp_path / "there", [*values, later], "val/loss", "val/loss", last)
        assert load(last.with_name("best.ckpt"))["epoch"] == best
        assert load(last)["epoch"] == 3
        assert files(tmp_path / "there") == {"best.ckpt", "last.ckpt", "previous.ckpt"}
        assert not (tmp_path / "here").exists()
