"""The programs in the README run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import chanlib

README = Path(__file__).parent.parent / "README.md"


def found() -> list[tuple[int, str]]:
    """Each Python block, and the line that it begins on."""
    text = README.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, block.start()) + 1, block[1])
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def blocks() -> list[object]:
    return [pytest.param(text, id=f"line-{line}") for line, text in found()]


def run_program(program: str, tmp_path: Path) -> str:
    script = tmp_path / "readme.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path(chanlib.__file__).parent.parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", blocks())
def test_a_program_in_the_readme_runs(program: str, tmp_path: Path) -> None:
    run_program(program, tmp_path)


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio", "threads"])
def test_the_program_with_a_group_does_the_same_on_every_backend(backend: str, tmp_path: Path) -> None:
    if backend == "uvloop":
        pytest.importorskip("uvloop", reason="no uvloop for this interpreter")
    program = next(text for _, text in found() if "from chanlib import Channel, TaskGroup" in text)
    assert program.count('backend="threads"') == 1
    said = run_program(program.replace('backend="threads"', f'backend="{backend}"'), tmp_path)
    assert said == "the squares make 30\n"


def test_the_readme_has_programs() -> None:
    assert len(blocks()) >= 3
