"""Cancel scopes, errors, and code that waits while it is cancelled. One body for all four backends.

The cases follow anyio's `tests/test_taskgroups.py` and trio's `test_run.py`, written afresh.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from census import Census
from until import parked, settle

from chanlib import (
    Cancelled,
    CancelScope,
    Channel,
    Event,
    Lock,
    Semaphore,
    TaskGroup,
    checkpoint,
    fail_after,
    get_cancelled_exc_class,
    move_on_after,
    run,
)

pytestmark = pytest.mark.usefixtures("census")


def raises(error: type[BaseException], match: str | None = None) -> Any:
    """pytest's, for a block of several statements: it matters from where in it the error comes."""
    return pytest.raises(error, match=match)


def cancels(match: str | None = None) -> Any:
    """What stands inside is cancelled, and goes on after it."""
    return pytest.raises(get_cancelled_exc_class(), match=match)


# ------------------------------------------------------------------------------ errors
def test_an_error_raised_while_being_cancelled_wins(backend: str) -> None:
    """As trio: test_exception_chaining_after_throw."""

    async def body() -> None:
        with raises(ValueError, match="tidying") as caught, CancelScope() as scope:
            scope.cancel()
            try:
                await Event().wait()
            finally:
                raise ValueError("tidying")
        assert isinstance(caught.value.__context__, get_cancelled_exc_class())
        assert not scope.cancelled_caught

    run(body, backend=backend)


def test_a_cancellation_raised_while_an_error_is_handled_knows_it(backend: str) -> None:
    async def body() -> None:
        seen = []
        with CancelScope() as scope:
            try:
                raise KeyError("first")
            except KeyError:
                scope.cancel()
                try:
                    await Event().wait()
                except get_cancelled_exc_class() as error:
                    seen.append(error.__context__)
                    raise
        assert scope.cancelled_caught
        assert isinstance(seen[0], KeyError)

    run(body, backend=backend)


@pytest.mark.parametrize("nested", [False, True])
def test_a_cancellation_is_taken_out_of_a_group_of_errors(backend: str, nested: bool) -> None:
    """As anyio: test_exception_group_filtering, test_nested_exception_group_filtering."""

    async def body() -> None:
        mine = ValueError("mine")
        with raises(BaseExceptionGroup) as caught, CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except get_cancelled_exc_class() as error:
                group: BaseExceptionGroup[Any] = BaseExceptionGroup("both", [mine, error])
                if nested:
                    group = BaseExceptionGroup("outer", [group])
                raise group from None
        assert scope.cancelled_caught
        left: Any = caught.value
        assert isinstance(left, ExceptionGroup)
        if nested:
            (left,) = left.exceptions
        assert left.message == "both"
        assert left.exceptions == (mine,)

    run(body, backend=backend)


def test_a_group_of_nothing_but_cancellations_is_caught(backend: str) -> None:
    """As anyio: test_reraise_cancelled_in_excgroup."""

    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except get_cancelled_exc_class() as error:
                raise BaseExceptionGroup("", [BaseExceptionGroup("", [error])]) from None
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_a_group_without_a_cancellation_passes_a_cancelled_scope(backend: str) -> None:
    """As trio: test_cancel_scope_no_cancellederror."""

    async def body() -> None:
        with pytest.RaisesGroup(RuntimeError, KeyError), CancelScope() as scope:
            scope.cancel()
            raise ExceptionGroup("test", [RuntimeError(), KeyError()])
        assert not scope.cancelled_caught

    run(body, backend=backend)


def test_an_error_of_one_child_and_the_cancellation_of_others_come_out_as_the_error(
    backend: str, census: Census
) -> None:
    """As trio: test_cancel_scope_exceptiongroup_filtering."""

    async def body() -> None:
        event = census.watch(Event())

        async def crashes() -> None:
            try:
                await event.wait()
            except get_cancelled_exc_class():
                raise KeyError("crash") from None

        with pytest.RaisesGroup(KeyError), CancelScope() as outer:
            async with TaskGroup() as group:
                group.start_soon(event.wait)
                group.start_soon(crashes)
                await settle(lambda: event.statistics().waiting == 2)
                outer.cancel()
                await event.wait()

    run(body, backend=backend)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_other_errors_pass_a_scope(backend: str, error: type[BaseException]) -> None:
    mine = error("mine")

    async def body() -> None:
        for called in (False, True):
            with raises(error) as caught, CancelScope() as scope:
                if called:
                    scope.cancel()
                raise mine
            assert caught.value is mine
            assert mine.__context__ is None
            assert not scope.cancelled_caught

    run(body, backend=backend)


def test_a_keyboard_interrupt_comes_out_of_run(backend: str) -> None:
    async def body() -> None:
        with CancelScope(), fail_after(30):
            await checkpoint()
            raise KeyboardInterrupt("here")

    with pytest.raises(KeyboardInterrupt, match="here"):
        run(body, backend=backend)


@pytest.mark.parametrize("error", [Cancelled, "native"])
def test_a_cancellation_raised_by_hand_passes_scopes_that_were_not_cancelled(backend: str, error: Any) -> None:
    """trio's own cannot be made by hand; there it is one that was caught before."""

    async def body() -> str:
        kept: BaseException = Cancelled("by hand")
        if error == "native":
            with CancelScope() as scope:
                scope.cancel()
                try:
                    await checkpoint()
                except get_cancelled_exc_class() as mine:
                    kept = mine
        with pytest.raises(type(kept)) as caught, CancelScope() as scope:
            raise kept
        assert caught.value is kept
        assert not scope.cancelled_caught
        return "passed"

    assert run(body, backend=backend) == "passed"


