"""The benchmarks measure what they say. Few items are moved, and nothing is judged by the time it takes."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

import chanlib

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks import loops, peers, processes, runner, scenarios, structured, worker  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.loops import Words, speak  # noqa: E402
from benchmarks.report import Paper, cell_json, show_cell, show_summary  # noqa: E402
from benchmarks.runner import Cell, Entry, Options  # noqa: E402
from benchmarks.scenarios import SCENARIOS  # noqa: E402
from benchmarks.sides import SIDES  # noqa: E402
from benchmarks.targets import ROWS, Goal, Row, goal, judge  # noqa: E402
from benchmarks.worker import Figure, Job  # noqa: E402

CAPACITIES: list[int | None] = [0, 1, 100, None]
FEW = 20  # items

FAKES = """
import asyncio
from functools import partial
from benchmarks.loops import Words
from benchmarks.peers import ASYNCIO, Form, Peer, add

class Losing(asyncio.Queue):
    async def get(self):
        value = await super().get()
        return value if value < 7 else object()

class Stuck(asyncio.Queue):
    async def get(self):
        await asyncio.Event().wait()

class Broken(asyncio.Queue):
    async def get(self):
        raise OSError("out of order")

class Dying(asyncio.Queue):
    async def get(self):
        raise SystemExit(__import__("os")._exit(7))

form = Form(Words("put", "get"), worlds=ASYNCIO)
for fake in Losing, Stuck, Broken, Dying:
    add(Peer(fake.__name__, "asyncio", partial(partial, fake), form))
