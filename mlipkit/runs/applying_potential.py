"""Potentials and label makers as `what_applies` sees them: what is known without loading them, and without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlipkit.errors import DataError, MlipkitError, SpecError
from mlipkit.runs.places import (
    UNIVERSAL_FILES,
    UNIVERSAL_PACKAGES,
    absolute,
    check_factory,
    check_package,
    check_universal,
    factory_of,
    run_of,
    universal_of,
)
from mlipkit.strategies.applies.situation import Frames, Maker, Model, numbers_of

WIDE = tuple(z for z in range(1, 95) if z not in (84, 85, 86, 87, 88))
UNIVERSAL_ELEMENTS: dict[str, tuple[int, ...] | None] = {
    "so3lr": numbers_of("H C N O F P S Cl"), "sevennet-0": WIDE, "chgnet": WIDE, "mace": None,
}  # fmt: skip
"""Domain of each universal potential (None: in its file); a test compares with `mlipkit.models`."""
XTB = tuple(range(1, 87))
"""Elements of GFN1-xTB and GFN2-xTB; the same test."""
UNTRAINED = ("zbl",)
"""Kinds of potentials that have no weights."""
MOST_HEADER = 1 << 26


def model_of(place: str, base: Path) -> Model:
    """What a place says of its potential.

    Raises:
        SpecError, DataError: the place names nothing.
    """
    title = place.rpartition("/")[2] or place
    if universal_of(place) is not None:
        return _universal(place, base)
    if factory_of(place) is not None:
        check_factory(place, base, "potential")
        return Model(place, title)
    if place.startswith("sample:"):
        from mlipkit.data import samples

        return _of_file(place, place, Path(samples.potential_path(place.removeprefix("sample:"))))
    folder = run_of(place, base)
    path = absolute(place, base)
    if folder is not None:
        return _of_run(place, folder)
    if path is None or not path.exists():
        raise SpecError("no such potential", where=("potential", place))
    if path.suffix != ".safetensors":
        return Model(place, title, wrong=f"{title} is no potential (a .safetensors file, a run or universal:NAME is)")
    return _of_file(place, title, path)


def model_of_object(potential: Any) -> Model:
    """What a potential, or a calculator, in memory says of itself."""
    title = type(potential).__name__
    if not hasattr(potential, "encoder_parameters"):
        return Model(title=title, trainable=False if hasattr(potential, "get_property") else None,
                     wrong="" if hasattr(potential, "get_property") else f"{title} is no potential")  # fmt: skip
    free = sum(one.numel() for one in potential.parameters() if one.requires_grad)
    return Model(
        title=title, elements=tuple(potential.elements), trainable=free > 0, parameters=free,
        heads=tuple(getattr(potential, "auxiliary", {})), universal=hasattr(potential, "FACTS"),
    )  # fmt: skip


def _universal(place: str, base: Path) -> Model:
    found = universal_of(place)
    assert found is not None
    missing = ""
    try:
        check_universal(place, "potential", base)
    except SpecError:
        raise
    except MlipkitError as error:
        missing = f"the package {UNIVERSAL_PACKAGES[found[0]]} ({_hint(error)})"
    return Model(place, place, UNIVERSAL_ELEMENTS[found[0]], True, universal=True, missing=missing)


def _of_run(place: str, folder: Path) -> Model:
    from mlipkit.runs.run import Run
    from mlipkit.runs.spec import FittingSpec, IPIPSpec

    run = Run(folder)
    if not isinstance(run.spec, FittingSpec | IPIPSpec):
        return Model(place, run.name, wrong=f"{run.name} trained no potential, it is a run of kind {run.kind}")
    for name in ("chosen", "best", "last"):
        path = run.files.checkpoints / f"{name}.safetensors"
        if path.is_file():
            return _of_file(place, run.name, path)
    state = run.state
    missing = f"the first weights of {run.name}, which " + (f"is {state}" if run.active else f"ended without ({state})")
    return Model(place, run.name, trainable=True, missing=missing)


def _of_file(place: str, title: str, path: Path) -> Model:
    header = header_of(path)
    words = header.get("__metadata__", {}).get("mlipkit") if isinstance(header.get("__metadata__"), dict) else None
    try:
        spec = json.loads(words or "")
    except ValueError:
        spec = None
    if not isinstance(spec, dict):
        return Model(place, title, wrong=f"{title} holds no potential of mlipkit")
    parts = list(_parts(spec))
    domains = [_domain(part) for part in parts]
    known = [domain for domain in domains if domain is not None]
    elements = tuple(sorted(set.intersection(*map(set, known)))) if known else None
    kinds = [str(part.get("kind", "potential")) for part in parts]
    parameters = 0
    for name, value in header.items():
        if name.startswith("potential.") and isinstance(value, Mapping) and "atomic_energies" not in name:
            size = 1
            for length in value.get("shape", []):
                size *= int(length)
            parameters += size
    heads = tuple(sorted({name for part in parts for name in part.get("auxiliary", {})}))
    missing = ""
    for kind in kinds:
        name = kind.removeprefix("universal:")
        if kind.startswith("universal:") and name in UNIVERSAL_PACKAGES:
            try:
                check_package(UNIVERSAL_PACKAGES[name], "universal", ("potential", place))
            except MlipkitError as error:
                missing = f"the package {UNIVERSAL_PACKAGES[name]} ({_hint(error)})"
    return Model(
        place, title, elements, not all(kind in UNTRAINED for kind in kinds), parameters, heads,
        any(kind.startswith("universal:") for kind in kinds), missing,
    )  # fmt: skip


def header_of(path: Path) -> dict[str, Any]:
    """Header of a safetensors file, its tensors unread; empty when it is none."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MOST_HEADER:
                return {}
            found = json.loads(file.read(length))
    except (OSError, ValueError, struct.error):
        return {}
    return found if isinstance(found, dict) else {}


