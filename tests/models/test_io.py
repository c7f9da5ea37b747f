"""Potentials on disk: old files load for ever, damaged and foreign ones say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import suites
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlipkit.data import graph_of
from mlipkit.errors import ModelError
from mlipkit.models import FORMAT_VERSION, Potential, io, load, save
from mlipkit.models.heads import AUXILIARY_HEADS, MLPHead

CHECKPOINTS = Path(__file__).parent / "checkpoints"


@pytest.fixture
def potential():
    return suites.small_potential("painn", torch.float32)


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_stored_checkpoints_load(path):
    """Files of every format version ever written load and predict what they did."""
    potential = load(path)
    assert potential.dtype is torch.float32
    wanted = json.loads(path.with_suffix(".expected.json").read_text())
    graph = graph_of(suites.skewed_crystal(), potential.cutoff, torch.float64)
    result = potential.double()(graph, stress=True, features=True)
    for name in ("energy", "forces", "stress"):
        assert np.allclose(getattr(result, name).numpy(), wanted[name], rtol=0, atol=1e-9), name
    if isinstance(potential, Potential):
        hidden = potential.auxiliary["hidden_type"](result.features).detach()
        assert np.allclose(hidden.numpy(), wanted["hidden_type"], rtol=0, atol=1e-9)


def test_there_is_a_checkpoint_of_every_version():
    stored = {int(path.name.split("_")[0][1:]) for path in CHECKPOINTS.glob("v*.safetensors")}
    assert stored == set(range(1, FORMAT_VERSION + 1))
    newest = {path.stem.partition("_")[2] for path in CHECKPOINTS.glob(f"v{FORMAT_VERSION}_*.safetensors")}
    assert newest >= set(suites.MODELS)
    assert set(io.UPGRADES) == set(range(1, FORMAT_VERSION))


def test_card_and_header(potential, tmp_path):
    path = save(potential, tmp_path / "deep" / "p.safetensors", {"data": "ethanol", "MAE": 0.01})
    assert io.card_of(path) == {"data": "ethanol", "MAE": 0.01}
    with safe_open(path, "pt") as file:
        spec = json.loads(file.metadata()["mlipkit"])
    assert spec["format_version"] == FORMAT_VERSION
    assert spec["encoder"]["name"] == "painn"
    assert sorted(item.name for item in path.parent.iterdir()) == ["p.json", "p.safetensors"]


def test_extra_tensors_ride_along(potential, tmp_path):
    extra = {"optimiser.step": torch.tensor([7])}
    path = save(potential, tmp_path / "last.safetensors", extra_tensors=extra, extra={"epoch": "3"})
    load(path)
    _, tensors = io.read(path)
    assert int(tensors["optimiser.step"]) == 7
    with pytest.raises(ModelError, match="reserved name"):
        save(potential, path, extra_tensors={"potential.x": torch.zeros(1)})


def test_auxiliary_heads_are_saved(potential, tmp_path, monkeypatch):
    potential.auxiliary["decoder"] = MLPHead([12, 6, 4])
    path = save(potential, tmp_path / "p.safetensors")
    other = load(path)
    x = torch.randn(3, 12)
    assert torch.equal(other.auxiliary["decoder"](x), potential.auxiliary["decoder"](x))
    monkeypatch.delitem(AUXILIARY_HEADS, "mlp")
    with pytest.raises(ModelError, match="unknown auxiliary head 'mlp'"):
        load(path)


def test_unregistered_auxiliary_head_is_refused(potential, tmp_path):
    potential.auxiliary["stray"] = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="stray"):
        save(potential, tmp_path / "p.safetensors")


def test_loading_draws_no_random_numbers(potential, tmp_path):
    path = save(potential, tmp_path / "p.safetensors")
    before = torch.random.get_rng_state()
    load(path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_failed_save_leaves_the_old_file(potential, tmp_path, monkeypatch):
    path = save(potential, tmp_path / "p.safetensors")
    old = path.read_bytes()
    monkeypatch.setattr(io.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(ModelError, match=r"p\.safetensors: cannot be written \(disk full\)"):
        save(suites.small_potential("painn", torch.float32, seed=9), path)
    assert path.read_bytes() == old
    assert [item.name for item in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_file_that_cannot_be_written_is_named(potential, tmp_path, monkeypatch):
    assert save(potential, tmp_path / "new" / "folder" / "a.safetensors").is_file()
    (tmp_path / "taken").touch()
    with pytest.raises(ModelError, match=r"taken/a\.safetensors: cannot be written \(.+\)\. Is there room"):
        save(potential, tmp_path / "taken" / "a.safetensors")

    def forbidden(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", forbidden)
    with pytest.raises(ModelError, match=r"a\.safetensors: cannot be written \(Permission denied\)"):
        save(potential, tmp_path / "a.safetensors")


def test_run_folder(potential, tmp_path):
    with pytest.raises(ModelError, match="folder without a trained potential"):
        load(tmp_path)
    save(potential, tmp_path / "checkpoints" / "last.safetensors")
    assert load(tmp_path).describe() == potential.describe()
    best = suites.small_potential("schnet", torch.float32)
    save(best, tmp_path / "checkpoints" / "best.safetensors")
    assert load(tmp_path).describe()["encoder"] == "schnet"


def _rewritten(path: Path, change) -> Path:
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    spec = json.loads(header["mlipkit"])
    change(spec, tensors)
    save_file(tensors, path, {"mlipkit": json.dumps(spec)})
    return path


def test_upgrades_run_in_order(potential, tmp_path, monkeypatch):
    """A file of an older version goes through every upgrade between; one without an upgrade is refused."""

    def outdate(spec, tensors):
        spec["format_version"] = -1
        spec.pop("kind")
        spec["net"] = spec.pop("encoder")
        tensors["potential.factor"] = tensors.pop("potential.scale")

    path = _rewritten(save(potential, tmp_path / "p.safetensors"), outdate)
    with pytest.raises(ModelError, match="no upgrade from format version -1"):
        load(path)

    def first(spec, tensors):
        spec["encoder"] = spec.pop("net")
        return spec, tensors

    def second(spec, tensors):
        tensors["potential.scale"] = tensors.pop("potential.factor")
        return spec, tensors

    monkeypatch.setitem(io.UPGRADES, -1, first)
    monkeypatch.setitem(io.UPGRADES, 0, second)
    assert load(path).describe() == potential.describe()


def test_newer_version_is_refused(potential, tmp_path):
    path = save(potential, tmp_path / "p.safetensors")
    _rewritten(path, lambda spec, _: spec.update(format_version=99))
    with pytest.raises(
        ModelError, match=rf"p\.safetensors: format version.*at most {FORMAT_VERSION}; found 99\. Update"
    ):
        load(path)


def test_damaged_files(potential, tmp_path):
    path = save(potential, tmp_path / "p.safetensors")
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"p\.safetensors: not a readable safetensors file"):
            load(path)
    path.write_bytes(whole)
    _rewritten(path, lambda _, tensors: tensors.pop("potential.head.mlp.0.weight"))
    with pytest.raises(ModelError, match=r"weights do not fit.*head\.mlp\.0\.weight"):
        load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="without an mlipkit specification"):
        load(path)
    with pytest.raises(ModelError, match=r"nowhere\.safetensors: no such file"):
        load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelError, match=r"expected NAME\.safetensors"):
        save(potential, tmp_path / "p.pt")


@pytest.mark.parametrize("header", ["{", "[1]", "null", "3"])
def test_a_header_that_is_no_specification(header, tmp_path):
    path = tmp_path / "p.safetensors"
    save_file({"x": torch.zeros(2)}, path, {"mlipkit": header})
    with pytest.raises(ModelError, match=r"p\.safetensors: damaged specification"):
        load(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder": "painn"}, {"encoder": {"options": {}}}, {"dtype": "int64"}, {"elements": ["H"]}, {"elements": 1},
        {"kind": ["potential"]}, {"kind": "sum", "potentials": 3}, {"kind": "sum", "potentials": ["painn"]},
        {"auxiliary": {"a": 1}}, {"head": []},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_a_specification_that_cannot_be(wrong, potential, tmp_path):
    path = _rewritten(save(potential, tmp_path / "p.safetensors"), lambda spec, _: spec.update(wrong))
    with pytest.raises(ModelError, match=r"p\.safetensors: damaged specification"):
        load(path)


def test_nested_names_of_a_broken_specification(potential, tmp_path):
    path = save(potential, tmp_path / "p.safetensors")
    _rewritten(path, lambda spec, _: spec["encoder"].update(name="pain"))
    with pytest.raises(ModelError, match="did you mean 'painn'"):
        load(path)
    _rewritten(path, lambda spec, _: spec.update(dtype="Tensor", encoder={"name": "painn", "options": {}}))
    with pytest.raises(ModelError, match="unknown dtype"):
        load(path)
    _rewritten(path, lambda spec, _: spec.pop("head"))
    with pytest.raises(ModelError, match="'head'"):
        load(path)
