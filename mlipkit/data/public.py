"""Public data sets by name: `list`, `card`, `get`.

A set is looked for in the folder named by the environment variable ``MLIPKIT_DATA``, then in the download cache
(``MLIPKIT_CACHE``, by default the user's cache folder), then fetched. Without a network the error says which file to
download by hand and where to put it.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.data.public_sets import SETS, PublicSet
from mlipkit.errors import DataError, nearest

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet


def list() -> tuple[PublicSet, ...]:
    """All public sets that mlipkit knows."""
    return tuple(SETS.values())


def names() -> tuple[str, ...]:
    """Their names, as in ``public:NAME``."""
    return tuple(SETS)


def find(name: str) -> PublicSet:
    """One public set.

    Raises:
        DataError: no such name.
    """
    if name not in SETS:
        near = nearest(name, SETS)
        raise DataError(f"no public data set '{name}'", hint=near[0].upper() + near[1:])
    return SETS[name]


def card(name: str) -> dict[str, Any]:
    """Name, title, licence, citation, address, checksum, level of theory, ... of one set."""
    return find(name).card()


def get(name: str, index: str | int | slice = ":", *, download: bool = True, **options: Any) -> FrameSet:
    """Frames of a public set.

    Args:
        name: one of `names`.
        index: which frames, as in `mlipkit.data.read`.
        download: False never touches the network.
        options: passed to `mlipkit.data.read`; they win over those of the registry.

    Raises:
        DataError: unknown name, not there and not to be fetched, a checksum that does not fit, or what `read` raises.
    """
    from mlipkit.data.read import idle_in_files, read

    one = find(name)
    path = fetch(name, download=download)
    registered = {"keys": one.keys, "units": one.units, "format": one.format}
    chosen: dict[str, Any] = {key: value for key, value in registered.items() if value is not None}
    chosen.update(options)
    if path.is_dir():
        # A folder filled by hand: its files may be of any format.
        inside = [str(file) for file in _within(path)]
        if "units" not in options and "units" in idle_in_files(inside, units=chosen.get("units")):
            del chosen["units"]
        return read(inside, index=index, **chosen)
    if path.suffix in (".extxyz", ".xyz"):
        chosen = {
            key: value for key, value in chosen.items() if key in options or key not in ("units", "keys", "format")
        }
    return read(path, index=index, **chosen)


def files(name: str, *, download: bool = True) -> Sequence[Path]:
    """The files of a set, fetched when they are not there yet.

    Raises:
        DataError: unknown name, not there and not to be fetched.
    """
    path = fetch(name, download=download)
    return _within(path) if path.is_dir() else [path]


def _within(folder: Path) -> Sequence[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((".", "README")))


def fetch(name: str, *, download: bool = True) -> Path:
    """Path of the file (or hand-filled folder) of a set, fetched when it is not there yet.

    Raises:
        DataError: not there, and not to be had: says what to put where.
    """
    one = find(name)
    for candidate in _candidates(one):
        if candidate.is_file() or (candidate.is_dir() and any(candidate.iterdir())):
            if candidate.name == one.file and candidate.is_file():
                _verify(one, candidate)
            return _inside(one, candidate)
    if one.url is None or not download:
        raise _by_hand(one, "it has to be opened by hand" if one.url is None else "it is not on this machine")
    return _inside(one, _download(one))


def cache_folder() -> Path:
    """Where downloads are kept: ``MLIPKIT_CACHE``, else the user's cache folder."""
    named = os.environ.get("MLIPKIT_CACHE")
    if named:
        return Path(named)
    import pooch

    return Path(pooch.os_cache("mlipkit")) / "public"


def _folders() -> Iterator[Path]:
    named = os.environ.get("MLIPKIT_DATA")
    if named:
        yield Path(named)
    yield cache_folder()


def _candidates(one: PublicSet) -> Iterator[Path]:
    """Places to look at, extracted members before archives."""
    wanted = [Path(one.member).name, one.file] if one.member else [one.file]
    for folder in _folders():
        for name in wanted:
            yield folder / one.name / name
            yield folder / name


def _verify(one: PublicSet, path: Path) -> None:
    if one.checksum is None:
        return
    import pooch

    kind, _, expected = one.checksum.partition(":")
    found = pooch.file_hash(str(path), alg=kind)
    if found != expected:
        raise DataError(
            "the file is not the published one",
            where=(one.name, path.name),
            expected=f"{kind} {expected}",
            found=found,
            hint=f"Remove it and fetch it again from {one.url or one.address}",
        )


def _download(one: PublicSet) -> Path:
    import pooch

    assert one.url is not None
    folder = cache_folder()
    pooch.get_logger().setLevel("WARNING")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(pooch.retrieve(one.url, known_hash=one.checksum, fname=one.file, path=folder))
    except ValueError as error:  # the checksum
        raise DataError(
            "the downloaded file is not the published one", where=(one.name, one.url), found=error
        ) from None
    except Exception as error:  # requests, urllib3, ftplib, OSError: all mean that it could not be had
        raise _by_hand(one, f"it could not be fetched ({type(error).__name__})") from error


def _by_hand(one: PublicSet, why: str) -> DataError:
    target = next(_folders()) / one.file
    note = f" {one.note}" if one.url is None and one.note else ""
    return DataError(
        f"public data set '{one.name}' is not here and {why}",
        expected=f"the file '{one.file}' (or a folder of that name) in {' or '.join(str(f) for f in _folders())}",
        hint=f"Download {one.url or one.address} and put it at {target}.{note}",
    )


def _inside(one: PublicSet, path: Path) -> Path:
    """The member of an archive, extracted beside it once; other paths as they are."""
    if one.member is None or path.name != one.file or path.is_dir():
        return path
    target = path.parent / one.name / Path(one.member).name
    if target.is_file():
        return target
    draft = target.with_suffix(f"{target.suffix}.{os.getpid()}.part")
    try:
        target.parent.mkdir(exist_ok=True)
        with _member(path, one.member) as source, draft.open("wb") as out:
            while block := source.read(1 << 20):
                out.write(block)
        os.replace(draft, target)
    except KeyError:
        raise DataError(f"the archive holds no '{one.member}'", where=(one.name, path.name)) from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(
            "cannot unpack the archive", where=(one.name, path.name), found=error, hint="Is it downloaded completely?"
        ) from None
    finally:
        draft.unlink(missing_ok=True)
    return target


def _member(path: Path, member: str):
    if zipfile.is_zipfile(path):
        return zipfile.ZipFile(path).open(member)
    stream = tarfile.open(path).extractfile(member)  # noqa: SIM115 - closed with the returned stream
    if stream is None:
        raise KeyError(member)
    return stream
