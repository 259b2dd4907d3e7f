"""Collecting: a trio task, in a run and a thread of its own, merges two streams until both end."""

from __future__ import annotations

from .. import Channel, EndOfChannel, SendView, select
from .skipped import Findings, Skipped

__all__ = ["collect"]

BATCH = 64


async def collect(
    hashed: Channel[bytes],
    skipped: Channel[Skipped],
    lines: SendView[bytes],
    findings: Findings,
) -> None:
    """Pass on what was hashed, count what was skipped; then close `lines`."""
    hashing = skipping = True
    while hashing or skipping:
        try:
            arrived = await select(
                hashed.receive_some(BATCH) if hashing else None,
                skipped.receive_some(BATCH) if skipping else None,
            )
        except EndOfChannel as end:
            if end.arm == 0:
                hashing = False
            else:
                skipping = False
            continue
        match arrived:
            case 0, records:
                await lines.send_all(records)
            case 1, items:
                findings.add(items)
    lines.close()
