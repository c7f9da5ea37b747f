"""The pages of docs/: all in the navigation, no dead link or name, examples that run, nothing from the internet."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TICKS = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"(mlipkit_widgets|mlipkit|mk)(\.[A-Za-z_]\w*)+")
FILE = re.compile(
    r"(?:\.ci|benchmarks|docs|mlipkit|notebooks|tests|widgets)/[\w./-]*\w|(?:README|CONTRIBUTING|CHANGELOG)\.md"
)
EXAMPLE = re.compile(r"<!-- (run|file: [\w.]+) -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+")
WHOLE = {"mk": "mlipkit"}


def ids(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def in_nav(part: object) -> list[str]:
    """Files named in a navigation."""
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [name for one in parts for name in in_nav(one)]  # type: ignore[attr-defined]


def examples(path: Path) -> list[tuple[str, str]]:
    """("run" or the name of a file, source) in the order of the page."""
    return [(kind.removeprefix("file: "), code) for kind, code in EXAMPLE.findall(path.read_text())]


def anchors(path: Path) -> set[str]:
    """Anchors of the headings of a page, as Python-Markdown makes them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).strip()
        found.add(re.sub(r"[\s-]+", "-", plain))
    return found


@functools.cache
def there(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one or of a class."""
    head, *rest = name.split(".")
    parts = [WHOLE.get(head, head), *rest]
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            # A field of a pydantic model or dataclass is no attribute of its class.
            if part in getattr(found, "model_fields", ()) or part in getattr(found, "__annotations__", ()):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_page_is_in_the_navigation_once():
    nav = in_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(nav) == [ids(path) for path in PAGES]


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_links_lead_somewhere(path: Path):
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.is_file(), f"{path.name} links to {target}"
        assert other.is_relative_to(DOCS), f"{path.name}: {target} is not among the pages"
        if anchor:
            assert anchor in anchors(other), f"{path.name}: {target}; there are {sorted(anchors(other))}"


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_names_in_backticks_exist(path: Path):
    for text in TICKS.findall(FENCE.sub("", path.read_text())):
        for match in NAME.finditer(text):
            if match.start() and text[match.start() - 1] in "\"'/.":
                continue
            assert there(match.group()), f"{path.name}: `{text}` names nothing"
        if FILE.fullmatch(text):
            assert (ROOT / text).exists(), f"{path.name}: there is no {text}"


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_reference_names_what_is_there(path: Path):
    for name in re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE):
        assert there(re.sub(r"^widgets\b", "mlipkit_widgets", name)), f"{path.name}: ::: {name}"


def test_every_notebook_and_every_view_has_its_words():
    notebooks, views = (DOCS / "notebooks.md").read_text(), (DOCS / "widgets.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"## {path.stem}\n" in notebooks, path.name
        assert f"| `{path.stem}` |" in notebooks, path.name
    for name in importlib.import_module("mlipkit_widgets").__all__:
        assert re.search(rf"\b{name}\b", views), name


def test_the_page_of_runs_names_every_file_of_a_run_folder():
    told = importlib.import_module("mlipkit.runs.folder").__doc__.partition("<root>")[2]
    files = set(re.findall(r"[\w.]+\.(?:yaml|jsonl?|txt|traj|npz|html)|heartbeat|checkpoints|series", told))
    assert len(files) > 12
    page = (DOCS / "runs.md").read_text()
    assert {name for name in files if f"`{name}" not in page and f"{name}`" not in page} == set()


def test_a_name_that_is_not_there_is_noticed():
    assert there("mk.launch")
    assert there("mlipkit.runs.MDSpec.replicas")
    assert not there("mlipkit.runs.launches")
    assert not there("mk.read.nothing")
    assert FILE.fullmatch("mlipkit/runs/folder.py")


@pytest.mark.full
@pytest.mark.parametrize("path", [path for path in PAGES if examples(path)], ids=ids)
def test_examples_run(path: Path, tmp_path: Path):
    """Those marked with <!-- run -->, page by page in one process; <!-- file: NAME --> writes a file for them."""
    source = ""
    for kind, code in examples(path):
        if kind == "run":
            source += code + "\n"
        else:
            (tmp_path / kind).write_text(code)
    (tmp_path / "page.py").write_text(source)
    environment = {**os.environ, "MLIPKIT_QUEUE": str(tmp_path / "queue")}
    out = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
    )
    assert out.returncode == 0, out.stdout + out.stderr


def test_pages_that_say_how_to_extend_have_examples():
    names = {ids(path) for path in PAGES if examples(path)}
    assert names >= {"extend_encoder.md", "extend_check.md", "extend_label_maker.md", "extend_widget.md", "data.md"}


@pytest.mark.full
def test_the_site_is_built_and_asks_the_internet_for_nothing(tmp_path: Path):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip('needs mkdocs: pip install "mlipkit[docs]"')
    out = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text()
        fetched = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+", text
        )
        assert not fetched, f"{page.name}: {fetched}"
        assert "mermaid" not in text, f"{page.name}: mermaid is fetched from the internet"
    for style in tmp_path.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()), style.name
