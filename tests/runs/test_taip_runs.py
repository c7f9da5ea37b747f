"""TAIP as runs: tasks in a training, adaptation in a simulation, the evaluation as one specification."""

from __future__ import annotations

import pytest
import yaml

import mlipkit as mk
from mlipkit.errors import SpecError
from mlipkit.runs import parse_spec

MODEL = {"encoder": "schnet", "features": 16, "layers": 1, "cutoff": 4.0}
QUICK = {"data": "sample:ethanol_300K@:60", "model": MODEL, "max_epochs": 2, "device": "cpu"}


def test_specifications_are_their_yaml_and_their_code():
    for spec in (
        mk.TrainSpec(**QUICK, taip={"enabled": True, "gamma": 2.0}),
        mk.TaipSpec(**QUICK, shifted=["sample:ethanol_600K@:9"], adaptation={"rates": [1e-5]}),
        mk.MDSpec(adaptation={"strategy": "save_every_k", "every": 10}),
    ):
        assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
        assert eval(spec.code().partition("mk.launch(")[2].rpartition(")\nrun.wait")[0], {"mk": mk}) == spec
    assert mk.TaipSpec(**QUICK).default_name == "taip_schnet"
    assert mk.TaipSpec(**QUICK, adaptation={"rates": "1e-5, 1e-4"}).adaptation.rates == [1e-5, 1e-4]


@pytest.mark.parametrize(
    ("cls", "fields", "said"),
    [
        ("TrainSpec", {"data": "x", "taip": {"gamma": 2.0}}, "no effect unless enabled"),
        ("TrainSpec", {"data": "x", "taip": {"enabled": True, "noise": 0, "types": 0, "pseudo_forces": 0}}, "weight"),
        (
            "TrainSpec", {"data": "x", "taip": {"enabled": True, "mf_mode": "authors", "decoder": "equivariant"}},
            "effect",
        ),
        ("TrainSpec", {"data": "x", "taip": {"enabled": True, "sigma_min": 20}}, "larger"),
        ("TaipSpec", {"data": "x", "taip": {"enabled": False}}, "needs them"),
        ("TaipSpec", {"data": "x", "seeds": [1, 1]}, "each once"),
        ("MDSpec", {"adaptation": {"rate": 1e-3}}, "no effect"),
        ("MDSpec", {"adaptation": {"strategy": "threshold"}}, "needs a number"),
        ("MDSpec", {"adaptation": {"strategy": "nonsaving", "every": 3}}, "no effect"),
        ("MDSpec", {"adaptation": {"strategy": "nonsaving", "optimiser": "adam_kept"}}, "moments"),
    ],
)  # fmt: skip
def test_options_that_cannot_act_are_refused(cls, fields, said):
    with pytest.raises(SpecError, match=said):
        getattr(mk, cls)(**fields)


def test_the_strategy_answers_for_itself():
    from mlipkit.strategies.applies import register, unregister

    register("taip", "mlipkit.strategies.applies.adapting:adaptation")
    try:
        found = mk.what_applies("sample:ethanol_300K", measure=False)["taip"]
    finally:
        unregister("taip")
    assert found.state == "ready", found.sentence
    assert parse_spec(found.spec).kind == "taip"
