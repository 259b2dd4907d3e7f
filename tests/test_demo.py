"""The demo as its users meet it: a process, a tree, `sha256sum` beside it, and signals.

A few parts are also called in this process, where a moment has to be hit exactly.
"""

from __future__ import annotations

import errno
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
from worlds import settle_here

from chanlib import CancelScope, Channel, Event, TaskGroup, move_on_after
from chanlib.__main__ import main
from chanlib._core.threads import idle_threads
from chanlib.demo import network
from chanlib.demo.hashing import Found, Tally, hash_files, hash_in_process
from chanlib.demo.lines import line, record
from chanlib.demo.output import Stream, open_output
from chanlib.demo.progress import PlainLines
from chanlib.demo.skipped import Findings, Kind, Skipped, printable
from chanlib.processes import open_process_channel

# Warnings are errors in the child too: an operation that was never performed would show.
PYTHON = [sys.executable, "-W", "error"]
DEMO = [*PYTHON, "-m", "chanlib", "demo"]
NET = 30  # seconds, a safety net

needs_sha256sum = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum to compare with")


class Ended(NamedTuple):
    code: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def demo_here(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Ended]:
    """The demo in this process: the same, but quicker than starting one."""

    def run(*arguments: object) -> Ended:
        code = main(["demo", *(os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments)])
        return Ended(code, *capfdbinary.readouterr())

    return run


