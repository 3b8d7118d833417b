"""What is installed, what is asked for, and what works with less."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import bigunet

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

# conda-forge calls these differently; dask-core is dask without its optional parts.
CONDA_NAMES = {"torch": "pytorch", "dask": "dask-core"}

IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage"}


def runtime_requirements() -> dict[str, Requirement]:
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    return {canonicalize_name(one.name): one for one in wanted}


def group_requirements(group: str) -> list[Requirement]:
    found = []
    for entry in PYPROJECT["dependency-groups"][group]:
        if isinstance(entry, str):
            found.append(Requirement(entry))
        else:
            found += group_requirements(entry["include-group"])
    return found


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_environment_file_agrees_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [Requirement(line) for line in environment["dependencies"]]
    ours = {CONDA_NAMES.get(name, name): str(r.specifier) for name, r in _runtime_items()}
    ours |= {"python": PROJECT["requires-python"], "pip": ""}
    assert {one.name: str(one.specifier) for one in conda} == ours
    assert environment["channels"][0] == "conda-forge"


def _runtime_items() -> list[tuple[str, Requirement]]:
    return list(runtime_requirements().items())


def test_every_imported_package_is_asked_for() -> None:
    imported = set()
    for path in [*(ROOT / "bigunet").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "bigunet"}
    extras = PROJECT.get("optional-dependencies", {}).values()
    optional = {canonicalize_name(Requirement(r).name) for extra in extras for r in extra}
    names = optional | set(runtime_requirements())
    wanted = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    assert imported <= wanted


def test_pins_cover_and_satisfy_every_requirement() -> None:
    pinned = pins()
    for wanted in [*runtime_requirements().values(), *group_requirements("dev")]:
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_pins_have_no_local_suffix() -> None:
    assert not {name: pin for name, pin in pins().items() if pin.local}


def test_floors_that_security_or_correctness_set() -> None:
    wanted = runtime_requirements()
    assert Version("2.9.9") not in wanted["torch"].specifier  # CVE-2025-32434, CVE-2026-24747
    assert Version("3.1.2") not in wanted["zarr"].specifier  # writes aside and renames since 3.1.3


def test_version_is_said_once() -> None:
    assert PROJECT["version"] == bigunet.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(bigunet.__version__)}\b", changelog, re.MULTILINE)


def test_every_folder_with_sources_is_a_package_that_is_installed() -> None:
    inside = {path.parent.relative_to(ROOT) for path in (ROOT / "bigunet").rglob("*.py")}
    names = {".".join(folder.parts) for folder in inside} | {"bigunet.cli"}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == names


# The build backend itself, without an isolated environment: that would need the network.
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names of the files in a wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = _copy_of_sources(folder / "tree")
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tree)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("bigunet-*.whl"))) as archive:
        return archive.namelist()


def _copy_of_sources(tree: Path) -> Path:
    # A copy, because setuptools leaves build/ and *.egg-info beside what it builds.
    tracked = ["pyproject.toml", "LICENSE", "README.md"]
    files = [ROOT / name for name in tracked if (ROOT / name).is_file()]
    for folder in ("bigunet", "cli"):
        files += [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".pt", ".typed"}]
    for path in [*files, ROOT / "bigunet/py.typed"]:
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tree


def test_wheel_holds_the_command_inside_the_package(wheel: list[str]) -> None:
    assert "bigunet/cli/main.py" in wheel
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {"bigunet", f"bigunet-{PROJECT['version']}.dist-info"}


def test_wheel_holds_every_module_and_the_marker_of_types(wheel: list[str]) -> None:
    ours = {str(p.relative_to(ROOT).as_posix()) for p in (ROOT / "bigunet").rglob("*.py")}
    ours |= {f"bigunet/cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    ours |= {str(p.relative_to(ROOT).as_posix()) for p in (ROOT / "bigunet").rglob("*.pt")}
    assert ours | {"bigunet/py.typed"} <= set(wheel)


# Run first in a fresh interpreter: pretends that optional packages are not installed.
BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""
OPTIONAL = {"ome_zarr", "distributed", "click", "rich", "PIL"}


def run_without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    program = BLOCKER.format(blocked=blocked) + code
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_import_works_without_optional_packages() -> None:
    done = run_without(OPTIONAL | {"torch", "dask", "zarr"}, "import bigunet\ndir(bigunet)")
    assert done.returncode == 0, done.stderr


ARRAY_API = """
import dask.array as da
import numpy as np
import bigunet

model = bigunet.UNet(in_channels=1, classes=2, width=2, depth=1)
image = da.from_array(np.arange(40 * 50, dtype="uint16").reshape(40, 50), chunks=16)
scores = bigunet.predict(image, model)
classes = bigunet.segment(image, model)
assert scores.shape == (2, 40, 50) and scores.dtype == "float32"
assert (classes.compute() == scores.compute().argmax(0)).all()
"""


@pytest.mark.skipif(
    not {"predict", "segment", "UNet"} <= set(getattr(bigunet, "__all__", ())),
    reason="the public names are not written yet",
)
def test_array_functions_work_without_optional_packages() -> None:
    done = run_without(OPTIONAL, ARRAY_API)
    assert done.returncode == 0, done.stderr