def test_except_exception_does_not_catch_a_cancellation(backend: str) -> None:
    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except Exception:
                pytest.fail("a cancellation is no Exception")
        assert scope.cancelled_caught
        assert not issubclass(get_cancelled_exc_class(), Exception)

    run(body, backend=backend)


@pytest.mark.parametrize("way", ["return", "break", "continue"])
def test_leaving_a_cancelled_scope_by_a_statement(backend: str, way: str) -> None:
    async def rounds() -> list[int]:
        done = []
        for n in range(3):
            with CancelScope() as scope:
                scope.cancel()
                with cancels():
                    await checkpoint()
                done.append(n)
                if way == "return":
                    return done
                if way == "break":
                    break
                continue
        return done

    async def body() -> list[int]:
        done = await rounds()
        await checkpoint()
        return done

    assert run(body, backend=backend) == ([0, 1, 2] if way == "continue" else [0])


@pytest.mark.parametrize("way", ["return", "break", "continue"])
def test_a_cancellation_that_is_swallowed_comes_again(backend: str, way: str) -> None:
    async def swallows() -> None:
        for _ in range(3):
            try:
                await checkpoint()
            except get_cancelled_exc_class():
                if way == "return":
                    return
                if way == "break":
                    break
                continue

    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel()
            await swallows()
            await checkpoint()
            pytest.fail("level-triggered")
        assert scope.cancelled_caught

    run(body, backend=backend)


def test_scopes_in_context_managers_made_of_generators(backend: str) -> None:
    async def body() -> list[str]:
        log = []

        @contextlib.contextmanager
        def limited() -> Iterator[CancelScope]:
            with move_on_after(30) as scope:
                yield scope
                log.append("not cancelled")
            log.append("left")

        @contextlib.asynccontextmanager
        async def alimited() -> AsyncIterator[CancelScope]:
            with CancelScope() as scope:
                try:
                    await checkpoint()
                    yield scope
                finally:
                    with CancelScope(shield=True):
                        await checkpoint()
                    log.append("tidied")

        with limited() as scope:
            scope.cancel()
            await checkpoint()
        assert scope.cancelled_caught
        async with alimited() as scope:
            scope.cancel()
            await checkpoint()
        assert scope.cancelled_caught
        with pytest.raises(ValueError, match="mine"), limited():
            raise ValueError("mine")
        return log

    assert run(body, backend=backend) == ["left", "tidied"]


def test_scopes_inside_an_asynchronous_generator(backend: str) -> None:
    """As anyio: test_cancel_host_asyncgen."""

    async def body() -> list[int]:
        async def numbers() -> AsyncIterator[int]:
            for n in range(3):
                with CancelScope() as scope:
                    scope.cancel()
                    with cancels():
                        await checkpoint()
                yield n

        return [n async for n in numbers()]

    assert run(body, backend=backend) == [0, 1, 2]


def test_chanlib_objects_in_async_with_and_async_for(backend: str, census: Census) -> None:
    async def body() -> list[int]:
        ch, lock, semaphore = census.watch(Channel[int](0)), census.watch(Lock()), census.watch(Semaphore(1))
        got = []

        async def sends() -> None:
            async with ch:
                for n in range(5):
                    async with lock, semaphore:
                        await ch.send(n)

        async def doubled() -> AsyncIterator[int]:
            async for n in ch:
                yield 2 * n

        async with TaskGroup() as group:
            group.start_soon(sends)
            with fail_after(30):
                async for n in doubled():
                    got.append(n)
                    async with contextlib.AsyncExitStack() as stack:
                        stack.enter_context(CancelScope())
        assert not lock.locked()
        return got

    assert run(body, backend=backend) == [0, 2, 4, 6, 8]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
def test_a_cancelled_scope_leaves_no_cycle(backend: str) -> None:
    """As trio: test_simple_cancel_scope_usage_doesnt_create_cyclic_garbage (trio issue #1770)."""

    async def cancelled() -> None:
        with CancelScope() as scope:
            scope.cancel()
            await Event().wait()
        with contextlib.suppress(TimeoutError), fail_after(0):
            await Event().wait()

    async def body() -> None:
        await cancelled()
        while gc.collect():  # what the tests before have left: once is not always enough without a GIL
            pass
        flags = gc.get_debug()
        gc.disable()
        try:
            gc.set_debug(gc.DEBUG_SAVEALL)
            await cancelled()
            await cancelled()
            gc.collect()
            ours = [x for x in gc.garbage if type(x).__module__.startswith(("chanlib", "test"))]
            assert not ours
            assert not [x for x in gc.garbage if isinstance(x, BaseException)]
        finally:
            gc.set_debug(flags)
            gc.enable()
            gc.garbage.clear()

    run(body, backend=backend)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
def test_what_a_cancelled_child_held_goes_with_it(backend: str, census: Census) -> None:
    """As trio: test_locals_destroyed_promptly_on_cancel."""

    class Held:
        pass

    async def body() -> None:
        event = census.watch(Event())
        gone = []

        async def child() -> None:
            held = Held()
            weakref.finalize(held, gone.append, "gone")
            await event.wait()
            del held

        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(child)
                await parked(event)
                scope.cancel()
        del group
        for _ in range(100):
            await checkpoint()
            if gone:
                break
            time.sleep(0.01)
        assert gone

    gc.disable()
    try:
        run(body, backend=backend)
    finally:
        gc.enable()
