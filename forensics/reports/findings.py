"""The finding of a study: balanced accuracy on seen and on unseen generators."""

from typing import Any

import numpy as np

from forensics.detectors.card import CERTAIN_REAL
from forensics.evaluation.intervals import weighted_shares
from forensics.evaluation.seeds import PairScores, spread
from forensics.reports.comparison import Rows
from forensics.reports.study import Study, pair_of
from forensics.reports.study_tables import Table, percent, with_interval
from forensics.reports.variants import training_set

CHANCE = 0.5

COLUMNS = (("seen", "mean"), ("unseen", "mean"), ("unseen", "worst"))
"""Roles and statistics, in the order of tables."""

Pair = tuple[str, str]


def threshold_of(study: Study) -> str:
    """The finding's threshold: that at a 5 % FPR, if every detector has it."""
    everywhere = all(CERTAIN_REAL in run.result["thresholds"] for run in study.runs)
    return CERTAIN_REAL if everywhere else study.threshold


def findings(study: Study) -> Rows:
    """Balanced accuracy, the mean of TPR and TNR, on seen and on unseen generators.

    Returns:
        Rows for each training set and variant: for ``role`` seen and unseen the ``statistic`` mean
        over its pairs, and for unseen the worst pair as well, a minimum, which is biased downwards.
        ``mean`` over seeds, ``low`` and ``high``, the means of the seeds' 95 % intervals over
        images; ``by_seed``; ``by_pair``, each pair's mean over seeds; ``real`` and ``generator`` of
        the worst pair.
    """
    threshold = threshold_of(study)
    rows: Rows = []
    for train_on in study.train_sets:
        for variant in study.variants:
            runs = study.of(train_on, variant)
            pairs = [p for p in study.pairs() if runs and all(p in run.pairs for run in runs)]
            scores = {pair: pair_of(runs, *pair, threshold) for pair in pairs}
            for role in ("seen", "unseen"):
                of = {pair: scores[pair] for pair in pairs
                      if any(pair[1] in run.seen for run in runs) is (role == "seen")}  # fmt: skip
                if not of:
                    continue
                identity = {"train_on": training_set(train_on), "variant": variant.label,
                            "role": role, "threshold": threshold}  # fmt: skip
                by_pair = {pair: _balanced_accuracy({pair: of[pair]})["mean"] for pair in of}
                mean = {"statistic": "mean", "by_pair": list(by_pair.values())}
                rows.append(identity | mean | _balanced_accuracy(of))
                if role == "unseen":
                    worst = min(by_pair, key=lambda pair: by_pair[pair])
                    named = {"statistic": "worst", "real": worst[0], "generator": worst[1]}
                    rows.append(identity | named | _balanced_accuracy({worst: of[worst]}))
    return rows


def _balanced_accuracy(scores: dict[Pair, PairScores]) -> dict[str, Any]:
    """Mean over pairs and seeds; real images of several pairs are one proportion."""
    seeds = len(next(iter(scores.values())).thresholds)
    found = np.array([_of_seed(scores, seed) for seed in range(seeds)])
    mean, low, high = found.mean(axis=0).tolist()
    return {"pairs": len(scores), "seeds": seeds, "mean": mean, "low": low, "high": high,
            "std": spread(found[:, 0]), "by_seed": found[:, 0].tolist()}  # fmt: skip


def _of_seed(scores: dict[Pair, PairScores], seed: int) -> tuple[float, float, float]:
    parts: dict[tuple[str, str], tuple[float, int, int]] = {}
    for (real, generator), pair in scores.items():
        threshold = pair.thresholds[seed]
        for source, right in (
            (("real", real), pair.real[seed] >= threshold),
            (("generated", generator), pair.generated[seed] < threshold),
        ):
            weight = parts[source][0] if source in parts else 0.0
            parts[source] = (weight + 0.5 / len(scores), int(right.sum()), len(right))
    return weighted_shares(list(parts.values()))


def by_detectors(study: Study, rows: Rows) -> dict[str, Rows]:
    """`findings` by a name of the training set and variant that has only what varies."""
    titles = {variant.label: variant.title for variant in study.variants}
    found: dict[str, Rows] = {}
    for row in rows:
        title, trained = titles[row["variant"]], f"trained on {row['train_on']}"
        if len(study.variants) == 1:
            title = trained
        elif len(study.train_sets) > 1:
            title = f"{title}, {trained}"
        found.setdefault(title, []).append(row)
    return found


def sentence(rows: Rows) -> str:
    """The finding in words; it covers all detectors, so none is chosen by its test results."""
    seen, unseen, worst = (_of(rows, *key) for key in COLUMNS)
    if not unseen:
        return f"No unseen generator was tested; on seen ones balanced accuracy is {_range(seen)}."
    text = f"On unseen generators balanced accuracy is {_range(unseen)}"
    if max(row["pairs"] for row in unseen) > 1:
        names = ", ".join(dict.fromkeys(row["generator"] for row in worst))
        text += f" on average and {_range(worst)} on the worst one ({names})"
    text += f", on seen ones {_range(seen)}" if seen else ""
    no_better = sum(row["low"] <= CHANCE for row in worst)
    if not no_better:
        return f"{text}; chance is 50 %."
    whose = "the interval" if len(worst) == 1 else f"{no_better} of {len(worst)} intervals"
    include = "includes" if no_better == 1 else "include"
    return f"{text}; on the worst unseen one {whose} {include} chance, 50 %."


def table(study: Study, rows: Rows) -> Table:
    """`findings`, a line for each training set and variant."""
    header = ["detectors", "seen, mean", "unseen, mean", "unseen, worst", "worst generator"]
    lines = []
    for title, of_title in by_detectors(study, rows).items():
        found = [next(iter(_of(of_title, *key)), None) for key in COLUMNS]
        worst = found[-1]
        cells = [with_interval(row) if row else "-" for row in found]
        lines.append([title, *cells, worst["generator"] if worst else "-"])
    return header, lines


def _of(rows: Rows, role: str, statistic: str) -> Rows:
    return [row for row in rows if (row["role"], row["statistic"]) == (role, statistic)]


def _range(rows: Rows) -> str:
    low, high = (percent(of(row["mean"] for row in rows)) for of in (min, max))
    return f"{low} %" if low == high else f"{low} to {high} %"
