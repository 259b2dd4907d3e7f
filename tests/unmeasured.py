"""A process that a test forks is not measured: coverage's lock may be that of a thread which is not there."""

from __future__ import annotations

import os
import sys

coverage_runs = False  # set by `conftest`


def _leave_unmeasured() -> None:
    if coverage_runs:
        sys.settrace(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_unmeasured)
