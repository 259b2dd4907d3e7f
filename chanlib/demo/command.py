"""The command: checks its arguments before any work, runs the network, and says how it ended."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING

from .. import every, select
from .interrupts import Interrupted, Interrupts
from .output import NotWritten, Output, open_output
from .skipped import printable

if TYPE_CHECKING:
    from .network import Network
    from .progress import Progress

__all__ = ["BadUsage", "run"]

OK, FAILED = 0, 1


class BadUsage(Exception):
    """The arguments do not make a run; nothing has been done."""


def run(path: bytes, file: bytes | None) -> int:
    """Hash below `path`; the lines go to `file`, or to stdout. The result is the exit code."""
    with Interrupts() as interrupts:
        is_folder = _check_path(path)
        try:
            from .network import Network
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "trio":
                raise
            raise BadUsage(
                "one stage of the demo lives in trio, which is not installed: pip install 'chanlib[demo]'"
            ) from error
        output = _open(path, file)
        interrupts.on_abandon(output.discard)
        try:
            network = Network(path, is_folder, output, interrupts.check)
            started = time.monotonic()
            progress = _perform(network, interrupts)
            seconds = time.monotonic() - started
            return _conclude(network, output, interrupts, progress, seconds)
        finally:
            output.discard()


def _check_path(path: bytes) -> bool:
    """Whether it is a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise BadUsage(f"argument PATH: {printable(path)!r}: {error.strerror}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise BadUsage(f"argument PATH: {printable(path)!r} is neither a folder nor a regular file")
    return stat.S_ISDIR(mode)


def _open(path: bytes, file: bytes | None) -> Output:
    if file is None:
        if sys.stdout is None:
            raise BadUsage("stdout is closed; give a file: --output FILE")
        return open_output(None, sys.stdout.fileno(), "stdout")
    name = f"argument --output: {printable(file)!r}"
    if not os.path.basename(file):
        raise BadUsage(f"{name} does not name a file")
    try:
        if os.path.exists(file) and os.path.samefile(path, file):
            raise BadUsage(f"{name} is PATH itself")
        return open_output(file, -1, printable(file))
    except OSError as error:
        raise BadUsage(f"{name} cannot be written to: {error.strerror}") from error


def _perform(network: Network, interrupts: Interrupts) -> Progress:
    """Run `network` to its end, showing how far it is and watching for an interrupt."""
    from .progress import choose_progress

    progress = choose_progress()
    interrupts.on_abandon(progress.abandon)
    running = set(network.stages)
    told = False
    try:
        network.start()
        # To the very end, for CPython runs a signal handler late if the signal came just before
        # its main thread fell asleep: when that wakes next.
        ticker = every(progress.period)
        while running:
            match select(network.finished.receive(), None if told else interrupts.arrived, ticker).sync():
                case 0, stage:
                    stage.join()
                    running.discard(stage)
                    if stage is network.collect:  # all is counted: now the lines may have the terminal
                        progress.end(network.snapshot())
                        network.may_write.set()
                case 1, _:
                    told = True
                    assert interrupts.error is not None
                    network.interrupt(interrupts.error)
                case _:
                    if network.collect in running:
                        progress.show(network.snapshot())
    except BaseException as error:
        network.interrupt(error)
        progress.abandon()
        raise
    return progress


def _conclude(network: Network, output: Output, interrupts: Interrupts, progress: Progress, seconds: float) -> int:
    """Say how it ended. The error of any stage has travelled down to the last one."""
    from .progress import in_bytes, say

    error = network.write.error
    code = FAILED if network.findings.failed else OK
    if error is None:
        ended = f"complete: {network.written:,} lines in {output.name}"
    elif isinstance(error, Interrupted):
        ended = f"{error}; {output.kept()}"
    elif isinstance(error, NotWritten):
        code = error.exit_code
        ended = f"{error}; {output.kept()}"
    else:
        raise error
    if network.findings.counts:
        say("left out:")
        for text in network.findings.report():
            say(text)
    now = network.snapshot()
    progress.summary(
        [
            ("files hashed", f"{now.files:,}"),
            (
                "bytes read",
                f"{now.bytes:,}" + (f" ({in_bytes(now.bytes)})" if now.bytes > 999 else ""),
            ),
            ("seconds", f"{seconds:.2f}"),
            ("left out", f"{network.findings.counts.total():,}"),
            ("busiest channel", network.busiest()),
            ("result", ended),
        ]
    )
    return code if interrupts.error is None else interrupts.error.exit_code