@contextmanager
def running(*command: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child whose stderr is read here, and which does not outlive a test that fails."""
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, **options) as child:
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[bytes]) -> IO[bytes]:
    assert child.stderr is not None
    return child.stderr


def demo(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    words = [a if isinstance(a, bytes) else str(a) for a in arguments]
    return subprocess.run([*DEMO, *words], capture_output=True, timeout=NET, **options)


def run_code(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    words = [a if isinstance(a, bytes) else str(a) for a in arguments]
    return subprocess.run([*PYTHON, "-c", code, *words], capture_output=True, timeout=NET, **options)


def sha256sum(path: bytes, **options: Any) -> bytes:
    pipeline = 'find "$1" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum'
    return subprocess.run(
        [b"sh", b"-c", pipeline.encode(), b"sh", path],
        stdout=subprocess.PIPE,
        check=True,
        **options,
    ).stdout


def at_work() -> int:
    """How many threads have something to do: one that has ended its job waits a while for another."""
    return threading.active_count() - idle_threads()


NAMES = [
    b"empty",
    b"with space/a b ",
    b"new\nline/f\nile\n",
    b"back\\slash/\\",
    b"both\\\n\r",
    b"carriage\rreturn",
    b"\xff\xfe/\x80 bytes",
    b"tab\tescape\x1b[31m",
    b"-dash/-f",
    b"--output",
    b"*",
    b"a",
    b"a-b",
    b"a b",
    b"a.d/b",
    b"a/b".replace(b"/", b"\x01"),
    "Zoë/名".encode(),
    b"/".join([b"n" * 40] * 20),
]


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with every sort of name and everything that is no regular file. Not to be changed."""
    root = tmp_path_factory.mktemp("tree") / "awkward"
    root.mkdir()
    for name in NAMES:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"" if name == b"empty" else name)
    many = root / "many"
    many.mkdir()
    for n in range(600):
        (many / f"{n}").write_bytes(b"%d" % n * n)
    with open(root / "sparse", "wb") as file:
        file.truncate(3_000_001)
    (root / "empty folder").mkdir()
    os.mkfifo(root / "fifo")
    short = os.open(root, os.O_RDONLY)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{short}/socket")
    finally:
        os.close(short)
    (root / "broken").symlink_to("nowhere")
    (root / "loop 1").symlink_to("loop 2")
    (root / "loop 2").symlink_to("loop 1")
    (root / "up").symlink_to("..")
    (root / "to a file").symlink_to("a")
    return root


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A folder that takes minutes to hash, and no room."""
    root = tmp_path / "huge"
    root.mkdir()
    for n in range(20):
        (root / f"small {n}").write_bytes(b"x")
        with open(root / f"sparse {n}", "wb") as file:
            file.truncate(1 << 36)
    return root


# ------------------------------------------------------------------- the lines
@needs_sha256sum
def test_the_output_equals_that_of_sha256sum(awkward: Path) -> None:
    done = demo(awkward)
    assert done.stdout == sha256sum(os.fsencode(awkward))
    assert done.returncode == 0


@needs_sha256sum
@pytest.mark.parametrize("form", [b"%b/", b"%b//", b"%b/.", b"%b/many/..", b"%b/many/7"])
def test_the_output_equals_that_of_sha256sum_however_the_path_is_written(
    awkward: Path, form: bytes, demo_here: Callable[..., Ended]
) -> None:
    path = form % os.fsencode(awkward)
    done = demo_here(path)
    assert done.stdout == sha256sum(path)
    assert done.code == 0


@needs_sha256sum
@pytest.mark.parametrize("path", [b".", b"./", b"new\nline", b"\xff\xfe", b"many/0"])
def test_the_output_equals_that_of_sha256sum_for_relative_paths(
    awkward: Path,
    path: bytes,
    demo_here: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(awkward)
    done = demo_here(path)
    assert done.stdout == sha256sum(path)
    assert done.code == 0


@needs_sha256sum
def test_paths_are_bytes_in_any_locale_and_may_start_with_a_dash(awkward: Path) -> None:
    done = demo("--", b"-dash", cwd=awkward)
    assert done.stdout == sha256sum(b"./-dash", cwd=awkward).replace(b"./", b"")
    done = demo(b"\xff\xfe", cwd=awkward, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
    assert done.stdout == sha256sum(b"\xff\xfe", cwd=awkward)


@needs_sha256sum
@pytest.mark.stress
@pytest.mark.timeout(300)
def test_the_output_equals_that_of_sha256sum_over_many_files(tmp_path: Path) -> None:
    rnd = random.Random(8)
    for n in range(300):
        folder = tmp_path / f"{rnd.random()}"
        folder.mkdir()
        for m in range(100 if n else 20_000):
            (folder / f"{m}").write_bytes(rnd.randbytes(rnd.randrange(2000)))
    done = demo(tmp_path)
    assert done.stdout == sha256sum(os.fsencode(tmp_path))
    assert done.returncode == 0


@needs_sha256sum
def test_every_byte_in_a_name_is_written_as_sha256sum_writes_it(
    tmp_path: Path, demo_here: Callable[..., Ended]
) -> None:
    for byte in set(range(1, 256)) - {ord("/")}:
        with open(os.path.join(os.fsencode(tmp_path), b"x%cy" % byte), "wb"):
            pass
    assert demo_here(tmp_path).stdout == sha256sum(os.fsencode(tmp_path))


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (b"a b", b"00ff  a b\n"),
        (b"a\nb", b"\\00ff  a\\nb\n"),
        (b"a\rb", b"\\00ff  a\\rb\n"),
        (b"a\\nb", b"\\00ff  a\\\\nb\n"),
        (b"\xff\t", b"00ff  \xff\t\n"),
    ],
)
def test_a_line_escapes_backslash_newline_and_carriage_return(path: bytes, written: bytes) -> None:
    assert line(record(path, b"\x00\xff")) == written


def test_records_sort_as_their_paths() -> None:
    rnd = random.Random(5)
    paths = {rnd.randbytes(rnd.randrange(4)).replace(b"\0", b"") for _ in range(2000)}
    records = sorted(record(path, rnd.randbytes(32)) for path in paths)
    assert [entry.partition(b"\0")[0] for entry in records] == sorted(paths)


def test_a_link_given_as_path_is_followed_but_none_below(
    awkward: Path,
    tmp_path: Path,
    demo_here: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "link").symlink_to(awkward)
    monkeypatch.chdir(awkward.parent)
    plain = demo_here("awkward")
    monkeypatch.chdir(tmp_path)
    done = demo_here("link")
    assert done.stdout == plain.stdout.replace(b"  awkward/", b"  link/")
    assert done.stdout.count(b"\n") == len(NAMES) + 601


def test_an_empty_folder_gives_no_lines(tmp_path: Path, demo_here: Callable[..., Ended]) -> None:
    done = demo_here(tmp_path)
    assert (done.code, done.stdout) == (0, b"")


# ------------------------------------------------------------------- the file
@pytest.fixture
def three(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    return tmp_path


def names(lines: bytes) -> list[bytes]:
    return [entry[66:] for entry in lines.splitlines()]


@pytest.mark.parametrize("name", ["old", "link", "folder/../old", "other name"])
def test_the_file_is_left_out_by_any_name_and_replaced_in_one_step(
    three: Path, name: str, demo_here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three)
    (three / "old").write_text("old")
    (three / "old").chmod(0o640)
    (three / "link").symlink_to("old")
    (three / "folder").mkdir()
    os.link("old", "other name")
    with open("old", "rb") as reader:
        done = demo_here(".", "--output", name)
        assert reader.read() == b"old"
    assert (done.code, done.stdout) == (0, b"")
    assert names(Path(name).read_bytes()) == [b"./a", b"./b", b"./c"]
    assert (three / "link").is_symlink()
    assert Path(name).stat().st_mode & 0o777 == 0o640
    assert not list(three.rglob(".chanlib*"))


@needs_sha256sum
def test_a_new_file_gets_the_lines_and_the_usual_mode(three: Path) -> None:
    expected = sha256sum(b".", cwd=three)
    done = demo(".", "--output", "new", cwd=three, umask=0o027)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (three / "new").read_bytes() == expected
    assert (three / "new").stat().st_mode & 0o777 == 0o640
    assert demo(".", cwd=three).stdout.count(b"./new\n") == 1


def test_a_file_that_stdout_goes_to_is_left_out_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    os.link(tmp_path / "a", tmp_path / "b")
    with open(tmp_path / "out", "wb") as out:
        os.link(tmp_path / "out", tmp_path / "other name")
        subprocess.run([*DEMO, "."], stdout=out, stderr=subprocess.DEVNULL, cwd=tmp_path, check=True)
    assert [entry[66:] for entry in (tmp_path / "out").read_text().splitlines()] == ["./a", "./b"]


def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path, demo_here: Callable[..., Ended]) -> None:
    (tmp_path / "a").write_text("a")
    assert demo(tmp_path, "--output", "/dev/stdout").stdout.endswith(b"/a\n")
    full = demo_here(tmp_path, "--output", "/dev/full")
    assert full.code == 1
    assert os.strerror(errno.ENOSPC).encode() in full.stderr
    assert Path("/dev/full").is_char_device()
    assert b"Traceback" not in full.stderr


# ------------------------------------------------------------------- what is left out
def test_what_is_no_regular_file_is_listed_and_counted_and_no_failure(
    awkward: Path, demo_here: Callable[..., Ended]
) -> None:
    done = demo_here(awkward)
    report = done.stderr.decode()
    assert done.code == 0
    for expected in ("3  broken link", "1  FIFO", "1  socket", "2  link, not followed"):
        assert f"  {expected}\n" in report
    assert f"{awkward}/broken: {os.strerror(errno.ENOENT)}" in report
    assert f"{awkward}/loop 1: {os.strerror(errno.ELOOP)}" in report
    assert f"{awkward}/fifo\n" in report


def test_what_cannot_be_read_is_listed_and_makes_the_exit_code_1(tmp_path: Path) -> None:
    for name in ("shut folder", "open folder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / "shut file").write_text("x")
    tmp_path.chmod(0o755)
    (tmp_path / "shut file").chmod(0)
    (tmp_path / "shut folder").chmod(0)
    # Root may read everything: the child becomes nobody once all is imported. The path is relative
    # for that, since nobody may not pass the folders above.
    done = run_code(
        "import os, sys, chanlib.__main__, chanlib.demo.network, chanlib.demo.progress, argparse\n"
        "chanlib.__main__.about(), chanlib.__main__.main(['demo', 'open folder', '--output', os.devnull])\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(chanlib.__main__.main(['demo', '.']))",
        cwd=tmp_path,
    )
    (tmp_path / "shut folder").chmod(0o700)
    assert done.stderr.count(os.strerror(errno.EACCES).encode()) == 2
    assert b"1  folder that cannot be read\n" in done.stderr
    assert b"1  file that cannot be read\n" in done.stderr
    assert done.stdout.endswith(b"  ./open folder/file\n")
    assert done.stdout.count(b"\n") == 1
    assert done.returncode == 1


def hash_alone(path: bytes, outputs: Any = ()) -> tuple[list[bytes], list[Skipped]]:
    paths, hashed = Channel[bytes](1), Channel[bytes](1)
    skipped = Channel[Skipped](1)
    paths.send_nowait(path)
    paths.close()
    hash_files(paths, hashed, skipped, outputs, Tally())
    return hashed.drain(), skipped.drain()


class Meanwhile:
    """Stands for the set of outputs, which is asked once the file is open: does something then."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __contains__(self, _: object) -> bool:
        self.act()
        return False