add(Peer("Absent", "no_such_package", partial(partial, Stuck), form))
"""


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The name of a module that adds peers with which something is wrong; the workers find it too."""
    (tmp_path / "fake_peers.py").write_text(FAKES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kept = peers.PEERS[:]
    yield "fake_peers"
    peers.PEERS[:] = kept
    sys.modules.pop("fake_peers", None)


def a_cell(scenario: str = "spsc", side: str = "asyncio", capacity: float | None = 100) -> Cell:
    return Cell(
        next(found for found in SCENARIOS if found.name == scenario),
        next(found for found in SIDES if found.name == side),
        capacity,
    )


def job_id(job: Job) -> str:
    return f"{job.scenario}-{job.peer}-{job.side}-{job.capacity}"


def existing(wanted: Callable[[Job], bool]) -> list[Job]:
    """The jobs that exist here and are wanted."""
    found = []
    for scenario in SCENARIOS:
        if not scenario.channels:
            continue
        for peer in peers.PEERS:
            for side in SIDES:
                for capacity in CAPACITIES:
                    limit = math.inf if capacity is None else capacity
                    job = Job(scenario.name, peer.name, side.name, capacity, items=FEW)
                    if not (
                        side.missing
                        or peer.missing
                        or scenario.weigh
                        or scenario.lacks(side, limit)
                        or peer.lacks(scenario.name, scenario.needs, side, limit)
                    ) and wanted(job):
                        found.append(job)
    return found


def part_is_there(job: Job) -> bool:
    """Is what chanlib needs for it written yet?"""
    if not job.peer.startswith("chanlib"):
        return True
    if find_spec("chanlib.processes") is None:
        return False
    needed = "WorkerPool" if job.scenario.startswith("process_pool") else "open_process_channel"
    return hasattr(import_module("chanlib.processes"), needed)


def existing_without_channels(between_processes: bool = False) -> list[Job]:
    """The jobs about tasks, scopes and threads that exist here; or those about processes."""
    return [
        Job(scenario.name, peer.name, side.name, None, items=FEW)
        for scenario in SCENARIOS
        for peer in peers.PEERS
        for side in SIDES
        if (side.left == "process") is between_processes
        and not (
            scenario.channels
            or scenario.missing
            or side.missing
            or peer.missing
            or scenario.lacks(side, None)
            or peer.lacks(scenario.name, scenario.needs, side, None)
        )
    ]


# ------------- what runs
def test_a_loop_in_the_words_of_a_peer_is_what_its_user_would_have_written() -> None:
    async def in_tasks(tx: Any, items: int) -> None:
        for i in range(items):
            await tx.put(i)

    def in_threads(tx: Any, items: int) -> None:
        for i in range(items):
            tx.put(i)

    def by_chanlib(tx: Any, items: int) -> None:
        for i in range(items):
            tx.send(i).sync()

    def to_and_fro(rx: Any, tx: Any, items: int) -> None:
        for _ in range(items):
            tx.put(rx.get())

    def hold(TaskGroup: Any, Channel: Any, child: Callable[[Any], Any], tx: Any, go: Any, items: int) -> None:
        with TaskGroup() as group:
            for _ in range(items):
                quiet = Channel(0)
                tx.send((group.start_thread(child, quiet), quiet)).sync()
                go.receive().sync()

    def one_and_all(rx: Any, stretches: list[float], items: int) -> None:
        rx.receive().sync()
        stretches.append(perf_counter())
        for _ in rx:
            pass
        stretches.append(perf_counter())

    for loop, words, written in [
        (loops.produce, Words("put", "get"), in_tasks),
        (loops.produce, Words("put", "get", "call"), in_threads),
        (loops.produce, Words(wait="sync"), by_chanlib),
        (loops.pong, Words("put", "get", "call"), to_and_fro),
        (structured.hold, Words(wait="sync"), hold),
        (processes.take_each, Words(wait="sync"), one_and_all),
    ]:
        spoken = speak(loop, words)
        assert spoken.__name__ == loop.__name__
        assert spoken.__globals__ is loop.__globals__
        ours, theirs = spoken.__code__, written.__code__
        for part in ("co_code", "co_names", "co_varnames", "co_flags"):
            if part == "co_flags":  # but that one of them was written inside a function
                assert (ours.co_flags ^ theirs.co_flags) & ~0x10 == 0
            else:
                assert getattr(ours, part) == getattr(theirs, part), (loop, words, part)


def test_a_loop_keeps_its_place_in_the_file() -> None:
    def lines(loop: Any) -> list[Any]:
        return sorted({place[0] for place in loop.__code__.co_positions()} - {None})

    spoken = speak(loops.pong, Words("put", "get"))
    assert lines(spoken) == lines(loops.pong)
    assert spoken.__code__.co_filename == loops.pong.__code__.co_filename


@pytest.mark.parametrize(
    "job", existing(lambda job: job.peer.startswith("chanlib") and job.capacity in (0, 100)), ids=job_id
)
def test_every_scenario_moves_all_items_through_chanlib(job: Job) -> None:
    copies = {"pingpong": 2, "request_reply": 2, "broadcast": 4}.get(job.scenario, 1)
    items = {"cancel_storm": 1, "seq": 100}.get(job.scenario, FEW)
    assert worker.check(job) == items * copies


@pytest.mark.parametrize(
    "job", existing(lambda job: job.peer != "chanlib" and job.scenario == "spsc" and job.capacity == 100), ids=job_id
)
@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")  # a benchmark is over when it is over
def test_every_peer_that_is_installed_moves_all_items(job: Job) -> None:
    assert worker.check(job) == FEW


@pytest.mark.parametrize(
    "job",
    existing(lambda job: job.peer.startswith("asyncio") and job.side == "asyncio" and job.capacity == 1),
    ids=job_id,
)
def test_every_scenario_that_exists_for_an_asyncio_queue_runs(job: Job) -> None:
    figure = worker.measure(job)
    assert figure.value > 0
    assert figure.items == (64 if job.scenario == "cancel_storm" else FEW)
    assert figure.engine is None or figure.engine == worker.measure(Job("seq", "chanlib", "trio", 1, items=1)).engine


@pytest.fixture
def smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "TASKS", 40)
    monkeypatch.setattr(scenarios, "THREADS", 10)


@pytest.mark.usefixtures("smaller_groups")
@pytest.mark.parametrize("job", existing_without_channels(), ids=job_id)
def test_all_tasks_and_threads_that_are_started_end(job: Job) -> None:
    ended = {"group_spawn": 40, "group_cancel": 40, "group_scopes": 1, "group_pair": 2}
    assert worker.check(job) == ended.get(job.scenario, FEW)


SIZES_TRIED = ("process_bytes_16", "process_bytes_1m")  # of all


@pytest.mark.parametrize(
    "job",
    [
        job
        for job in existing_without_channels(between_processes=True)
        if part_is_there(job) and (job.scenario in SIZES_TRIED or not job.scenario.startswith("process_bytes"))
    ],
    ids=job_id,
)
def test_everything_comes_from_another_process(job: Job) -> None:
    assert worker.check(job) == {"process_broken": 4}.get(job.scenario, FEW)


