"""The house rules that no reviewer should have to look for: import directions, lazy packages, no hidden globals."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "mlipkit").rglob("*.py"), *(ROOT / "widgets").rglob("*.py")])

# Floor of each package: a module may import from its own package and from lower floors only. Packages that share a
# floor are siblings and never import each other.
FLOORS = {
    "errors": 0, "units": 1, "labels": 1, "events": 1, "machine": 1, "compute": 1,
    "data": 2, "ops": 2,
    "models": 3,
    "training": 4, "md": 4, "analysis": 4, "labelling": 4,
    "strategies": 5,
    "plots": 1.5,
    "runs": 6,
    "cli": 7, "demo": 7, "doctor": 7, "lab": 7,
    "widgets": 8,
}  # fmt: skip
CLI_FLOOR = {"cli", "demo", "doctor", "lab"}
HEAVY = {
    "torch_geometric", "sevenn", "chgnet", "dscribe", "nglview", "tblite", "dask", "distributed", "h5py", "sklearn",
    "openTSNE", "so3krates_torch", "mace", "e3nn", "pymatgen", "pyscf",
}  # fmt: skip
JUPYTER = {"IPython", "ipywidgets", "anywidget", "nglview", "ipykernel", "jupyterlab", "notebook"}


def package_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return "widgets" if relative.parts[0] == "widgets" else Path(relative.parts[1]).stem


def imports(path: Path, *, top_level_only: bool = False) -> list[str]:
    """Absolute module names imported by a file; type-checking imports do not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    if top_level_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                skipped |= {id(inner) for inner in ast.walk(node)}
    names = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def test_there_is_something_to_check():
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    here = package_of(path)
    if here == "__init__":
        return
    assert here in FLOORS, f"{path.name}: give the package '{here}' a floor in this test"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "mlipkit_widgets":
            assert here == "widgets", f"{path.name} reaches up to the widgets"
        if parts[0] != "mlipkit" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        there = parts[1]
        allowed = there == here or FLOORS[there] < FLOORS[here] or {there, here} <= CLI_FLOOR
        assert allowed, f"{path.relative_to(ROOT)} imports mlipkit.{there}: not below {here}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_lazily_and_jupyter_stays_out_of_the_core(path: Path):
    roots = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    if package_of(path) == "widgets":
        roots -= {"ipywidgets", "anywidget", "IPython"}
        assert not roots & HEAVY, f"{path.name}: {roots & HEAVY}"
        return
    assert not roots & (HEAVY | JUPYTER), f"{path.name}: {roots & (HEAVY | JUPYTER)}"
    anywhere = {name.split(".")[0] for name in imports(path)}
    assert not anywhere & JUPYTER or package_of(path) in CLI_FLOOR, f"{path.name}: {anywhere & JUPYTER}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_process_wide_dtype_no_pickles_no_prints(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called != "torch.set_default_dtype", f"{path.name} changes the process-wide dtype"
        # Weights of others are pickles; their adapters read them, and say so in `describe()`.
        if path.parent != ROOT / "mlipkit/models/universal":
            assert called not in {"torch.load", "pickle.load", "pickle.loads"}, f"{path.name} unpickles"
        assert called != "print", f"{path.name} prints; emit an event or log"


def test_no_circle_between_modules():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCES
        if path.is_relative_to(ROOT / "mlipkit")
    }
    graph = {
        name: {m for m in imports(path, top_level_only=True) if m in modules and m != name}
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in graph[name]:
            # A package's __init__ re-exports its members; that is not a circle.
            if not name.startswith(f"{other}."):
                visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_every_package_is_shipped():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "mlipkit").rglob("__init__.py")} | {
        "mlipkit_widgets",
        "mlipkit_notebooks",
    }
    assert listed == found


@pytest.mark.parametrize(
    "module", ["mlipkit", "mlipkit.data", "mlipkit.analysis", "mlipkit.runs", "mlipkit.plots", "mlipkit.events"]
)
def test_views_do_not_pay_for_torch(module: str):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, f"import {module} brings torch"


def test_a_layer_violation_is_noticed(tmp_path: Path):
    """The walker sees imports inside functions too, and not those for type checkers."""
    file = tmp_path / "x.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import mlipkit.runs\n"
        "def f():\n    from mlipkit.training import loop\n"
    )
    assert imports(file) == ["typing", "typing.TYPE_CHECKING", "mlipkit.training", "mlipkit.training.loop"]
    assert imports(file, top_level_only=True) == ["typing", "typing.TYPE_CHECKING"]
