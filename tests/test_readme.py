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


def blocks() -> list[object]:
    """Each Python block, named by the line that it begins on."""
    text = README.read_text(encoding="utf-8")
    return [
        pytest.param(found[1], id=f"line-{text.count(chr(10), 0, found.start()) + 1}")
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("program", blocks())
def test_a_program_in_the_readme_runs(program: str, tmp_path: Path) -> None:
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


def test_the_readme_has_programs() -> None:
    assert len(blocks()) >= 3