def test_a_file_that_shrinks_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    got = hash_alone(os.fsencode(path), Meanwhile(lambda: os.truncate(path, 50)))
    assert got == ([], [Skipped(Kind.SHRANK, os.fsencode(path))])
    assert Kind.SHRANK.failed


def test_a_file_that_grows_or_is_unlinked_while_it_is_read_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert len(hash_alone(os.fsencode(path), Meanwhile(lambda: os.truncate(path, 500)))[0]) == 1
    assert len(hash_alone(os.fsencode(path), Meanwhile(path.unlink))[0]) == 1


@pytest.mark.parametrize("became", ["nothing", "folder", "fifo", "a name below a file"])
def test_a_file_that_is_gone_when_its_turn_comes_is_left_out(tmp_path: Path, became: str) -> None:
    path = tmp_path / "file"
    if became == "folder":
        path.mkdir()
    elif became == "fifo":
        os.mkfifo(path)  # which opening must not wait for
    elif became == "a name below a file":
        path.write_text("x")
        path = path / "below"
    lines, left_out = hash_alone(os.fsencode(path))
    assert lines == []
    assert [item.kind for item in left_out] == [Kind.VANISHED]
    assert Kind.VANISHED.failed


def test_folders_that_vanish_or_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    from chanlib.demo.walk import Listing, list_folders

    folders, listings = Channel[bytes](3), Channel[Listing](9)
    (tmp_path / "file").write_text("x")
    for name in (b"gone", b"file", b"n" * 300):
        folders.send_nowait(os.path.join(os.fsencode(tmp_path), name))
    folders.close()
    list_folders(folders, listings)
    assert [item.kind for listing in listings.drain() for item in listing.skipped] == [
        Kind.VANISHED,
        Kind.VANISHED,
        Kind.UNREADABLE_FOLDER,
    ]