@pytest.mark.parametrize("scenario", ["process_ints", "process_round_trip"])
def test_what_it_takes_to_start_a_process_is_not_in_the_figure(scenario: str) -> None:
    chosen = next(found for found in SCENARIOS if found.name == scenario)
    slow = [100.0, 101.0, 101.5, 102.0, 102.0]  # a moment each, or a stretch each
    assert chosen.figure is not None
    assert chosen.figure(slow, 5) == {"process_ints": 0.5, "process_round_trip": 101.5}[scenario]


SLOW = """
from time import perf_counter, sleep

sleep(0.2)
imported = perf_counter()

def when():
    return imported
"""


def test_processes_begin_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slow_to_start.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    heard: list[float] = []
    slow = import_module("slow_to_start")
    for child in processes.start_together(
        [processes.Away(perf_counter, heard.append), processes.Away(slow.when, heard.append)]
    ):
        child.wait()
    assert heard[0] > heard[1]


GIVERS = """
import os

def lose_one(tx, items):
    for i in range(items):
        tx.put(i + (i > 7))

def turn_round(tx, items):
    for i in reversed(range(items)):
        tx.put(i)

def fail(tx, items):
    raise OSError("out of order")

def die(tx, items):
    os._exit(7)
"""


@pytest.mark.parametrize(
    ("give", "error"),
    [
        ("lose_one", "of 20 values 1 were lost, and 1 came out that should not"),
        ("turn_round", "the values came out in another order"),
        ("fail", "in another process: OSError: out of order"),
        ("die", "in another process: it ended with exit code 7"),
    ],
)
def test_what_goes_wrong_in_another_process_is_noticed(
    give: str, error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"givers_{give}"  # one of its own, since modules stay
    (tmp_path / f"{name}.py").write_text(GIVERS)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = next(peer for peer in peers.PEERS if peer.name == "multiprocessing.SimpleQueue")
    wrong = replace(chosen, processes=replace(chosen.processes, give=getattr(import_module(name), give)))
    monkeypatch.setattr(worker, "PEERS", [wrong])
    with pytest.raises((AssertionError, RuntimeError), match=error):
        worker.check(Job("process_ints", chosen.name, "process-thread", None, items=FEW))


@pytest.mark.usefixtures("smaller_groups")
@pytest.mark.parametrize(
    "job",
    [job for job in existing_without_channels() if job.peer == "chanlib" and job.side in ("trio", "thread-thread")],
    ids=job_id,
)
def test_a_scenario_without_channels_has_a_figure(job: Job) -> None:
    figure = worker.measure(job)
    assert figure.value > 0
    assert figure.items == (40 if job.scenario in ("group_spawn", "group_cancel") else FEW)


def test_a_figure_may_be_of_the_stretches_that_a_loop_has_timed() -> None:
    stretches = [second / 100 for second in range(101)]
    for name, figure in (("group_cancel", 0.101), ("group_stop", 0.5), ("group_stop_p99", 0.99)):
        scenario = next(found for found in SCENARIOS if found.name == name)
        assert scenario.figure is not None
        assert scenario.figure(stretches, 500) == pytest.approx(figure)


def test_a_thread_that_comes_through_its_cancellation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(rx: Any, items: int) -> None:
        try:
            await rx.receive()
        except chanlib.Cancelled:
            pass

    monkeypatch.setattr(loops, "consume", deaf)
    with pytest.raises(RuntimeError, match="came through its cancellation"):
        worker.check(Job("group_stop", "chanlib", "thread-thread", None, items=FEW))


class _Fan:
    """What the adapter takes chanlib's broadcast to be."""

    def __init__(self, capacity: float, *, overflow: str) -> None:
        assert overflow == "wait"
        self._made = partial(chanlib.Channel[int], capacity)
        self._all: list[chanlib.Channel[int]] = []

    def subscribe(self) -> chanlib.Channel[int]:
        self._all.append(self._made())
        return self._all[-1]

    async def send(self, value: int) -> None:
        for channel in self._all:
            await channel.send(value)


def test_a_broadcast_of_its_own_is_compared_with_fan_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chanlib, "Broadcast", _Fan, raising=False)
    assert worker.check(Job("broadcast", "chanlib.Broadcast", "asyncio", 10, items=FEW)) == 4 * FEW


def test_a_value_that_is_lost_is_noticed(fakes: str) -> None:
    with pytest.raises(AssertionError, match="of 20 values 13 were lost, and 13 came out that should not"):
        worker.check(Job("spsc", "Losing", "asyncio", 100, items=FEW, modules=(fakes,)))