def _parts(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The potentials that a sum or a committee is made of, or the one itself."""
    inner = spec.get("potentials")
    if not isinstance(inner, list):
        yield spec
        return
    for one in inner:
        if isinstance(one, Mapping):
            yield from _parts(one)


def _domain(part: Mapping[str, Any]) -> tuple[int, ...] | None:
    kind = str(part.get("kind", ""))
    if kind.startswith("universal:"):
        return UNIVERSAL_ELEMENTS.get(kind.removeprefix("universal:"))
    elements = part.get("elements")
    return tuple(map(int, elements)) if isinstance(elements, list) else None


def maker_of_place(place: str, base: Path) -> Maker:
    """What a label maker covers.

    Raises:
        SpecError: unknown label maker.
    """
    from mlipkit.labelling.makers import PACKAGES, RECORDED
    from mlipkit.runs.spec_label import LabelSpec

    spec = LabelSpec(data=".", maker=place)
    engine, title = spec.engine, {"gfn1-xtb": "GFN1-xTB", "gfn2-xtb": "GFN2-xTB", "pyscf": "PySCF"}.get(place, place)
    missing = ""
    if engine in PACKAGES:
        package, extra = PACKAGES[engine]
        try:
            check_package(package, extra, ("maker", place))
        except MlipkitError as error:
            missing = f"the package {package} ({_hint(error)})"
    if engine == "tblite":
        return Maker(place, title, XTB, ("none", "all"), missing)
    if engine == "pyscf":
        return Maker(place, title, None, ("none",), missing)
    if engine == "potential":
        model = model_of(place, base)
        return Maker(place, title, model.elements, None, model.missing or model.wrong)
    return Maker(place, title.removeprefix(RECORDED))


def choose_maker(frames: Frames, potential: str, base: Path) -> Maker:
    """The label maker of the potential's own training frames where it is known, else the first that fits.

    Where none fits, the one whose lack can be mended most easily.
    """
    from mlipkit.runs.loop import maker_of

    names = ["gfn1-xtb", "gfn2-xtb", "pyscf"]
    try:
        own = maker_of(potential) if potential else None
    except (MlipkitError, KeyError):
        own = None
    if own is not None:
        names.insert(0, own)
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(maker_of_place(name, base))
        except (SpecError, DataError):  # of a run whose file has gone
            continue
    fitting = [one for one in found if not one.against(frames)]
    covering = [one for one in found if one.against(frames) == one.missing]
    return (fitting or covering or found)[0]


def installed_elsewhere(place: str) -> bool:
    """Whether a universal potential lives in an environment of its own."""
    found = universal_of(place)
    return found is not None and found[0] in UNIVERSAL_FILES


def _hint(error: MlipkitError) -> str:
    hint = (error.hint or "").removeprefix("Install it with: ")
    return hint[:1].lower() + hint[1:] if hint else error.what
