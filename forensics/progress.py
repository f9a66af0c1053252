"""Progress of long steps: a bar on a terminal, lines in a log."""

import logging
import sys
import time
from typing import Self

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Progress of one step; a context manager, or closed explicitly.

    On a terminal it is a bar; elsewhere a line is logged at most every ten seconds and once at
    the end, because a bar's carriage returns make a log file unreadable.

    Args:
        label: name of the step, such as ``fit, epoch 1 of 5``.
        total: number of images to process.
        shown: False on all but one of several processes.
    """

    def __init__(self, label: str, total: int, *, shown: bool = True) -> None:
        self.label, self.total, self.shown = label, total, shown
        self._done = self._said = 0
        self._started = self._last_line = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, desc=label, unit="img", dynamic_ncols=True)
            if shown and terminal
            else None
        )

    def advance(self, images: int = 1) -> None:
        """Count ``images`` more images as processed."""
        self._done += images
        if self._bar is not None:
            self._bar.update(images)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._line()

    def _line(self) -> None:
        self._said = self._done
        self._last_line = time.monotonic()
        seconds = self._last_line - self._started
        rate = self._done / seconds if seconds > 0 else 0.0
        if self.shown:
            log.info("%s: %d of %d images, %.0f images/s", self.label, self._done, self.total, rate)

    def close(self) -> None:
        """End the bar, or log the final count; further calls do nothing."""
        if self._bar is not None:
            self._bar.close()
        elif self._said < self._done:
            self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