def test_the_list_of_what_was_left_out_is_bounded() -> None:
    findings = Findings()
    findings.add(Skipped(Kind.FIFO, b"fifo %d" % n) for n in range(1000))
    findings.add([Skipped(Kind.SHRANK, b"a", "why")])
    report = list(findings.report())
    assert len(report) < 12
    assert report[-1].strip() == "... and 995 more"
    assert any(text.strip() == "a: why" for text in report)


def test_paths_for_people_hold_nothing_that_a_terminal_obeys() -> None:
    assert printable("Zoë".encode() + b" \x1b[31m\n\xff") == "Zoë \\x1b[31m\\n\\xff"


# ------------------------------------------------------------------- what it says
def test_a_quick_run_says_one_line_of_progress_and_a_summary(
    three: Path, demo_here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlainLines, "period", NET)  # however slow this machine is
    (three / "a").write_bytes(b"x" * 1232)
    report = demo_here(three).stderr.decode().splitlines()
    assert report[0].startswith("walk 3 found, list 1 folders, hash 3 files")
    assert "paths 0/256" in report[0]
    summary = dict(text.split("  ", 1) for text in report[1:])
    assert summary["files hashed"].strip() == "3"
    assert summary["bytes read"].strip() == "1,234 (1.2 kB)"
    assert float(summary["seconds"]) >= 0
    assert ": 3 sent, peak " in summary["busiest channel"]
    assert summary["result"].strip() == "complete: 3 lines in stdout"


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Makes stderr a terminal; what was written to it is in the list at the end."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals")
    ours, theirs = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:
            pass  # how a terminal says that nobody has it open

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", errors="backslashreplace") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        yield parts
    reader.join()
    os.close(ours)


