"""The rooms of the house and their order, read from the sources."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bigunet

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A module may import its own room and the rooms before it.
ROOMS = (
    "errors",
    "files",
    "ledger",
    "geometry",
    "images",
    "masking",
    "instances",
    "metrics",
    "models",
    "memory",
    "cutting",
    "speed",
    "tuning",
    "tiles",
    "inference",
    "detection",
    "training",
    "cluster",
    "bands",
    "walk",
    "measurement",
    "exports",
    "stages",
    "sites",
    "sizes",
    "staging",
    "plan",
    "settings",
    "fitting",
    "planning",
    "provenance",
    "status",
    "segmentation",
    "assembly",
    "work",
    "resume",
    "comparison",
    "verification",
    "pipeline",
    "cli",
)

# Who may import a heavy package, and when it is not at import time but in a function.
ONLY_IN = {
    "torch": {"models", "training", "speed", "tuning", "tiles"},
    "distributed": {"cluster", "pipeline"},
    "click": {"cli"},
}
LAZY_ONLY = {"ome_zarr", "pyarrow", "rich", "skimage"}
GEOMETRY_REFUSES = {"numpy", "dask", "torch", "scipy", "zarr", "distributed"}


def sources() -> dict[str, Path]:
    """Return every module by its installed name, ``bigunet.cli.main`` for cli/main.py."""
    found = {}
    for folder, prefix in (("bigunet", ()), ("cli", ("bigunet",))):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = (*prefix, *path.relative_to(ROOT).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


SOURCES = sources()


def room(module: str) -> str:
    """Return the part of the name behind ``bigunet.``; empty for the package itself."""
    return ".".join(module.split(".")[1:2])


def imports(module: str, *, top_level: bool = False) -> Iterator[str]:
    """Yield the absolute name of everything a module imports (with the names taken from it)."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _executed_on_import(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _executed_on_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if not lazy and not typing:
            yield child
            yield from _executed_on_import(child)


def imported_packages(module: str, *, top_level: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports(module, top_level=top_level)}


def known_module(name: str) -> str | None:
    """Return the module of this package that an imported name is, or lies in."""
    while name:
        if name in SOURCES:
            return name
        name = name.rpartition(".")[0]
    return None


INNER = [name for name in SOURCES if name != "bigunet"]


def test_every_module_has_a_room() -> None:
    assert {room(name) for name in INNER} <= set(ROOMS)


@pytest.mark.parametrize("module", INNER)
def test_imports_go_down(module: str) -> None:
    for name in imports(module):
        if name.split(".")[0] != "bigunet" or name == "bigunet.__version__":
            continue
        assert room(name) in ROOMS, f"{module} imports {name} through the public names"
        assert ROOMS.index(room(name)) <= ROOMS.index(room(module)), f"{module} imports {name}"


def test_no_circles() -> None:
    graph = {
        module: {known_module(name) for name in imports(module)} - {None, module, "bigunet"}
        for module in INNER
    }
    # A package's __init__ re-exports its modules, which import one another by full name.
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", INNER)
def test_heavy_packages_stay_in_their_rooms(module: str) -> None:
    for package, rooms in ONLY_IN.items():
        if package in imported_packages(module):
            assert room(module) in rooms, f"{module} imports {package}"


@pytest.mark.parametrize("module", INNER)
def test_lazy_packages_are_imported_in_functions(module: str) -> None:
    assert not imported_packages(module, top_level=True) & LAZY_ONLY


@pytest.mark.parametrize("module", [name for name in INNER if room(name) == "geometry"])
def test_geometry_is_integers_only(module: str) -> None:
    assert not imported_packages(module) & GEOMETRY_REFUSES


def test_commands_import_the_library_in_functions_only() -> None:
    for module in (name for name in INNER if room(name) == "cli"):
        at_import = {
            target
            for name in imports(module, top_level=True)
            if (target := known_module(name)) and room(target) != "cli"
        }
        assert at_import <= {"bigunet", "bigunet.errors"}, module


def test_no_module_is_called_like_a_public_name() -> None:
    # A module `segment` beside a lazy function `bigunet.segment` shadows it on the second call.
    modules = {room(name) for name in INNER if name.count(".") == 1 or "__init__" in name}
    assert not modules & set(getattr(bigunet, "__all__", ()))


def loaded_by(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after running the code."""
    report = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"torch", "numpy", "dask", "zarr", "scipy", "distributed", "ome_zarr", "click", "rich"}


def test_import_bigunet_loads_nothing_heavy() -> None:
    assert not loaded_by("import bigunet") & HEAVY


def test_opening_images_loads_no_network() -> None:
    loaded = loaded_by("import bigunet.images.open")
    assert not loaded & {"torch", "ome_zarr", "distributed", "click", "rich"}


@pytest.mark.parametrize("command", [[], ["segment"], ["info"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    code = (
        "from bigunet.cli.main import main\n"
        f"try: main({[*command, '--help']!r})\n"
        "except SystemExit as end: assert not end.code"
    )
    assert not loaded_by(code) & (HEAVY - {"click"})
