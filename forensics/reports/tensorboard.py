"""Results of a finished run in TensorBoard, besides its curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.loggers import TensorBoardLogger
from scipy.special import expit
from torch.nn.functional import adaptive_avg_pool2d
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from forensics.evaluation.metrics import AT_THRESHOLD, RANKING
from forensics.reports import figures

THUMBNAIL = 32
"""Side of an image in the projector, in pixels."""


def log_results(
    logger: TensorBoardLogger,
    result: Mapping[str, Any],
    scores: Mapping[str, Any],
    spectra: Mapping[str, NDArray[np.float64]],
    step: int,
) -> None:
    """Write the figures, histograms and final metrics of a run.

    Args:
        logger: the run's logger.
        result: content of ``result.json``.
        scores: columns source, split, label and logit of every scored image.
        spectra: by source, the mean log power of its test images.
        step: number of training steps.
    """
    writer = logger.experiment
    sources, logits = np.array(scores["source"]), np.array(scores["logit"], np.float32)
    tested = np.array(scores["split"]) == "test"
    offset, temperature = result["offset"] or 0.0, result["temperature"] or 1.0
    probabilities = expit((logits - offset) / temperature)
    calibrated = result["temperature"] is not None
    shown_as = ("probability_real", probabilities) if calibrated else ("score", logits)

    final: dict[str, float] = {}
    rocs, recalls = {}, {}
    for pair in result["pairs"]:
        name = f"{pair['real']}+{pair['generator']}"
        for threshold in result["thresholds"]:
            for metric in AT_THRESHOLD:
                at = pair[f"at_{threshold}"]
                final[f"test_at_{threshold}/{metric}/{name}"] = at[metric]
        for metric in RANKING:
            if pair["ranking"][metric] is not None:  # ECE, of scores without probabilities
                final[f"test/{metric}/{name}"] = pair["ranking"][metric]
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
    # Few, because TensorBoard shows only the first five at once.
    shown = ("batch_size", "max_epochs", "seed")
    chosen = {name: result["settings"][name] for name in shown}
    chosen |= {name: result[name] for name in ("model", "preprocess")}
    chosen |= {"train_on": "+".join(result["settings"]["dataset"]["train_on"])}
    logger.log_hyperparams(chosen, final, step)


def log_features(
    logger: TensorBoardLogger,
    features: Mapping[str, Any],
    images: NDArray[np.uint8],
    step: int,
) -> None:
    """Write feature vectors for the projector, coloured by source, with thumbnails.

    Args:
        logger: the run's logger.
        features: columns source, path and features, one row per image.
        images: ``(n, S, S, 3)``, in the same order.
        step: number of training steps.
    """
    thumbnails = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    logger.experiment.add_embedding(
        torch.from_numpy(np.stack(features["features"])),
        metadata=list(zip(features["source"], features["path"], strict=True)),
        metadata_header=["source", "path"],
        label_img=adaptive_avg_pool2d(thumbnails, THUMBNAIL),
        global_step=step,
    )
