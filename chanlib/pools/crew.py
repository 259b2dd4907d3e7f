"""The crew of a pool: drivers, which are threads, and what each sees of its worker, which is a process.

A driver gives its worker calls by a process channel, one ahead of that which is made, so that the worker need not wait
for it; and waits for what comes first: an answer, the end of a call's time, the death of the process (its results end),
or a ring for attention. So a call that has to be killed takes its own worker along and nobody else's.

A call that was given ahead is in the channel until the worker has taken it out. So it can be taken back there, by which
it is certain that it has not begun: when it is cancelled, when the worker has died, or when another driver has nothing
to do. For a call may wait for another one, and is not to wait behind it.

Invariants:
- `given` has the calls that are with this worker and not answered, in the order of the answers. Only the first of them
  can have begun.
- a call is with one driver, or in the queue, until its future is done.
"""

from __future__ import annotations

import math
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._core.engine import Instant
from ..errors import ChannelClosed, ChannelEmpty, TaskCancelled, WorkerDied
from ..events import Event
from ..groups import TaskGroup
from ..handles import TaskHandle
from ..processes.children import StartMethod
from ..processes.ends import ProcessReceiver, ProcessSender, open_process_channel
from ..processes.reports import unpack_error
from ..selecting import select
from ..timers import sleep
from .answers import Taken, unpickled
from .calls import Call
from .recall import recall
from .serving import DONE, FAILED, STOPPED, serve

if TYPE_CHECKING:
    from .works import Works

__all__ = ["Driver", "Worker"]

DEPTH = 2  # calls that a worker has: one that it makes, one ahead
_NOTES = 4096  # bytes of a channel that carries numbers
_LOOK = 0.02  # seconds between two looks at what a worker says, where no descriptor is left to wait by
_STARTS = 3  # workers that may die with a call that they have not begun, until that is its error
_CANCELLED, _TIMED_OUT = "cancelled", "timed out"


