"""Results of a finished run in TensorBoard, besides its curves."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from scipy.special import expit
from tensorboard.plugins.hparams import summary_v2
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from forensics.reports import figures

THUMBNAIL = 32
"""Side of an image in the projector, in pixels."""


CHOOSE_BY = "choose by this"
THRESHOLD = "source_0.05"
"""The threshold of balanced accuracies in HPARAMS: at 5 % FPR on validation real images."""


def log_results(
    loggers: Sequence[Logger],
    result: Mapping[str, Any],
    scores: Mapping[str, Any],
    spectra: Mapping[str, NDArray[np.float64]],
    step: int,
) -> None:
    """Write the figures, histograms and final metrics of a run.

    Args:
        loggers: the run's loggers, TensorBoard's first; the others get the final metrics only.
        result: content of ``result.json``.
        scores: columns source, split, label and logit of every scored image.
        spectra: by source, the mean log power of its test images.
        step: number of training steps.
    """
    writer = cast(TensorBoardLogger, loggers[0]).experiment
    sources, logits = np.array(scores["source"]), np.array(scores["logit"], np.float32)
    tested = np.array(scores["split"]) == "test"
    offset, temperature = result["offset"] or 0.0, result["temperature"] or 1.0
    probabilities = expit((logits - offset) / temperature)
    calibrated = result["temperature"] is not None
    shown_as = ("probability_real", probabilities) if calibrated else ("score", logits)

    rocs, recalls = {}, {}
    for pair in result["pairs"]:
        name = f"{pair['real']}+{pair['generator']}"
        reals = np.flatnonzero(tested & (sources == pair["real"]))
        generated = np.flatnonzero(tested & (sources == pair["generator"]))
        both = np.r_[reals, generated]
        of_pair = logits[both]
        # Saturated probabilities tie; the logits' ranks do not.
        ranks = torch.from_numpy(np.unique(of_pair, return_inverse=True)[1] / len(of_pair))
        labels = torch.tensor([1] * len(reals) + [0] * len(generated))
        false_positive, true_positive, _ = binary_roc(ranks, labels)
        rocs[name] = (false_positive.numpy(), true_positive.numpy())
        precision, recall, _ = binary_precision_recall_curve(1 - ranks, 1 - labels)
        recalls[name] = (recall.numpy(), precision.numpy())
        writer.add_pr_curve(name, labels, torch.from_numpy(probabilities[both]), step)
    writer.add_figure("test/roc", figures.roc(rocs), step)
    writer.add_figure("test/precision_recall", figures.precision_recall(recalls), step)
    writer.add_figure("test/mean_log_power_spectrum", figures.spectra(spectra), step)
    for source in result["sources"]:
        values = shown_as[1][tested & (sources == source["source"])]
        writer.add_histogram(f"{shown_as[0]}/{source['source']}", values, step)
    _log_hyperparameters(writer, result, step)
    final = {name: value for name, (value, _) in _final(result).items()}
    for logger in loggers:
        logger.log_metrics(final, step)


def _final(result: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Final metrics, named without any data set: value and heading of each."""
    found = {
        f"at_checkpoint/{name}": (result["validation"][name], f"val/{name} ({CHOOSE_BY})")
        for name in ("loss", "auroc")
        if result["validation"][name] is not None
    }
    for role in ("unseen", "seen"):
        over = result["summary"][role]
        for of in ("mean", "worst") if over else ():
            name = f"{role}/balanced_accuracy_{of}"
            found[name] = (over[f"at_{THRESHOLD}"][of], name)
            found[f"{role}/auroc_{of}"] = (over["auroc"][of], f"{role}/auroc_{of}")
    return found


def _log_hyperparameters(writer: SummaryWriter, result: Mapping[str, Any], step: int) -> None:
    """Settings and final metrics as a row of HPARAMS, validation metrics first.

    By TensorBoard's own functions, because those of torch and Lightning cannot give a heading.
    """
    settings = result["settings"]
    # In the order of columns; TensorBoard shows the first five of them at once.
    chosen = {
        "model": result["model"],
        "preprocess": result["preprocess"],
        "train_on": "+".join(settings["dataset"]["train_on"]),
        "learning_rate": settings["model"].get("learning_rate", "none"),
        "seed": settings["seed"],
        "batch_size": settings["batch_size"],
        "max_epochs": settings["max_epochs"],
        "debug": str(settings["debug"]),
    }
    metrics = [
        summary_v2.Metric(name, display_name=heading)
        for name, (_, heading) in _final(result).items()
    ]
    columns = [summary_v2.HParam(name) for name in chosen]
    events: Any = writer.file_writer  # untyped
    for content in (summary_v2.hparams_config_pb(columns, metrics), summary_v2.hparams_pb(chosen)):
        events.add_summary(content, step)


def log_features(
    logger: Logger,
    features: Mapping[str, Any],
    images: NDArray[np.uint8],
    step: int,
) -> None:
    """Write feature vectors for the projector, coloured by source, with thumbnails.

    Args:
        logger: TensorBoard's logger.
        features: columns source, path and features, one row per image.
        images: ``(n, S, S, 3)``, in the same order.
        step: number of training steps.
    """
    thumbnails = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    cast(TensorBoardLogger, logger).experiment.add_embedding(
        torch.from_numpy(np.stack(features["features"])),
        metadata=list(zip(features["source"], features["path"], strict=True)),
        metadata_header=["source", "path"],
        label_img=adaptive_avg_pool2d(thumbnails, THUMBNAIL),
        global_step=step,
    )
