"""Features of potentials as a descriptor: the same face as SOAP."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.features import ModelFeatures
from mlipkit.analysis.live import LiveScorer
from mlipkit.analysis.ood import OODModel
from mlipkit.data import graph_of, samples
from mlipkit.errors import DataError, ModelError
from mlipkit.models import ZBLRepulsion, load


@pytest.fixture(scope="module")
def features() -> ModelFeatures:
    return ModelFeatures(load("sample:ethanol_50"), batch_size=4)


def test_features_are_what_the_potential_predicts(features: ModelFeatures):
    frames = samples.load("ethanol_300K")[:7]
    X = features(frames)
    assert X.shape == (63, features.size)
    assert X.dtype == np.float32
    graph = graph_of(frames[5], features.potential.cutoff)
    expected = features.potential(graph, forces=False, features=True).features.numpy()
    np.testing.assert_allclose(X[45:54], expected, rtol=1e-3, atol=1e-4)
    assert features.species == features.potential.elements


def test_the_hash_follows_the_weights(features: ModelFeatures):
    assert features.hash == ModelFeatures(load("sample:ethanol_50")).hash
    assert features.hash != ModelFeatures(load("sample:ethanol_1000")).hash


def test_a_model_of_features_scores_saves_and_loads(features: ModelFeatures, tmp_path):
    cold, hot = samples.load("ethanol_300K")[:60], samples.load("ethanol_600K")[:20]
    model = OODModel.fit(cold, features, components=4)
    calm, wild = model.score(cold), model.score(hot)
    assert wild.per_frame("q").mean() > calm.per_frame("q").mean()
    path = model.save(tmp_path / "features.safetensors")
    with pytest.raises(ModelError, match=r"features of a potential.*ModelFeatures\(potential\)"):
        OODModel.load(path)
    with pytest.raises(ModelError, match="weights"):
        OODModel.load(path, ModelFeatures(load("sample:ethanol_1000")))
    again = OODModel.load(path, features)
    np.testing.assert_allclose(again.score(hot).q, wild.q, rtol=1e-5)
    frame = hot.frame(2)
    live = LiveScorer(again).score(frame["numbers"], frame["positions"], frame["cell"], frame["pbc"])
    np.testing.assert_allclose(live.q, wild.q[18:27], rtol=1e-3, atol=1e-4)


def test_what_has_no_features_or_a_strange_element_is_refused(features: ModelFeatures):
    with pytest.raises(ModelError, match="has no features"):
        ModelFeatures(ZBLRepulsion([1, 8]))
    with pytest.raises(DataError, match="unknown to the descriptor"):
        ModelFeatures(load("sample:ethanol_50"))(samples.load("h2_pd6_nve")[:1])


@pytest.mark.full
@pytest.mark.parametrize("name", ["so3lr", "sevennet-0", "chgnet"])
def test_universal_potentials_have_the_same_face(name: str, tmp_path):
    from mlipkit.models.universal import UNIVERSAL, load_universal

    pytest.importorskip(UNIVERSAL[name].MODULE)
    features = ModelFeatures(load_universal(f"universal:{name}"))
    water = samples.load("water_liquid")[:4]
    model = OODModel.fit(water, features, components=3)
    scores = model.score(water)
    assert scores.projections.shape == (384, 3)
    assert (scores.q > 0).any()
    again = OODModel.load(model.save(tmp_path / "model.safetensors"), features)
    np.testing.assert_array_equal(again.score(water).q, scores.q)
    assert features.facts()["species"] == list(features.potential.elements)
