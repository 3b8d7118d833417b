"""The command line in tests: run it, and hold what it refuses to the law of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from bigunet.cli.main import main


def run(*arguments: object) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def tree(folder: Path) -> dict[str, Any]:
    """Return what each path below a folder is, with its mode, time and content."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(folder))] = facts.st_mode, facts.st_mtime_ns, content
    return found


def refused(folder: Path, *arguments: object) -> str:
    """Return the one line of a command that is refused and changes nothing in a folder."""
    before = tree(folder)
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and "unexpected" not in line
    assert tree(folder) == before
    return str(line)


def edit(file: Path, change: Callable[[Any], object]) -> None:
    """Change what a JSON file holds."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
