"""What commands say, where they say it, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bigunet.cli.main import main
from bigunet.cli.report import Count, Reporter, step_facts
from bigunet.errors import InputError, OutputExistsError, RunError


class Answer:
    """A stand-in for Segmentation."""

    def __init__(self, image: str) -> None:
        self.image = image

    def lines(self) -> list[str]:
        return [f"result of {self.image}", "look at it"]

    def as_dict(self) -> dict[str, Any]:
        return {"image": self.image, "outputs": {"classes": "there"}}


Library = Callable[[Callable[..., Any]], None]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """Return a function that puts a stand-in in the place of segment_image."""

    def install(segment_image: Callable[..., Any]) -> None:
        pipeline = ModuleType("bigunet.pipeline")
        pipeline.segment_image = segment_image
        pipeline.plan_image = segment_image
        monkeypatch.setitem(sys.modules, "bigunet.pipeline", pipeline)

    return install


def raising(error: BaseException) -> Callable[..., Any]:
    def segment_image(image: str, **options: Any) -> Answer:
        raise error

    return segment_image


def segment(*more: str) -> Any:
    return CliRunner().invoke(main, ["segment", "a.zarr", "--model", "m.pt", *more])


def report_steps(image: str, **options: Any) -> Answer:
    report = options["progress"]
    report(counted(stage="plan", done=0, total=0, seconds=0.0, message="device cpu, level 0"))
    report(counted(stage="plan", done=0, total=0, seconds=0.0, message="warning: pixel size"))
    for done in range(5):
        report(counted(stage="segment", done=done * 10**6, total=4 * 10**6, seconds=20.0 * done))
    return Answer(image)


def test_results_on_stdout_talk_on_stderr(library: Library) -> None:
    library(report_steps)
    done = segment()
    assert done.exit_code == 0
    assert done.stdout == "result of a.zarr\nlook at it\n"
    assert done.stderr.splitlines() == [
        "device cpu, level 0",
        "warning: pixel size",
        "segment: 25 %, 0.05 Mpx/s, 0:01:00 left",
        "segment: 50 %, 0.05 Mpx/s, 0:00:40 left",
        "segment: 75 %, 0.05 Mpx/s, 0:00:20 left",
        "segment: 100 %, 0.05 Mpx/s, took 0:01:20",
    ]


def test_quiet_keeps_results_and_warnings(library: Library) -> None:
    library(report_steps)
    done = segment("-q")
    assert done.stdout == "result of a.zarr\nlook at it\n"
    assert done.stderr == "warning: pixel size\n"


def test_json_is_one_object_a_line(library: Library) -> None:
    library(report_steps)
    done = segment("b.zarr", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("level 9 of 3 levels: choose 0 to 2"), 2),
        (OutputExistsError("labels/x is there: --overwrite replaces it"), 2),
        (RunError("block 3, chunk 0/1/2 could not be decoded"), 1),
    ],
)
def test_own_errors_are_one_line_and_their_exit_code(
    library: Library, error: Exception, code: int
) -> None:
    library(raising(error))
    done = segment()
    assert done.exit_code == code
    assert done.stderr == f"Error: {error}\n"
    assert not done.stdout


def test_unexpected_errors_are_one_line_and_say_how_to_see_more(library: Library) -> None:
    library(raising(KeyError("strange\nthing")))
    done = segment()
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: KeyError: ")
    assert line.endswith("run with -v for the traceback)")


def test_verbose_shows_the_traceback(library: Library) -> None:
    library(raising(InputError("no")))
    done = segment("-v")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "Error: no"


def test_interrupt_says_what_to_do_next(library: Library) -> None:
    library(raising(KeyboardInterrupt()))
    done = segment()
    assert done.exit_code == 130
    assert done.stderr.startswith("Stopped. ")
    assert "same command again" in done.stderr


def test_several_images_go_on_and_list_failures_at_the_end(library: Library) -> None:
    def segment_image(image: str, **options: Any) -> Answer:
        if image == "b.zarr":
            raise InputError("b is no image")
        return Answer(image)

    library(segment_image)
    done = segment("b.zarr", "c.zarr")
    assert done.exit_code == 1
    assert done.stdout.count("result of") == 2
    assert done.stderr.splitlines()[-2:] == [
        "1 of 3 images failed:",
        "  b.zarr: b is no image",
    ]


def test_several_images_with_json_name_the_failed_ones(library: Library) -> None:
    library(raising(InputError("no image")))
    done = segment("b.zarr", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"image": "a.zarr", "error": "no image"},
        {"image": "b.zarr", "error": "no image"},
    ]


def test_warnings_of_libraries_are_shown_with_verbose_only(library: Library) -> None:
    def segment_image(image: str, **options: Any) -> Answer:
        import warnings

        warnings.warn("chatter of a library", stacklevel=1)
        return Answer(image)

    library(segment_image)
    assert segment().exit_code == 0
    assert "chatter" not in segment().stderr
    # Here warnings are errors, so with -v, where nothing filters them, it comes out as one.
    assert "chatter" in segment("-v").stderr


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Reporter() as report:
        report(counted(stage="", done=0, total=0, seconds=0.0, message="device [cpu]"))
        report(counted(stage="segment", done=0, total=8_000_000, seconds=0.0))
        report(counted(stage="segment", done=8_000_000, total=8_000_000, seconds=2.0))
    shown = terminal.getvalue()
    assert "device [cpu]" in shown
    assert "100 %, 4.00 Mpx/s, took 0:00:02" in shown


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """A step without pixels."""

    stage: str
    done: int
    seconds: float
    total: int = 10
    pixels: int = 0
    message: str | None = None


def test_side_work_is_mentioned_where_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as report:
        for speed in (0.1, 5.0, 0.1):
            for done in range(11):
                report(Tasks(stage="pyramid", done=done, seconds=done * speed))
    assert capsys.readouterr().err.splitlines() == [
        "pyramid: 20 %, 0:00:40 left",
        "pyramid: 40 %, 0:00:30 left",
        "pyramid: 60 %, 0:00:20 left",
        "pyramid: 80 %, 0:00:10 left",
        "pyramid: 100 %, took 0:00:50",
    ]


@given(done=st.integers(1, 10**12), more=st.integers(0, 10**12), seconds=st.floats(0, 1e7))
def test_facts_of_any_step(done: int, more: int, seconds: float) -> None:
    facts = step_facts(counted(stage="s", done=done, total=done + more, seconds=seconds))
    assert facts.endswith(" left") if more else " took " in facts
    assert 0 <= int(facts.split(" %")[0]) <= 100


def counted(**facts: Any) -> Count:
    """Return a step that is counted in pixels."""
    return Count(**{"pixels": facts["done"], **facts})


def test_callbacks_of_one_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels have a speed, other parts have none, and are told of where they take long."""
    monkeypatch.setattr("bigunet.cli.report.SECONDS_BETWEEN_LINES", 0)
    for kind, speed in (("pixels", True), ("parts", False)):
        with Reporter() as report:
            tell = getattr(report, kind)("sample")
            tell(0, 100)
            time.sleep(0.01)
            tell(50, 100)
            tell(100, 100)
        said = capsys.readouterr().err.splitlines()[1:]
        assert said[-1].startswith("sample: 100 %") and ("Mpx/s" in said[-1]) is speed


WAITS = """
import sys, time, types
pipeline = types.ModuleType("bigunet.pipeline")
def segment_image(image, **options):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
pipeline.segment_image = pipeline.plan_image = segment_image
sys.modules["bigunet.pipeline"] = pipeline
from bigunet.cli.main import main
main(["segment", "a.zarr", "--model", "m.pt"])
"""


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_ctrl_c_ends_a_real_process_with_130() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=20)
    assert process.returncode == 130
    assert talk.startswith("Stopped. ")
    assert "Traceback" not in talk


@pytest.mark.skipif(os.name == "nt", reason="no pipes of this kind on Windows")
def test_a_closed_pipe_is_no_error_message() -> None:
    code = WAITS.replace("time.sleep(60)", "raise BrokenPipeError(32, 'Broken pipe')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Error" not in done.stderr