class Driver:
    """One thread, which has one worker at a time, or none."""

    def __init__(self, works: Works) -> None:
        self.works = works
        self.thread = 0
        self.attention = Event()
        self.given: deque[Call] = deque()
        self.worker: Worker | None = None
        self.wanted = False  # does another driver want what was given ahead?
        self.stopping: str | None = None  # why the first call is being stopped
        self.until = math.inf  # when it has to be over, or else be stopped, or else killed

    def live(self) -> None:
        works = self.works
        self.thread = get_ident()
        try:
            while (call := works.next_call(self)) is not None:
                self.give(call)
                del call
                while self.given:
                    self.look_after()
                worker = self.worker
                if worker is not None and worker.taken == works.max_tasks:
                    self.worker = None
                    worker.retire()
        except BaseException as error:  # of ours: nobody is to wait for ever
            for left in self.given:
                left.future._end(None, error)
            raise
        finally:
            works.left(self)
            if self.worker is not None:
                self.worker.retire()

    # ------------------------------------------------------------- giving
    def give(self, call: Call) -> bool:
        """False: there was no room for it."""
        works, future = self.works, call.future
        if not call.take(self.attention):
            return True
        if future._unwanted or works.halted:
            future._end_cancelled()
            return True
        worker = self.worker
        try:
            if worker is None:
                works.check()
                assert works.group is not None
                worker = self.worker = works.start(works.group)
            worker.calls.send(call.what).sync(0 if self.given else None)
        except TimeoutError:
            self.hand_back([call])
            return False
        except ChannelClosed:
            if self.given:  # it may have answered before it has died
                self.hand_back([call])
                return False
            self.given.append(call)
            self.bury(1)
            return True
        except Exception as error:  # it cannot be pickled; no process can be started
            future._end(None, error)
            return True
        worker.taken += 1
        self.given.append(call)
        if len(self.given) == 1:
            self.begin()
        return True

    def give_ahead(self) -> None:
        worker, works = self.worker, self.works
        while worker is not None and len(self.given) < DEPTH and worker.taken != works.max_tasks:
            call = works.call_ahead()
            if call is None or not self.give(call):
                return
            worker = self.worker

    def begin(self) -> None:
        """The first call begins about now, if the worker is there."""
        self.stopping = None
        self.until = math.inf
        if self.given and self.unwanted(self.given[0]):  # it has begun before it could be taken back
            self.attention.set()
        if self.given and self.worker is not None and self.worker.ready:
            limit = self.given[0].limit
            if limit is not None:
                self.until = monotonic() + limit

    # ------------------------------------------------------------- what comes first
    def look_after(self) -> None:
        if self.stopping is None:
            self.give_ahead()
        worker = self.worker
        if worker is None or not self.given:
            return
        try:
            record = self.hear(worker)
        except ChannelClosed:
            self.bury(recall(worker.calls))
            return
        if record is None:
            return
        if not worker.ready:  # its first word is that it is
            self.welcome(worker, unpickled(worker.results, record))
            return
        number = worker.answered + 1
        try:
            number, how, said = unpickled(worker.results, record)
            error = unpack_error(said) if how == FAILED else None
        except Exception as refused:  # it does not unpickle here
            how, said, error = FAILED, None, refused
        assert number == worker.answered + 1
        call, stopping = self.given.popleft(), self.stopping
        worker.answered += 1
        self.begin()
        future = call.future
        if stopping is _TIMED_OUT:
            self.end_stopped(call, stopping)
        elif how == DONE:
            future._end(said)
        elif how == FAILED:
            future._end(None, error)
        else:  # if nobody has asked for that, then by something that cancels scopes in there
            assert how == STOPPED
            future._end_cancelled()

    def welcome(self, worker: Worker, failure: bytes) -> None:
        """It is there; its initializer may have failed."""
        if failure:
            self.works.break_down(unpack_error(failure))
            self.bury(0)
            return
        worker.ready = True
        worker.let_go()
        if self.stopping is None:  # else it has begun a call already, which is to end
            self.begin()

    def hear(self, worker: Worker) -> Any:
        """What the worker says next; None: something else came first, and was seen to."""
        over = worker.handle.done  # looked at first: then all it has said is there
        try:
            return Taken(worker.results).poll()
        except ChannelEmpty:
            if over:  # and what its channels count may still be on the way to it
                raise ChannelClosed(f"{worker.handle!r} has ended") from None
        end = None if self.until == math.inf else Instant[float](self.until, monotonic)
        try:
            found = select(Taken(worker.results), self.attention, end, worker.starting()).sync()
        except ChannelClosed:
            raise
        except Exception as error:
            if worker.handle.done:  # it is that which was raised
                return None
            if not isinstance(error, OSError):
                raise
            sleep(_LOOK).sync()  # no descriptor is left to wait by
            return None
        if found[0] == 0:
            return found[1]
        if found[0] == 1:
            self.attend()
        elif found[0] == 2:
            self.time_is_over()
        return None

    def attend(self) -> None:
        """Somebody has rung: calls are cancelled, or another driver has nothing to do."""
        self.attention.clear()
        worker, works = self.worker, self.works
        assert worker is not None
        wanted, self.wanted = self.wanted, False
        if wanted or any(self.unwanted(call) for call in self.given):
            back = self.take_back(recall(worker.calls))
            self.hand_back(back)
        if wanted:
            works.tell_idle()
        if self.given and self.stopping is None and self.unwanted(self.given[0]):
            self.stop(_CANCELLED)

    def unwanted(self, call: Call) -> bool:
        return call.future._unwanted or self.works.halted

    def time_is_over(self) -> None:
        if self.stopping is None:
            self.stop(_TIMED_OUT)
        else:
            self.kill()

    # ------------------------------------------------------------- taking back
    def take_back(self, number: int) -> list[Call]:
        """The last so many of the calls that were given: they have not begun."""
        assert self.worker is not None
        number = min(number, len(self.given))
        self.worker.taken -= number
        return [self.given.pop() for _ in range(number)][::-1]

    def hand_back(self, calls: list[Call]) -> None:
        """They go back to the queue, first of all, if they are wanted."""
        works = self.works
        for call in calls:
            if works.halted:
                call.future._end_cancelled()
        works.return_calls([call for call in calls if not call.future.done() and call.hand_back()])

    # ------------------------------------------------------------- stopping
    def stop(self, why: str) -> None:
        """Have the first call end, which has begun; it has `grace` seconds for that."""
        worker = self.worker
        assert worker is not None
        self.stopping = why
        self.until = monotonic() + worker.grace
        if not worker.grace:
            self.kill()
            return
        try:
            worker.stops.send(worker.answered + 1).sync(0)
        except (ChannelClosed, OSError):  # its end will be heard of; or it is too busy to hear, and will be killed
            pass

    def kill(self) -> None:
        """It does not end: its process has to go. Nobody else waits for that."""
        worker, why = self.worker, self.stopping
        assert worker is not None
        assert why is not None
        self.hand_back(self.take_back(recall(worker.calls)))
        if len(self.given) > 1:  # it has begun the next one, so the answer is there
            return
        worker.handle.cancel(f"its call has {why}" if why is _TIMED_OUT else "its call was cancelled")
        self.worker = None
        worker.bury()
        while self.given:
            self.end_stopped(self.given.popleft(), why)
        self.begin()

    def end_stopped(self, call: Call, why: str) -> None:
        if why is _TIMED_OUT:
            call.future._end(None, TimeoutError(f"the call has taken more than {call.limit} s"))
        else:
            call.future._end_cancelled()

    def bury(self, fresh: int) -> None:
        """The worker has died. Of its calls the last `fresh` had not begun, and of the rest only the first had."""
        worker, works, why = self.worker, self.works, self.stopping
        assert worker is not None
        begun = worker.ready and fresh < len(self.given)
        back = self.take_back(len(self.given) - begun)
        self.worker = None
        died = worker.bury() or WorkerDied(worker.handle.name, None)
        for call in self.given:
            if why is None:
                call.future._end(None, died)
            else:
                self.end_stopped(call, why)
        self.given.clear()
        for call in back:
            call.starts += 1
            if works.broken is not None:
                call.future._end(None, works.broken_pool())
            elif call.starts == _STARTS:
                call.future._end(None, died)
        self.hand_back([call for call in back if not call.future.done()])
        self.begin()


