"""Somebody looks who is there while another process comes, at every place of the look: it is not overlooked.

Case 5 of the notes on processes.
"""

from __future__ import annotations

import os
import pickle
from contextlib import ExitStack
from typing import Any

import pytest
from process_jobs_faults import Strike, Tell, forked
from test_processes_faults_ends import SOON, channel, to_the_end

from chanlib import ChannelEmpty, EndOfChannel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def _takes_over(most: int, arrives: bool) -> None:
    """Somebody asks whether there is a sender, and at each place in that another process becomes one and the last
    sender here goes: there has been one all the time."""
    at, reached = 0, True
    while reached:
        asked, asks = os.pipe()
        first, others = os.pipe()  # forked before the channel is there: it inherits nothing

        def newcomer(tell: Tell, asked: int = asked, first: int = first) -> None:
            mine = pickle.loads(os.read(first, 1 << 16))
            tell("here")
            os.read(asked, 1)
            mine.send(1).sync(timeout=SOON)
            mine.close()

        with ExitStack() as stack:
            if arrives:
                child = stack.enter_context(forked(newcomer))
            tx, rx = stack.enter_context(channel())
            if not arrives:

                def heir(tell: Tell, tx: Any = tx, rx: Any = rx, asked: int = asked, first: int = first) -> None:
                    rx.close()
                    os.read(first, 1)
                    mine = tx.clone()
                    tx.close()
                    tell("here")
                    os.read(asked, 1)
                    mine.send(1).sync(timeout=SOON)
                    mine.close()

                child = stack.enter_context(forked(heir))
            data = pickle.dumps(tx) if arrives else b"!"
            tx.close()

            def meanwhile(others: int = others, data: bytes = data, child: Any = child) -> None:
                os.write(others, data)
                assert child.says() == "here"

            try:
                with Strike(at, action=meanwhile) as strike, pytest.raises(ChannelEmpty):
                    rx.receive_nowait()
                reached = strike.left < 0
                if reached:
                    os.write(asks, b"!")
                    assert to_the_end(rx) == ([1], EndOfChannel)
            except BaseException as error:
                error.add_note(f"at place {at}")
                raise
            finally:
                for fd in (asked, asks, first, others):
                    os.close(fd)
        at += most


@pytest.mark.parametrize("arrives", [True, False], ids=["from elsewhere", "by a fork"])
def test_a_sender_that_becomes_one_while_somebody_looks_is_seen(arrives: bool) -> None:
    _takes_over(1, arrives)
