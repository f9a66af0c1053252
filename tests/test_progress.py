"""Progress on a terminal, by a pseudo-terminal, and in a log file."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from forensics.progress import Progress

STEP = """
import logging
from forensics.progress import Progress
logging.basicConfig(level=logging.INFO, format="%(message)s")
with Progress("score test", 200) as bar:
    for _ in range(10):
        bar.advance(20)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-c", STEP]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=ENVIRONMENT) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                got = os.read(ours, 4096)
            except OSError:  # Linux reports the end of a pseudo-terminal as an error
                break
            if not got:
                break
            shown += got
        assert process.wait() == 0
    os.close(ours)
    bars = shown.decode().split("\r")
    assert any("score test:" in bar and "200/200" in bar and "100%" in bar for bar in bars)
    assert max(len(bar.strip()) for bar in bars) <= 80
    assert "images/s" not in shown.decode()  # a log's line


def test_a_log_gets_a_line_at_the_end_and_no_bar() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEP], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("score test: 200 of 200 images")
    assert "\r" not in done.stdout + done.stderr


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr("forensics.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level("INFO", "forensics"), Progress("fit", 100) as bar:
        for _ in range(100):
            clock[0] += 0.25  # 25 s in all: lines after 10 and 20 s, and the last
            bar.advance()
    assert caplog.messages == [
        "fit: 40 of 100 images, 4 images/s",
        "fit: 80 of 100 images, 4 images/s",
        "fit: 100 of 100 images, 4 images/s",
    ]