class Worker:
    """One process, as its driver sees it."""

    def __init__(
        self,
        start_method: StartMethod | None,
        grace: float,
        name: str,
        hooks: tuple[Callable[..., object] | None, tuple[Any, ...], Callable[[], object] | None],
        group: TaskGroup,
    ) -> None:
        self.grace = grace
        self.ready = False  # is it there, and initialized?
        self.taken = 0  # calls that it was given and that were not taken back
        self.answered = 0
        with ExitStack() as undo:
            calls = _channel(undo, DEPTH)
            told = _channel(undo, DEPTH + 1)
            stops = _channel(undo, 4, buffer_bytes=_NOTES)
            self.calls = calls[0]
            self.results = told[1]
            self.stops: ProcessSender[int] = stops[0]
            given = (calls[1], told[0], stops[1])
            self.back = calls[1]  # open here, too: descriptors that go with a call can be taken back only so
            self.theirs: tuple[ProcessReceiver[Any] | ProcessSender[Any], ...] = given[1:]
            self.handle: TaskHandle[None] = group.start_process(
                serve, *given, *hooks, name=f"worker of {name}", grace=grace, start_method=start_method
            )
            undo.pop_all()

    def starting(self) -> TaskHandle[None] | None:
        """An arm of `select`: it has ended, which its channels do not tell while we have their other ends, too."""
        return self.handle if self.theirs else None

    def let_go(self) -> None:
        """It is there, or has ended. Only now: a process that is forked has the ends as they are then."""
        theirs, self.theirs = self.theirs, ()
        for end in theirs:
            end.close()

    def retire(self) -> None:
        """Let it end, in order; nobody waits for that but the group."""
        self.let_go()
        self.back.close()
        self.calls.close()
        self.results.close()
        self.stops.close()

    def bury(self) -> BaseException | None:
        """Wait for its end; what it has died of."""
        self.retire()
        try:
            self.handle.sync()
        except TaskCancelled:
            return None
        except BaseException as error:
            if not self.handle.done:
                raise
            return error
        return None


def _channel(undo: ExitStack, capacity: int, **options: Any) -> tuple[ProcessSender[Any], ProcessReceiver[Any]]:
    """Both ends are closed if what comes after cannot be had."""
    ends: tuple[ProcessSender[Any], ProcessReceiver[Any]] = open_process_channel(capacity, **options)
    for end in ends:
        undo.callback(end.close)
    return ends