@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal_a_table_is_live_if_there_is_rich(
    three: Path, rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rich:
        pytest.importorskip("rich", reason="the live table needs rich")
    else:
        for name in ("rich", "rich.console"):
            monkeypatch.setitem(sys.modules, name, None)
    (three / "fifo [red]").mkdir()
    os.mkfifo(three / "fifo [red]" / "fifo")
    with terminal(monkeypatch) as parts:
        assert main(["demo", str(three), "--output", str(three / "[bold]out")]) == 0
    shown = b"".join(parts).decode()
    assert ("lives in" in shown and "\x1b[?25h" in shown) == rich
    assert "fifo [red]/fifo" in shown
    assert "busiest channel" in shown
    assert "[bold]out" in shown


def test_without_arguments_it_says_version_engine_and_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("chanlib ")
    assert "engine pure" in said
    assert "usage: python -m chanlib" in said
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


# ------------------------------------------------------------------- bad usage
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "PATH"),
        (["gone"], "PATH"),
        ([""], "PATH"),
        (["file/"], "PATH"),
        (["fifo"], "PATH"),
        ([".", "--output", ""], "--output"),
        ([".", "--output", "folder"], "--output"),
        ([".", "--output", "new/"], "--output"),
        ([".", "--output", "gone/file"], "--output"),
        ([".", "--output", "fifo"], "--output"),
        (["file", "--output", "same"], "--output"),
        ([".", "--nonsense"], "--nonsense"),
        ([".", "--processes", "0"], "--processes"),
        ([".", "--processes", "-1"], "--processes"),
        ([".", "--processes", "65"], "--processes"),
        ([".", "--processes", "two"], "--processes"),
        (["--processes", "."], "PATH comes first"),
    ],
)
def test_bad_usage_names_the_argument_and_does_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: str,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    os.link(tmp_path / "file", tmp_path / "same")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert named in said.err.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(os.listdir()) == ["fifo", "file", "folder", "same"]


def test_without_trio_it_says_what_to_install(tmp_path: Path) -> None:
    done = run_code(
        "import sys; sys.modules['trio'] = None\nfrom chanlib.__main__ import main; sys.exit(main())",
        *("demo", tmp_path),
    )
    assert done.returncode == 2
    assert b"pip install 'chanlib[demo]'" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_closed_stdout_is_bad_usage_and_a_closed_stderr_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    command = " ".join(f"'{word}'" for word in [*DEMO, str(tmp_path)])
    no_stdout = subprocess.run(["sh", "-c", f"{command} >&-"], capture_output=True, timeout=NET)
    assert no_stdout.returncode == 2
    assert b"stdout is closed" in no_stdout.stderr
    no_stderr = subprocess.run(["sh", "-c", f"{command} 2>&-"], capture_output=True, timeout=NET)
    assert no_stderr.returncode == 0
    assert no_stderr.stdout.count(b"\n") == 1


