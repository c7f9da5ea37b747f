"""What is installed is what is needed: a wheel holds the widgets' JavaScript, notebooks, samples and potentials."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy of what git knows: a build folder in the source tree would leak files that are no longer there.
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.full
def test_wheel_holds_everything_that_runs(wheel: zipfile.ZipFile):
    names = set(wheel.namelist())
    for folder, package, pattern in (
        ("mlipkit", "mlipkit", "*.py"),
        ("widgets", "mlipkit_widgets", "*.py"),
        ("widgets/static", "mlipkit_widgets/static", "*.*"),
        ("notebooks", "mlipkit_notebooks", "*.ipynb"),
        ("notebooks/recorded", "mlipkit_notebooks/recorded", "*.*"),
        ("mlipkit/data/samples/files", "mlipkit/data/samples/files", "*.*"),
    ):
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob(pattern)]
        assert files, folder
        missing = [
            str(path)
            for path in files
            if f"{package}/{path.as_posix()}" not in names and "__pycache__" not in str(path)
        ]
        assert not missing, f"{package}: {missing}"


@pytest.mark.full
def test_wheel_holds_nothing_else(wheel: zipfile.ZipFile):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "mlipkit",
        "mlipkit_widgets",
        "mlipkit_notebooks",
    }


def test_editable_install_finds_the_javascript():
    import mlipkit_widgets

    static = Path(mlipkit_widgets.__file__).parent / "static"
    assert {path.suffix for path in static.iterdir()} >= {".js", ".css"}


def test_samples_stay_small():
    files = list((ROOT / "mlipkit/data/samples/files").iterdir())
    assert sum(path.stat().st_size for path in files) < 12e6
