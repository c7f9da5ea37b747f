"""Every other format: ASE reads it, and whatever goes wrong there becomes one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, iread

from mlipkit.data.reading import Index, head, label_of, open_bytes
from mlipkit.errors import DataError

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


def detect(path: Path) -> str:
    """ASE's name of the format, from the content first and the file name last.

    Raises:
        DataError: ASE does not know it.
    """
    try:
        found = filetype(str(path))
        get_ioformat(found)
        return found
    except (UnknownFileTypeError, ValueError):
        start = head(path, 40)
        shown = start.decode("ascii", "replace").replace("\ufffd", "?").split("\n")[0]
        raise DataError(
            "neither mlipkit nor ASE knows this format",
            where=label_of(path),
            found=f"a file that starts with '{shown[:30]}'",
            hint="Name it with format='...' (any format of ase.io), or convert it to extended XYZ",
        ) from None


def frames(path: Path, format: str, index: Index) -> Iterator[Atoms]:
    """Frames as ASE reads them.

    Raises:
        DataError: what ASE said, with the number of the frame it failed at.
    """
    name = label_of(path)
    count = 0
    try:
        info = get_ioformat(format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = slice(None) if info.single else index
            with path.open("rb") as stream:
                compressed = stream.read(6).startswith(_COMPRESSED)
            if compressed and info.acceptsfd and info.isbinary:
                with open_bytes(path) as stream:
                    for atoms in iread(stream, wanted, format=format, parallel=False):
                        yield atoms
                        count += 1
            else:
                for atoms in iread(str(path), wanted, format=format, parallel=False, do_not_split_by_at_sign=True):
                    yield atoms
                    count += 1
    except Exception as error:  # ASE's readers raise anything
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"ASE cannot read this as '{format}'",
            where=(name, f"frame {count}"),
            found=f"{type(error).__name__}: {error}",
            hint="Is the file truncated, or is it another format? Name it with format='...'",
        ) from error