# ------------------------------------------------------------------- ending early
def test_a_reader_that_goes_away_ends_it_cleanly(awkward: Path) -> None:
    with running(*DEMO, awkward, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.stdout.close()
        report = said(child).read()
        assert child.wait(NET) == 141
    assert b"stdout was closed by its reader" in report
    assert b"Traceback" not in report


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly_and_leaves_the_file_as_it_was(huge: Path, signum: signal.Signals, code: int) -> None:
    (huge / "out").write_text("old")
    with running(*DEMO, huge, "--output", huge / "out") as child:
        assert said(child).readline().startswith(b"walk")
        child.send_signal(signum)
        report = said(child).read()
        assert child.wait(NET) == code
    assert f"interrupted by {signum.name}; {huge}/out is as it was".encode() in report
    assert b"Traceback" not in report
    assert (huge / "out").read_text() == "old"
    assert not list(huge.glob(".chanlib*"))


def test_an_interrupt_leaves_no_thread_and_no_handler(huge: Path, demo_here: Callable[..., Ended]) -> None:
    before = at_work()
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def interrupt() -> None:
        settle_here(lambda: at_work() >= before + 4 + network.HASHERS)  # this one; hash and its own, collect, write
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    done = demo_here(huge)
    helper.join()
    settle_here(lambda: at_work() == before)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert (done.code, done.stdout) == (130, b"")
    assert b"interrupted by SIGINT; no lines were written" in done.stderr


def test_an_interrupt_while_nobody_reads_the_lines_ends_it(awkward: Path) -> None:
    with running(*DEMO, awkward, stdout=subprocess.PIPE) as child:
        # More is written than a pipe holds: once there is something to read, it will have to wait.
        assert select.select([child.stdout], [], [], NET)[0]
        child.send_signal(signal.SIGINT)
        report = said(child).read()
        assert child.wait(NET) == 130
    assert b" bytes of lines were written" in report
    assert b"Traceback" not in report


STUCK = """
import os, sys, threading, chanlib.demo.hashing as hashing
from chanlib.__main__ import main
from chanlib.demo.interrupts import Interrupts
handle = Interrupts._on_signal
def handle_and_say(*arguments):
    handle(*arguments)
    os.write(2, b"struck\\n")
Interrupts._on_signal = handle_and_say
hashing._digest = lambda *_: threading.Event().wait()  # a disk that has gone
sys.exit(main())
"""


def test_a_second_interrupt_does_not_wait_for_a_read_that_hangs(huge: Path) -> None:
    out = huge / "out"
    out.write_text("old")
    with running(*PYTHON, "-c", STUCK, "demo", huge, "--output", out) as child:
        assert said(child).readline().startswith(b"walk")
        child.send_signal(signal.SIGINT)
        while (spoken := said(child).readline()) != b"struck\n":  # two before it looks would be one
            assert spoken.startswith(b"walk")
        assert said(child).readline().startswith(b"walk")  # it waits, and goes on saying so
        child.send_signal(signal.SIGINT)
        report = said(child).read()
        assert child.wait(NET) == 130
    assert b"Traceback" not in report
    assert out.read_text() == "old"
    assert not list(huge.glob(".chanlib*"))


READY = """
import os, runpy, signal, sys
import chanlib.demo.network, chanlib.demo.progress, chanlib.demo.command, argparse
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, lambda signum, frame: os._exit(128 + signum))
sys.stderr.write("ready\\n")
sys.stderr.flush()
runpy.run_module("chanlib", run_name="__main__", alter_sys=True)
"""


def interrupt_at_random_moments(tree: Path, rounds: int) -> None:
    rnd = random.Random(rounds)
    out = tree.parent / "out"
    whole = 0.0
    for n in range(rounds + 1):
        out.write_text("old")
        file = ["--output", str(out)] if rnd.random() < 0.5 else []
        signum = rnd.choice([signal.SIGINT, signal.SIGTERM])
        command = [*PYTHON, "-c", READY, "demo", tree, *file]
        with running(*command, stdout=subprocess.DEVNULL) as child:
            assert said(child).readline() == b"ready\n"
            started = time.monotonic()
            if n:
                time.sleep(rnd.uniform(0, whole))  # the moment is what is random here
                for _ in range(rnd.choice([1, 1, 2])):
                    child.send_signal(signum)
            report = said(child).read().decode()
            code = child.wait(NET)
            whole = whole or time.monotonic() - started
        assert "Traceback" not in report
        assert "Exception" not in report
        assert code in (0, 128 + signum)
        assert code or "complete" in report
        if "complete" not in report:
            assert out.read_text() == "old"
        assert not list(tree.parent.glob(".chanlib*"))


def test_a_signal_at_any_moment_ends_it_cleanly(awkward: Path) -> None:
    interrupt_at_random_moments(awkward, 3)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_a_signal_at_any_moment_ends_it_cleanly_many_times(awkward: Path) -> None:
    interrupt_at_random_moments(awkward, 60)


# ------------------------------------------------------------------- in processes
def outcome(report: bytes) -> list[bytes]:
    """What is said at the end, but for what differs between any two runs."""
    lines = report.splitlines()
    return [text for text in lines[lines.index(b"left out:") :] if not text.startswith((b"seconds", b"busiest"))]


def until_hashing(child: subprocess.Popen[bytes]) -> None:
    while (spoken := said(child).readline()).startswith(b"walk"):
        if b"hash 0 files" not in spoken:
            return
    raise AssertionError(spoken)


def workers(child: subprocess.Popen[bytes]) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == child.pid and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            pass  # it has just ended
    return found


@pytest.mark.parametrize("words", [["--processes"], ["--processes", "1"], ["--processes=3"]])
def test_in_processes_it_does_what_it_does_in_threads(
    awkward: Path, words: list[str], demo_here: Callable[..., Ended]
) -> None:
    expected = demo_here(awkward)
    done = demo(awkward, *words)
    assert done.stdout == expected.stdout
    assert outcome(done.stderr) == outcome(expected.stderr)
    assert done.returncode == 0


def test_what_a_process_finds_comes_back_as_values(tmp_path: Path) -> None:
    file, gone = os.fsencode(tmp_path / "file"), os.fsencode(tmp_path / "gone")
    (tmp_path / "file").write_bytes(b"x" * 2_000_000)
    paths = Channel[bytes](2)
    paths.send_all([file, gone]).sync()
    paths.close()
    sender, receiver = open_process_channel[Found](99)
    with receiver:
        hash_in_process(paths, sender, ())
        found = list(receiver)
    assert sum(item for item in found if isinstance(item, int)) == 2_000_000
    assert [item for item in found if isinstance(item, bytes)] == hash_alone(file)[0]
    assert [item for item in found if isinstance(item, Skipped)] == hash_alone(gone)[1]


def test_an_interrupt_from_the_terminal_leaves_no_process(huge: Path) -> None:
    (huge / "out").write_text("old")
    with running(*DEMO, huge, "--processes", 2, "--output", huge / "out", start_new_session=True) as child:
        until_hashing(child)
        os.killpg(child.pid, signal.SIGINT)
        report = said(child).read()  # its end is the end of all who could write there
        assert child.wait(NET) == 130
    assert f"interrupted by SIGINT; {huge}/out is as it was".encode() in report
    assert b"Traceback" not in report
    assert (huge / "out").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc to find the workers in")
@pytest.mark.parametrize("processes", [1, 3])
def test_a_worker_that_is_killed_ends_the_run(huge: Path, processes: int) -> None:
    (huge / "out").write_text("old")
    with running(*DEMO, huge, "--processes", processes, "--output", huge / "out") as child:
        until_hashing(child)
        os.kill(random.choice(workers(child)), signal.SIGKILL)
        report = said(child).read()
        assert child.wait(NET) == 1
    assert f" was killed by SIGKILL; {huge}/out is as it was".encode() in report.splitlines()[-1]
    assert b"Traceback" not in report
    assert (huge / "out").read_text() == "old"


# ------------------------------------------------------------------- stages
@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


@pytest.fixture
def stages(three: Path, pipe: tuple[int, int]) -> network.Network:
    """A network that has not been started."""
    return network.Network(os.fsencode(three), True, Stream(pipe[1], "a pipe"))


def test_an_error_in_a_stage_cancels_those_that_wait_and_nobody_takes_it_for_an_end(
    stages: network.Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        settle_here(lambda: stages.lines.statistics().waiting_receivers == 1)
        settle_here(lambda: stages.hashed.statistics().waiting_receivers == 1)
        raise ValueError("a bug")

    monkeypatch.setattr(network, "hash_files", fail)
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        stages.start(group)
    assert raised.value.split(ValueError)[1] is None
    assert stages.write.cancelled
    assert stages.collect.cancelled
    assert not stages.hashed.is_closed
    assert not stages.lines.is_closed


def test_the_last_hasher_closes_what_all_send_to(stages: network.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Channel[None](network.HASHERS)
    go_on = Event()

    def hash_one(paths: Channel[bytes], hashed: Channel[bytes], *_: object) -> None:
        if paths.receive().sync(NET) == b"last":
            go_on.wait().sync(NET)
        hashed.send(b"").sync(NET)
        ended.send_nowait(None)

    monkeypatch.setattr(network, "hash_files", hash_one)
    with TaskGroup() as group:
        child = group.start_thread(stages._hash)
        stages.paths.send(b"last").sync(NET)
        for _ in range(network.HASHERS - 1):
            stages.paths.send(b"").sync(NET)
        for _ in range(network.HASHERS - 1):
            ended.receive().sync(NET)
        assert not stages.hashed.is_closed
        assert not stages.skipped.is_closed
        go_on.set()
        child.sync(NET)
    assert stages.hashed.is_closed
    assert stages.skipped.is_closed
    assert len(stages.hashed) == network.HASHERS


def test_what_was_left_out_is_counted_though_nobody_collects_it_after_an_interrupt(stages: network.Network) -> None:
    with TaskGroup() as group:
        group.cancel()
        stages.start(group)
        stages.skipped.send_nowait(Skipped(Kind.FIFO, b"fifo"))
    assert stages.collect.cancelled
    assert stages.findings().counts == {Kind.FIFO: 1}


@pytest.mark.parametrize("stage", ["walk", "list_folders", "hash_files", "collect", "line"])
def test_an_error_in_any_stage_ends_the_run_and_is_raised(
    three: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = at_work()

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(network, stage, bug)
    with pytest.raises(ZeroDivisionError):
        main(["demo", str(three), "--output", str(three / "out")])
    assert sorted(os.listdir(three)) == ["a", "b", "c"]
    settle_here(lambda: at_work() == before)


def test_a_stream_that_is_not_read_can_be_cancelled(pipe: tuple[int, int]) -> None:
    stream = Stream(pipe[1], "a pipe")
    with move_on_after(0.3) as scope:
        stream.write([b"x" * 1000] * 1000)
    assert scope.cancelled_caught
    assert "bytes of lines were written" in stream.kept()


@pytest.mark.parametrize("regular", [True, False])
def test_in_a_cancelled_scope_nothing_is_written(tmp_path: Path, pipe: tuple[int, int], regular: bool) -> None:
    name = tmp_path / "out"
    output = open_output(os.fsencode(name), -1, "a file") if regular else Stream(pipe[1], "a pipe")
    with CancelScope() as scope:
        scope.cancel()
        output.write([b"x"])
    assert scope.cancelled_caught
    assert not name.exists()
    assert regular or output.kept() == "no lines were written"