def test_memory_is_weighed_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import memory

    monkeypatch.setattr(memory, "CHANNELS", 10)
    monkeypatch.setattr(memory, "TASKS", 10)
    for scenario in ("memory_idle", "memory_parked"):
        assert 100 < worker.measure(Job(scenario, "asyncio.Queue", "asyncio", 100)).value < 100_000


# ------------- rounds and processes
def test_rounds_alternate_between_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def add_round(entry: Entry, cell: Cell, options: Options) -> None:
        order.append(entry.peer)

    monkeypatch.setattr(runner, "add_round", add_round)
    chosen = [peer for peer in peers.PEERS if peer.name in ("chanlib", "asyncio.Queue", "anyio")]
    runner.run_cell(a_cell(), chosen, Options(rounds=2))
    assert order == ["chanlib", "asyncio.Queue", "anyio", "anyio", "asyncio.Queue", "chanlib"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_a_worker_has_started_ends_with_it_when_it_hangs(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(subprocess.TimeoutExpired):
        runner.run_worker(["sh", "-c", f"(echo here; sleep 3600) > {fifo} & wait"], 1)
    os.set_blocking(reader, True)
    with open(reader) as text:
        assert text.read() == "here\n"  # up to the end, which comes when nobody has it open any more


@pytest.mark.parametrize(
    ("peer", "patience", "trouble"),
    [
        ("Stuck", 0.5, "hung"),
        ("Broken", 60, "failed: OSError: out of order"),
        ("Dying", 60, "failed: exit code 7, no output"),
    ],
)
def test_a_peer_that_hangs_or_fails_says_so_and_has_no_more_rounds(
    fakes: str, peer: str, patience: float, trouble: str
) -> None:
    heard: list[str] = []
    __import__(fakes)
    chosen = [found for found in peers.PEERS if found.name == peer]
    options = Options(rounds=3, items=FEW, patience=patience, modules=(fakes,))
    (entry,) = runner.run_cell(a_cell(), chosen, options, heard.append)
    assert (entry.trouble, entry.figures, len(heard)) == (trouble, [], 1)


def test_a_run_measures_the_others_and_writes_everything_down(
    fakes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    arguments = f"spsc --side asyncio --capacity 1 --rounds 1 --items {FEW} --peer Broken,Absent --with {fakes}"
    assert main([*arguments.split(), "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "left out: Absent: no_such_package is not installed" in shown
    assert "failed: OSError: out of order" in shown
    text = file.read_text()
    written = json.loads(text)
    assert written["schema"] == 1
    assert written["python"]["version"] == platform.python_version()
    assert {"chanlib", "anyio"} <= set(written["packages"])
    assert set(written["machine"]) == {"cpu", "count", "platform"}
    assert len(written["load"]) == 2
    assert str(ROOT) not in text
    assert written["options"] == {"rounds": 1, "seconds": None, "items": FEW, "timeout": 60}
    assert written["left_out"] == ["left out: Absent: no_such_package is not installed"]
    (cell,) = written["cells"]
    assert (cell["scenario"], cell["side"], cell["capacity"], cell["unit"]) == ("spsc", "asyncio", 1, "ns")
    ours, theirs = cell["peers"]
    assert ours["peer"] == cell["base"] == "chanlib"
    assert ours["figures"] == [ours["median"]]
    assert ours["items"] == [FEW]
    assert (ours["trouble"], ours["ratio"]) == (None, 1)
    assert (theirs["peer"], theirs["figures"], theirs["median"]) == ("Broken", [], None)
    assert theirs["trouble"] == "failed: OSError: out of order"


def test_a_cell_without_channels_has_no_capacity(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["group_scopes", *f"--side asyncio --rounds 1 --items {FEW} --json".split(), str(file)]) == 0
    assert "\ngroup_scopes, asyncio (three nested" in capsys.readouterr().out
    (cell,) = json.loads(file.read_text())["cells"]
    assert (cell["capacity"], cell["item"]) == (None, "all three")
    assert [entry["peer"] for entry in cell["peers"]] == ["chanlib", "anyio", "asyncio.timeout"]


# ------------- what is asked for
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("spcs", "argument SCENARIO: there is no 'spcs'; allowed are seq, spsc, mpsc"),
        ("spsc --side disk", "argument --side: there is no 'disk'; allowed are asyncio, uvloop, trio"),
        (
            "spsc --peer zmq",
            "argument --peer: there is no 'zmq'; allowed are chanlib, chanlib.Broadcast, asyncio.Queue",
        ),
        ("spsc --capacity -1", "argument --capacity"),
        ("spsc --capacity many", "argument --capacity: 'many' is neither a number from 0 on nor 'unbounded'"),
        ("--rounds 0", "argument --rounds: '0' is not a whole number of at least 1"),
        ("--timeout nan", "argument --timeout: 'nan' is not a number of seconds above 0"),
        ("--with no_such_module", "argument --with: No module named 'no_such_module'"),
        ("spsc --json /no/such/place/file", "argument --json: there is no directory"),
        ("seq --side loop-to-loop", "seq does not exist on loop-to-loop"),
        ("seq --capacity 0", "seq does not exist at capacity 0"),
        ("spsc --side asyncio --peer queue.Queue", "queue.Queue in spsc, asyncio: it has no form for tasks"),
        ("spsc --side thread --peer asyncio.Queue", "asyncio.Queue in spsc, thread-thread: it has no form for threads"),
        ("spsc --side loop --peer asyncio.Queue", "asyncio.Queue in spsc, loop-to-loop: it is not thread-safe"),
        ("spsc --side loop --peer janus", "janus in spsc, loop-to-loop: it belongs to one loop"),
        ("spsc --side trio --peer janus", "janus in spsc, trio: it does not run on trio"),
        ("spsc --capacity 0 --peer janus", "janus in spsc, asyncio: it has no capacity 0"),
        ("select_rx --peer janus", "janus in select_rx, asyncio: it has no select"),
        (
            "select_both --peer asyncio.wait",
            "asyncio.wait-one in select_both, asyncio: its select is not for select_both",
        ),
        ("spsc --peer asyncio.wait", "asyncio.wait-one in spsc, asyncio: it is only for select_"),
        ("pingpong --summary", "no target is about that"),
        ("group_spawn --side trio --peer janus", "janus in group_spawn, trio: it has nothing for group_spawn"),
        ("group_cancel --side uvloop --peer trio", "trio in group_cancel, uvloop: it does not run on uvloop"),
        ("spsc --peer sequence", "sequence in spsc, asyncio: it is only for group_"),
        ("group_scopes --side thread-thread", "group_scopes does not exist on thread-thread"),
        ("process_trio --side process-asyncio", "process_trio does not exist on process-asyncio"),
        (
            "process_trio --peer faster_fifo",
            "faster_fifo in process_trio, process-trio: it has no form for tasks",
        ),
        (
            "process_pairs --peer multiprocessing.Pipe",
            "multiprocessing.Pipe in process_pairs, process-thread: it has nothing for process_pairs",
        ),
        ("process_ints --peer janus", "janus in process_ints, process-thread: it has nothing for process_ints"),
        ("spsc --side thread-thread --peer loky", "loky in spsc, thread-thread: it is only for process_"),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_the_list_names_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    for named in (*SCENARIOS, *SIDES, *peers.PEERS):
        assert f"  {named.name} " in shown


# ------------- targets and tables
def entry(peer: str, *values: float, trouble: str | None = None, engine: str | None = None) -> Entry:
    return Entry(peer, [Figure(value, 1000, engine) for value in values], trouble)


ROW = Row("a row", "spsc", "asyncio", 100, "peer", goal(2), goal(4, 3, 2))


@pytest.mark.parametrize(
    ("theirs", "verdict", "sure"),
    [
        ((200, 220, 240), "met", True),
        ((190, 220, 240), "met", False),
        ((100, 190, 150), "missed", True),
        ((100, 210, 150), "missed", False),
    ],
)
def test_a_verdict_compares_the_medians(theirs: tuple[float, ...], verdict: str, sure: bool) -> None:
    judged = judge(ROW, [entry("chanlib", 100, 100, 100, engine="pure"), entry("peer", *theirs)])
    assert (judged.engine, judged.target, judged.verdict, judged.sure) == ("pure", 2, verdict, sure)


def test_the_target_is_that_of_the_engine_which_ran() -> None:
    judged = judge(ROW, [entry("chanlib", 100, engine="native"), entry("peer", 250)])
    assert (judged.engine, judged.target) == ("native", ROW.native.here())


def test_a_figure_can_be_held_against_a_limit() -> None:
    row = ROW._replace(against="300 ns", pure=goal(1), limit=300)
    judged = judge(row, [entry("chanlib", 100, 150, 200)])
    assert (judged.ratio, judged.ratio_range, judged.verdict, judged.sure) == (2, (1.5, 3), "met", True)
    judged = judge(row, [entry("chanlib", 400, 350, 200)])
    assert (judged.verdict, judged.sure) == ("missed", False)
    assert judge(row, [entry("chanlib", trouble="hung")]).verdict == "chanlib hung; 300 ns has no figure"
    assert judge(row, []).verdict == "chanlib was not measured; 300 ns was not measured"


def test_where_there_is_no_target_the_figure_is_shown_and_not_judged() -> None:
    row = ROW._replace(pure=Goal(None, None, None))
    judged = judge(row, [entry("chanlib", 100), entry("peer", 150)])
    assert (judged.target, judged.ratio, judged.verdict, judged.sure) == (None, 1.5, "no target here", True)
    out = io.StringIO()
    show_summary(Paper(out), [judged])
    shown = " ".join(out.getvalue().split())
    assert "a row asyncio, 100 peer 1.50x 1.50 to 1.50 no target here" in shown
    assert "0 of 0 targets met" in shown


def test_a_row_without_a_figure_says_why() -> None:
    assert judge(ROW, [entry("chanlib", 1), entry("peer", trouble="hung")]).verdict == "peer hung"
    assert judge(ROW, [entry("chanlib", 1)]).verdict == "peer was not measured"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.scenario}-{row.side}-{row.capacity}-{row.against}")
def test_every_target_is_about_something_that_exists(row: Row) -> None:
    cell = a_cell(row.scenario, row.side, row.capacity)
    peer = next(peer for peer in peers.PEERS if peer.name == ("chanlib" if row.limit else row.against))
    assert (cell.capacity is None) == (not cell.scenario.channels)
    assert cell.scenario.lacks(cell.side, cell.capacity) is None
    assert peer.lacks(row.scenario, cell.scenario.needs, cell.side, cell.capacity) is None


ENTRIES = [
    entry("chanlib", 100, 120, 110, engine="pure"),
    entry("fine", 220, 240, 275),
    entry("stuck", trouble="hung"),
    entry("broken", 500, trouble="failed: no more"),
]


def test_a_plain_table_shows_median_quartiles_ratio_and_trouble() -> None:
    out = io.StringIO()
    show_cell(Paper(out), a_cell(), ENTRIES)
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines == [
        "spsc, asyncio, capacity 100 (one producer, one consumer)",
        "peer ns for a value quartiles beside chanlib rounds",
        "chanlib 110 105 to 115",
        "fine 240 230 to 258 2.18x 2.00 to 2.50",
        "stuck hung",
        "broken 500 (failed: no more) 500 to 500 4.55x 5.00 to 5.00",
        "",
    ]


def test_the_summary_shows_target_figure_and_verdict() -> None:
    out = io.StringIO()
    rows = [ROW._replace(against=peer) for peer in ("fine", "stuck")]
    show_summary(Paper(out), [judge(row, ENTRIES) for row in rows])
    shown = " ".join(out.getvalue().split())
    assert "a row asyncio, 100 fine 2x 2.18x 2.00 to 2.50 met" in shown
    assert "a row asyncio, 100 stuck 2x stuck hung" in shown
    assert "1 of 2 targets met" in shown


@pytest.mark.skipif(find_spec("rich") is None, reason="no rich")
def test_on_a_terminal_the_table_is_one_of_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setitem(os.environ, "COLUMNS", "120")
    out = Terminal()
    paper = Paper(out)
    paper.passing("under way")
    show_cell(paper, a_cell(), ENTRIES)
    shown = out.getvalue()
    assert "under way" in shown
    assert "2.18x" in shown
    assert "─" in shown


def test_json_of_a_cell_has_no_ratio_for_what_has_no_figure() -> None:
    written = json.loads(json.dumps(cell_json(a_cell(capacity=math.inf), ENTRIES)))
    assert written["capacity"] == "unbounded"
    ours, fine, stuck, broken = written["peers"]
    assert ours["engine"] == "pure"
    assert (fine["median"], fine["quartiles"], fine["range"]) == (240, [230, 257.5], [220, 275])
    assert (fine["ratio_range"], stuck["ratio"], stuck["trouble"]) == ([2.0, 2.5], None, "hung")
    assert broken["figures"] == [500]
