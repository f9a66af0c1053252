"""Text tables for the terminal: Table 1 of a run, audits, sample quality."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forensics.evaluation.metrics import AT_THRESHOLD

WIDTH = 80
"""Columns of a terminal."""

REMEDIES = {
    "format": "dataset.match=codec",
    "size": "dataset.match=resample",
    "aspect": "crop both alike",
    "jpeg_quality": "dataset.match=codec",
    "exif": "none: not in the pixels",
    "colour": "process both alike",
    "thumbnail": "align both alike",
    "border": "dataset.view=crop",
    "spectrum": "dataset.match=resample",
    "resampling": "dataset.match=resample",
}
"""What removes or weakens a shortcut, by trait of `forensics.evaluation.audit.TRAITS`."""

_DROP = "dataset.drop_near_duplicates=true"
_SEPARATE = "remove one of the two"


def table_1(result: Mapping[str, Any]) -> str:
    """AUROC of every test pair, then ACC, TPR and TNR at every threshold, with 95 % intervals.

    Rates are in percent; mean and worst balanced accuracy of the unseen generators follow each
    threshold's. Then TPR of unseen real sources, and AUROC and TNR of generators used for
    validation only.

    Args:
        result: content of ``result.json``.
    """
    pairs = result["pairs"]
    names = [f"{one['real']} + {one['generator']} ({_role(one)})" for one in pairs]
    unseen = result["summary"]["unseen"]
    rows = [["test pair", "n", "AUROC"]]
    for name, pair in zip(names, pairs, strict=True):
        low, high = pair["ranking"]["auroc_interval"]
        auroc = f"{pair['ranking']['auroc']:.3f} [{low:.3f}, {high:.3f}]"
        rows.append([name, f"{pair['n_real']}+{pair['n_generated']}", auroc])
    blocks = [aligned(rows, "lrr")]
    if unseen is not None:
        blocks[0] += "\n" + _mean_and_worst("AUROC", unseen["auroc"], ".3f")
    for threshold in result["thresholds"]:
        rows = [["", *(metric.upper() for metric in AT_THRESHOLD)]]
        measured = [pair[f"at_{threshold}"] for pair in pairs]
        shown = list(names)
        for source in result["sources"]:
            if source["real"] and not source["seen"]:
                shown.append(f"{source['source']} (real, unseen)")
                rate = f"tpr_at_{threshold}"
                measured.append({"tpr": source[rate], "tpr_interval": source[f"{rate}_interval"]})
        for name, at in zip(shown, measured, strict=True):
            rows.append([name, *(cell(at, metric) for metric in AT_THRESHOLD)])
        block = f"{threshold_name(threshold)}\n{aligned(rows, 'lrrr')}"
        if unseen is not None:
            accuracy = unseen[f"at_{threshold}"]
            block += "\n" + _mean_and_worst("balanced accuracy", accuracy, ".1%")
        blocks.append(block)
    blocks += [
        _validated(name, found, result["thresholds"])
        for name, found in result.get("validation", {}).get("generators", {}).items()
        if not found["seen"]
    ]
    return "\n\n".join(blocks)


def _role(one: Mapping[str, Any]) -> str:
    return "seen" if one["seen"] else "unseen"


def _mean_and_worst(metric: str, over: Mapping[str, Any], form: str) -> str:
    mean, worst = (format(over[of], form).replace("%", " %") for of in ("mean", "worst"))
    return wrapped(
        f"unseen: mean {metric} {mean}, worst {worst} ({' + '.join(over['worst_pair'])})"
    )


def _validated(name: str, found: Mapping[str, Any], thresholds: Iterable[str]) -> str:
    low, high = found["interval"]
    rates = ", ".join(
        f"{100 * found[f'tnr_at_{threshold}']:.1f} % at the {threshold_name(threshold)}"
        for threshold in thresholds
    )
    return wrapped(
        f"validation only, {name}: AUROC {found['auroc']:.3f} [{low:.3f}, {high:.3f}], "
        f"found {rates}"
    )


def wrapped(text: str) -> str:
    """A text in lines of at most `WIDTH`, further lines indented; words are not cut."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def aligned(rows: Sequence[Sequence[str]], justify: str) -> str:
    """Rows in columns, within `WIDTH` if all columns but the first are.

    A first cell that is longer than the room left for its column gets a line of its own.

    Args:
        rows: cells of each row.
        justify: ``l`` or ``r`` for each column.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns[1:]]
    room = WIDTH - sum(2 + width for width in widths)
    widths = [max((len(name) for name in columns[0] if len(name) <= room), default=0), *widths]
    lines = []
    for name, *cells in rows:
        if len(name) > room:
            lines.append(name)
            name = ""
        placed = (
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip([name, *cells], widths, justify, strict=True)
        )
        lines.append("  ".join(placed).rstrip())
    return "\n".join(lines)


def in_order(thresholds: Iterable[str]) -> list[str]:
    """Distinct thresholds in the order of every table: 0.5, then by falling rate; oracle last."""

    def place(name: str) -> tuple[int, float]:
        if name.startswith("source_"):
            return 1, -float(name.removeprefix("source_"))
        return (0 if name == "0.5" else 2), 0.0

    return sorted(set(thresholds), key=place)


def chance_line(result: Mapping[str, Any]) -> str | None:
    """A warning that a detector is no better than chance on validation images, or None.

    Args:
        result: content of ``result.json``.
    """
    validation = result.get("validation", {})
    if not validation.get("chance"):
        return None
    low, high = (f"{value:.3f}" for value in validation["interval"])
    return (
        f"Not measurably better than chance on validation images: AUROC {validation['auroc']:.3f} "
        f"[{low}, {high}]. Its test results say nothing about generators."
    )


def threshold_name(threshold: str) -> str:
    """A threshold in words."""
    if threshold == "0.5":
        return "threshold 0.5, the paper's"
    if threshold == "oracle":
        return "oracle: the best threshold for each pair, chosen on the pair's own test images"
    rate = float(threshold.removeprefix("source_"))
    return f"threshold at {100 * rate:g} % FPR on validation real images"


def cell(metrics: Mapping[str, Any], name: str) -> str:
    """A metric and its interval in percent, or a dash if it is missing or undefined."""
    if metrics.get(name) is None:
        return "-"
    low, high = map(_percent, metrics[f"{name}_interval"])
    return f"{_percent(metrics[name])} [{low}, {high}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".replace("100.0", "100")  # leaves a column for long names


def audit_table(audited: Mapping[str, Any]) -> str:
    """Table of an audit, one line per check, with the remedy of each finding.

    Args:
        audited: content of ``audit.json``.
    """
    rows = [["logistic model on a single trait", "n", "AUROC", "verdict"]]
    for check in audited["traits"]:
        title = f"{check['trait']}, {check['real']} / {check['generator']}"
        auroc = "-" if check["auroc"] is None else f"{check['auroc']:.3f}"
        counts = f"{check['n_real']}+{check['n_generated']}"
        rows.append([title, counts, auroc, _verdict(check, REMEDIES[check["trait"]])])
    tables = [aligned(rows, "lrrl")]
    rows = [["images with a near-duplicate", "copies", "near", "verdict"]]
    for check in audited["repetitions"]:
        verdict = _verdict(check, _of_repetition(audited, check))
        for source, copies, near in dict.fromkeys(
            zip(check["sources"], check["copies"], check["near_duplicates"], strict=True)
        ):
            among = " / ".join(dict.fromkeys(check["sources"]))
            rows.append([f"{source}, among {among}", str(copies), str(near), verdict])
    for check in audited["across_border"]:
        title = f"{check['source']}, training, of test images"
        rows.append([title, "", str(check["near_duplicates"]), _verdict(check, _DROP)])
    return "\n\n".join([*tables, aligned(rows, "lrrl")])


def _verdict(check: Mapping[str, Any], remedy: str) -> str:
    verdict = str(check["verdict"])
    return f"{verdict}: {remedy}" if verdict == "warning" else verdict


def _of_repetition(audited: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    classes = {audited["images"][name]["real"] for name in check["sources"]}
    return _DROP if len(classes) == 1 else _SEPARATE


def findings(audited: Mapping[str, Any], match: str) -> dict[str, list[str]]:
    """Findings of the audit before a training: cells of its table, by what was found.

    Args:
        audited: the result of `forensics.evaluation.audit.audit_run`.
        match: the run's ``dataset.match``.
    """
    found = {}
    for check in audited["traits"]:
        if check["verdict"] == "warning":
            remedy = REMEDIES[check["trait"]]
            if remedy == f"dataset.match={match}":
                remedy = f"in spite of {remedy}"
            what = f"{check['generator']} / {check['real']}: {check['trait']}"
            found[what] = [f"{check['auroc']:.3f}", remedy]
    for check in audited["repetitions"]:
        if check["verdict"] == "warning":
            names = " / ".join(dict.fromkeys(check["sources"]))
            near = "+".join(map(str, dict.fromkeys(check["near_duplicates"])))
            found[f"{names}: same images"] = [near, _of_repetition(audited, check)]
    for check in audited["across_border"]:
        if check["verdict"] == "warning":
            what = f"{check['source']}: training like test images"
            found[what] = [str(check["near_duplicates"]), _DROP]
    return found


def findings_table(found: Mapping[str, Sequence[str]]) -> str:
    """Table of `findings`: AUROC of a trait alone, or a number of images; empty without any."""
    if not found:
        return ""
    rows = [["audit", "AUROC, n", "remedy"]]
    rows += [[what, *cells] for what, cells in found.items()]
    return aligned(rows, "lrl")


def quality_table(source: Mapping[str, Any]) -> str:
    """Quality of a generator's images, beside that of real images.

    Args:
        source: content of ``source.json``.
    """
    quality = source["quality"]
    distances, of_reals = quality["sliced_wasserstein"], quality["sliced_wasserstein_real"]
    rows = [
        (f"sliced Wasserstein distance x 1000, {level}", distance, (of_reals or {}).get(level))
        for level, distance in (distances or {}).items()
    ]
    alike = quality["ms_ssim"], quality["ms_ssim_real"]
    rows.append(("MS-SSIM of pairs (near 1: collapsed)", *alike))
    rows += [
        (f"AUROC of a logistic model on {what} (0.5: no shortcut)", auroc, None)
        for what, auroc in (quality["shortcuts"] or {}).items()
    ]
    lines = [["measure", "generated", "real"]]
    for name, *values in rows:
        lines.append([name, *("-" if value is None else f"{value:.3f}" for value in values)])
    reasons = [
        wrapped(f"not measured: {key.removesuffix('_reason')} ({reason})")
        for key, reason in quality.items()
        if key.endswith("_reason")
    ]
    return "\n".join([aligned(lines, "lrr"), *reasons])
