"""In which numbers a detector is trained, tested and scores: one rule for all three."""

from enum import StrEnum

import torch


class Precision(StrEnum):
    """In which numbers a network is trained and scores."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def in_bfloat16(precision: Precision, on_gpu: bool) -> bool:
    """Whether to compute in bfloat16: where the device itself does, unless told otherwise."""
    if precision is not Precision.auto:
        return precision is Precision.bf16
    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())
