"""Log records of a process, handled by its parent: the two ends of the way."""

from __future__ import annotations

import logging
import pickle
from logging.handlers import QueueHandler
from typing import Any

from .._core.unraisable import report
from .lines import LOG, Outbox

__all__ = ["handle", "send_all"]


class _Sending(QueueHandler):
    """Sends what is logged, prepared as for any queue: as plain text, whatever its arguments were."""

    def __init__(self, outbox: Outbox) -> None:
        queue: Any = outbox
        super().__init__(queue)

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            body = pickle.dumps(record.__dict__, 5)
        except Exception:  # of something extra
            body = pickle.dumps({key: _plain(value) for key, value in record.__dict__.items()}, 5)
        outbox: Any = self.queue
        outbox.send(LOG, body)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else repr(value)


def send_all(outbox: Outbox, level: int) -> None:
    """From now on everything that is logged in this process goes to the parent, and nowhere else."""
    root = logging.getLogger()
    for logger in (root, *root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # handlers that were inherited: the parent has them, too
            logger.handlers.clear()
            logger.propagate = True
    root.addHandler(_Sending(outbox))
    root.setLevel(level)


def handle(body: bytes | bytearray) -> None:
    """A record of the process, in the parent."""
    try:
        record = logging.makeLogRecord(pickle.loads(body))
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception as error:  # of a filter that is the user's, say: no matter of who attends the process
        report(error, "Error while a log record of another process was handled", handle)
