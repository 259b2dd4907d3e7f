"""The public names: what they are, that each is documented; imports point downwards only."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import chanlib

PACKAGE = Path(chanlib.__file__).parent

# Floors from below: a module imports only from floors below its own. What is not named here (the
# demo, `lowlevel`, ...) stands on top and may import them all, but none of these may import it.
FLOORS = (
    {"errors"},
    {"_core"},
    {"blocks", "checks", "iterating", "permits", "scopes", "sides"},
    {"endings", "views"},
    {"sending"},
    {"barriers", "channels", "events", "futures", "locks", "selecting", "subscriptions", "timers", "watch"},
    {"broadcasts", "conditions", "ends", "signals"},
    {"handles"},
    {"children", "completions", "run"},
    {"processes"},  # imported by groups only when it is used
    {"roster"},
    {"groups"},
    {"gathering"},
)
HELPERS = {"blocks", "checks", "children", "endings", "iterating", "processes", "roster"}  # public to the package only
PRIMITIVES = sorted(FLOORS[0].union(*FLOORS[2:]) - HELPERS)


def floor(module: str) -> int:
    for number, names in enumerate(FLOORS):
        if module in names:
            return number
    return len(FLOORS)


def part(path: Path) -> str:
    """The module or package directly below `chanlib` that a file belongs to; "" is `__init__`."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The parts of chanlib that a file imports from when it runs; what only checkers read is left out."""
    package = ["chanlib", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "chanlib" else [module]
        else:
            continue
        for name in names:
            root, *rest = name.split(".")
            if root == "chanlib":
                yield rest[0] if rest else ""


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards_only(path: Path) -> None:
    own = part(path)
    if own == "":
        return  # it only re-exports, see below
    for other in imported(path):
        if other != own:
            assert floor(other) < floor(own) or floor(own) == len(FLOORS), (
                f"{path} imports from chanlib.{other or '__init__'}"
            )


def test_the_package_itself_only_re_exports() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # the docstring
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        assert all(alias.asname == alias.name for alias in node.names), ast.unparse(node)


def modules() -> list[ModuleType]:
    return [importlib.import_module(f"chanlib.{name}") for name in PRIMITIVES]


def public() -> dict[str, object]:
    return {
        name: thing
        for name, thing in vars(chanlib).items()
        if not name.startswith("_") and not isinstance(thing, ModuleType)
    }


def test_the_package_exports_what_its_modules_declare_and_nothing_else() -> None:
    declared = {name: getattr(module, name) for module in modules() for name in module.__all__}
    declared["Op"] = chanlib.Op
    assert public() == declared


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_all_is_sorted_and_names_what_is_defined_there(module: ModuleType) -> None:
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__module__ == module.__name__


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", sorted(public()))
def test_every_public_name_and_its_methods_are_documented(name: str) -> None:
    thing = public()[name]
    assert (getattr(thing, "__doc__", None) or "").strip(), name
    assert not (thing.__doc__ or "").startswith(f"{name}("), f"{name}: a docstring made by a NamedTuple or dataclass"
    if not isinstance(thing, type) or getattr(thing, "_is_protocol", False):
        return
    for owner in thing.__mro__:
        if owner.__module__.startswith("chanlib"):
            for method in vars(owner):
                if method.startswith("_") or not callable(getattr(thing, method)):
                    continue
                if issubclass(thing, Coroutine) and hasattr(Coroutine, method):
                    continue  # send, throw, close: documented by Python
                assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"


def test_annotations_of_every_public_name_can_be_inspected() -> None:
    for name, thing in public().items():
        if callable(thing) and not (isinstance(thing, type) and issubclass(thing, BaseException)):
            assert inspect.signature(thing), name


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_importing_chanlib_imports_no_loop_but_asyncio() -> None:
    program = (
        "import sys, chanlib\n"
        "ch = chanlib.Channel(1); ch.send(1).sync(); ch.receive().sync(1)\n"
        "print([name for name in ('trio', 'uvloop', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)
