"""Sources as specifications name them: samples, public sets and files behind one text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlipkit.data import public, samples
from mlipkit.data.frameset import FrameSet
from mlipkit.data.read import asked_options, idle_in_files, read, take
from mlipkit.data.reading import parse_index
from mlipkit.errors import DataError


def read_source(source: str | Path | Sequence[str | Path], **options: Any) -> FrameSet:
    """Frames named in a specification.

    Args:
        source: ``"sample:NAME"``, ``"public:NAME"`` or a path, each with an optional ``@index``; or a list of these.
        options: passed to `read` for paths and public sets (`keys`, `allow_partial`, ...).

    Raises:
        DataError: unknown sample or set, or what `read` raises.
    """
    if not isinstance(source, (str, Path)):
        if not source:
            raise DataError("no data named", expected="a sample, a public set or a path")
        return FrameSet.concat([read_source(one, **options) for one in source])
    text = str(source)
    kind, colon, name = text.partition(":")
    if colon and kind == "sample":
        name, _, index = name.partition("@")
        return take(samples.load(name), parse_index(index or None, text), text)
    if colon and kind == "public":
        name, _, index = name.partition("@")
        return public.get(name, index=index or ":", **options)
    return read(text, **options)


def idle_options(source: str | Path | Sequence[str | Path], **options: Any) -> dict[str, str]:
    """Those of `keys`, `units` and `unconverged` that were given and can act on no file of a source, and why not.

    Args:
        source: as in `read_source`.
        options: as in `read_source`; others than these three are passed over.

    Raises:
        DataError: no such file, sample or set.
    """
    asked = asked_options(options)
    if not asked:
        return {}
    kind, _, name = str(source).partition(":")
    if kind == "sample":
        return dict.fromkeys(asked, "a sample has its labels and units already, and only converged frames")
    if kind == "public":
        source = [str(file) for file in public.files(name.partition("@")[0])]
    return idle_in_files(source, **options)
