"""`select` and what may stand in it."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeVar, overload, runtime_checkable

from ._core.engine import Op, Select

__all__ = ["Selectable", "select"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Selectable(Protocol[T_co]):
    """What may stand in a `select`: an `Op`, or an object with an obvious one."""

    def __op__(self) -> Op[T_co]: ...


@overload
def select(a: Selectable[A] | None, /, *, biased: bool = ...) -> Op[tuple[Literal[0], A]]: ...
@overload
def select(
    a: Selectable[A] | None, b: Selectable[B] | None, /, *, biased: bool = ...
) -> Op[tuple[Literal[0], A] | tuple[Literal[1], B]]: ...
@overload
def select(
    a: Selectable[A] | None,
    b: Selectable[B] | None,
    c: Selectable[C] | None,
    /,
    *,
    biased: bool = ...,
) -> Op[tuple[Literal[0], A] | tuple[Literal[1], B] | tuple[Literal[2], C]]: ...
@overload
def select(
    a: Selectable[A] | None,
    b: Selectable[B] | None,
    c: Selectable[C] | None,
    d: Selectable[D] | None,
    /,
    *,
    biased: bool = ...,
) -> Op[tuple[Literal[0], A] | tuple[Literal[1], B] | tuple[Literal[2], C] | tuple[Literal[3], D]]: ...
@overload
def select(
    a: Selectable[A] | None,
    b: Selectable[B] | None,
    c: Selectable[C] | None,
    d: Selectable[D] | None,
    e: Selectable[E] | None,
    /,
    *,
    biased: bool = ...,
) -> Op[
    tuple[Literal[0], A] | tuple[Literal[1], B] | tuple[Literal[2], C] | tuple[Literal[3], D] | tuple[Literal[4], E]
]: ...
@overload
def select(
    a: Selectable[A] | None,
    b: Selectable[B] | None,
    c: Selectable[C] | None,
    d: Selectable[D] | None,
    e: Selectable[E] | None,
    f: Selectable[F] | None,
    /,
    *,
    biased: bool = ...,
) -> Op[
    tuple[Literal[0], A]
    | tuple[Literal[1], B]
    | tuple[Literal[2], C]
    | tuple[Literal[3], D]
    | tuple[Literal[4], E]
    | tuple[Literal[5], F]
]: ...
@overload
def select(
    a: Selectable[A] | None,
    b: Selectable[B] | None,
    c: Selectable[C] | None,
    d: Selectable[D] | None,
    e: Selectable[E] | None,
    f: Selectable[F] | None,
    g: Selectable[G] | None,
    /,
    *,
    biased: bool = ...,
) -> Op[
    tuple[Literal[0], A]
    | tuple[Literal[1], B]
    | tuple[Literal[2], C]
    | tuple[Literal[3], D]
    | tuple[Literal[4], E]
    | tuple[Literal[5], F]
    | tuple[Literal[6], G]
]: ...
@overload
def select(
    a: Selectable[A] | None,
    b: Selectable[B] | None,
    c: Selectable[C] | None,
    d: Selectable[D] | None,
    e: Selectable[E] | None,
    f: Selectable[F] | None,
    g: Selectable[G] | None,
    h: Selectable[H] | None,
    /,
    *,
    biased: bool = ...,
) -> Op[
    tuple[Literal[0], A]
    | tuple[Literal[1], B]
    | tuple[Literal[2], C]
    | tuple[Literal[3], D]
    | tuple[Literal[4], E]
    | tuple[Literal[5], F]
    | tuple[Literal[6], G]
    | tuple[Literal[7], H]
]: ...
@overload
def select(*arms: Selectable[T] | None, biased: bool = ...) -> Op[tuple[int, T]]: ...


def select(*arms: Selectable[Any] | None, biased: bool = False) -> Op[Any]:
    """Perform exactly one of several operations; the result is `(index, value)`.

    An arm is an `Op`, an object with an obvious one (an event, a future, a timer, a channel to receive from), or
    None, which disables its position. Among the arms that can happen one is drawn uniformly; with `biased=True`
    the first of them is taken. An arm whose channel has ended counts as ready and raises its error, with `.arm`
    and `.channel` set.

    The select is itself an `Op`: `await` it, call `sync(timeout)` in a thread, `poll()` anywhere (which decides on
    one atomic look at all arms), or nest it. It waits until an arm happens; a cancellation or a timeout takes no
    effect on any arm. The operations given count as performed. The arms of a nested select take part in the draw of
    the outer one, and only the outer one's `biased` counts.

    Raises `ValueError` if no arm is enabled, `TypeError` for an arm that is no operation.
    Source of the semantics: Go's `select`; Concurrent ML.

        match await select(jobs.receive(), stop.wait(), after(5)):
            case 0, job:
                ...
            case 1, _:
                return
    """
    ops: list[Op[Any] | None] = []
    for position, arm in enumerate(arms):
        if arm is None or isinstance(arm, Op):
            ops.append(arm)
            continue
        make = getattr(type(arm), "__op__", None)
        op: Any = make(arm) if make is not None else None
        if not isinstance(op, Op):
            for other in (*ops, *arms):
                if isinstance(other, Op):
                    other._polled = True  # the caller knows by this error: no warning on top
            raise TypeError(
                f"select(): arm {position} must be an operation such as ch.receive(), an object with one "
                f"(an event, a future, a timer), or None, not {arm!r}"
            )
        ops.append(op)  # pyright: ignore[reportUnknownArgumentType]
    return Select(ops, bool(biased))
