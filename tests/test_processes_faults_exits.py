"""How processes end: with values under way, with threads that wait, by `sys.exit` and `os._exit`.

A program says nothing on stderr that its user has not caused, and its peers are told the right end.

Case 26 of the notes on processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def program(text: str) -> subprocess.CompletedProcess[str]:
    head = "import os, sys, threading, time\nfrom chanlib.processes import open_process_channel, ProcessChannel\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(text)], capture_output=True, text=True, timeout=60, check=False
    )


ENDINGS = {
    "values unsent and unreceived": ("tx.send_some([1, b'2' * 5000, tx]).poll()", 0),
    "closed": ("tx.close(); rx.close()", 0),
    "a daemon thread waits to receive": ("started(lambda: rx.receive().sync())", 0),
    "a daemon thread waits to send": ("tx.send_some([1] * 5).poll(); started(lambda: tx.send(1).sync())", 0),
    "a daemon thread receives in a loop": ("started(lambda: [rx.receive().sync() for _ in iter(int, 1)])", 0),
    "a daemon thread sends and receives": (
        "started(lambda: [(tx.send(b'x' * 5000).sync(), rx.receive().sync()) for _ in iter(int, 1)])",
        0,
    ),
    "sys.exit": ("tx.send_nowait(1); sys.exit(3)", 3),
    "os._exit": ("tx.send_nowait(1); os._exit(4)", 4),
    "a pickled end on offer": ("import pickle; data = pickle.dumps(tx)", 0),
    "an end that lives as long as the interpreter": ("import builtins; builtins.keep = [tx, rx]", 0),
    "a whole channel": ("ch = ProcessChannel(3); ch.send_nowait(1)", 0),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_ends_without_a_word(how: str) -> None:
    code, status = ENDINGS[how]
    done = program(
        f"""
        def started(fn):
            thread = threading.Thread(target=fn, daemon=True)
            thread.start()
            time.sleep(0.02)
        tx, rx = open_process_channel(5)
        {code}
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


WORKER_ENDS = {
    "returns": ("pass", 0, "BrokenChannel"),
    "closes": ("tx.close()", 0, "EndOfChannel"),
    "sys.exit": ("sys.exit(3)", 3, "BrokenChannel"),
    "os._exit": ("os._exit(4)", 4, "BrokenChannel"),
    "os._exit after close": ("tx.close(); os._exit(4)", 4, "EndOfChannel"),
    "closed by with": ("tx.__exit__(None, None, None); sys.exit(5)", 5, "EndOfChannel"),
}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("how", WORKER_ENDS)
def test_how_a_worker_ends_is_how_the_stream_ends(how: str, method: str, tmp_path: Path) -> None:
    """A worker that has not said that it is done has not finished the stream."""
    if method != "fork" and how not in ("closes", "sys.exit"):
        pytest.skip("once is enough")
    code, status, end = WORKER_ENDS[how]
    text = f"""
import multiprocessing, os, sys
from chanlib.processes import open_process_channel

def work(tx, rx):
    rx.close()
    tx.send_some([1, 2]).poll()
    {code}

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    tx, rx = open_process_channel(5)
    worker = context.Process(target=work, args=(tx, rx))
    worker.start()
    tx.close()
    got = []
    try:
        while True:
            got.append(rx.receive().sync(timeout=20))
    except Exception as error:
        print(got, type(error).__name__)
    worker.join()
    print(worker.exitcode)
    rx.close()
"""
    path = tmp_path / "program.py"
    path.write_text(text)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"[1, 2] {end}\n{status}\n", done.stderr
    assert done.stderr == ""
