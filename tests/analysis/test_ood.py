"""The model of a fit-on set: limits, scores, files, and the frames it must refuse."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.analysis.descriptors import Rows
from mlipkit.analysis.live import LiveScorer
from mlipkit.analysis.ood import OODModel
from mlipkit.analysis.pca import fit_pca
from mlipkit.analysis.soap import Soap
from mlipkit.data import FrameSet, samples
from mlipkit.errors import DataError, ModelError

SMALL = {"n_max": 4, "l_max": 3}


@pytest.fixture(scope="module")
def cold() -> FrameSet:
    """Ethanol at 300 K in four runs."""
    frames = samples.load("ethanol_300K")
    frames = frames[np.linspace(0, len(frames) - 1, 120).astype(int)]
    return frames.with_table(trajectory=np.repeat(np.arange(4), 30), time=np.tile(np.arange(30) * 10.0, 4))


@pytest.fixture(scope="module")
def hot() -> FrameSet:
    frames = samples.load("ethanol_600K")
    frames = frames[np.linspace(0, len(frames) - 1, 40).astype(int)]
    return frames.with_table(trajectory=0, time=np.arange(40) * 10.0)


@pytest.fixture(scope="module")
def soap(cold: FrameSet) -> Soap:
    return Soap.of(cold, **SMALL)


@pytest.fixture(scope="module")
def model(cold: FrameSet, soap: Soap) -> OODModel:
    return OODModel.fit(cold, soap)


def test_the_plane_is_the_pca_of_the_fit_on_set(model: OODModel, cold: FrameSet, soap: Soap):
    pca = fit_pca(Rows(soap, cold), 5)
    np.testing.assert_allclose(model.pca.variance, pca.variance, rtol=1e-4)
    scores, X = model.score(cold), soap(cold)
    np.testing.assert_allclose(scores.q, model.pca.residual(X), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scores.projections, model.pca.transform(X), atol=1e-3)
    np.testing.assert_allclose(scores.nearest, 0.0, atol=1e-3)
    np.testing.assert_array_equal(scores.uids, cold.uids)
    assert model.k == 5
    assert len(scores) == 120


def test_a_limit_is_what_fits_on_the_other_runs_say(model: OODModel, cold: FrameSet, soap: Soap):
    q = np.empty(int(cold.offsets[-1]))
    for run in range(4):
        mine = cold.trajectory == run
        pca = fit_pca(Rows(soap, cold[~mine]), 5)
        q[np.repeat(mine, cold.n_atoms)] = pca.residual(soap(cold[mine]))
    limits = model.limits["q"]
    for row, z in enumerate(limits.elements):
        own = q[cold.numbers == z]
        assert limits.mean[row] == pytest.approx(own.mean(), rel=2e-3)
        assert limits.std[row] == pytest.approx(own.std(), rel=2e-3)
        assert limits.p99[row] == pytest.approx(np.percentile(own, 99), rel=1e-2)
    inside = model.score(cold)
    assert limits.mean[0] > inside.q[cold.numbers == 1].mean(), "a run left out lies further from the plane"
    assert model.facts["runs_detail"] == "4 runs told by trajectory, left out in turn"


def test_the_limit_does_not_depend_on_what_is_scored_but_the_published_rule_does(model, cold, hot):
    calm, wild = model.score(cold[:30]), model.score(hot)
    for measure, limits in calm.limits.items():
        np.testing.assert_array_equal(limits.limit, wild.limits[measure].limit)
    published = [model.score(frames, sigma_rule="trajectory") for frames in (cold[:30], hot)]
    assert (published[1].limits["q"].limit > published[0].limits["q"].limit).all()
    own = published[1]
    hydrogen = own.q[own.numbers == 1]
    assert own.limits["q"].limit[0] == pytest.approx(hydrogen.mean() + 2 * hydrogen.std())
    assert "along the frames scored" in own.limits["q"].detail
    assert own.flags.mean() < wild.flags.mean()


def test_hot_frames_lie_outside_and_cold_ones_inside(model: OODModel, cold: FrameSet, hot: FrameSet):
    calm, wild = model.score(cold), model.score(hot)
    # T² says nothing here: the five leading axes tell kinds of atoms apart, which heat does not change.
    for name in ("q", "nearest", "ratio", "flags"):
        assert wild.per_frame(name).mean() > 1.2 * calm.per_frame(name).mean(), name
    assert calm.flags.mean() < 0.05
    assert (wild.flags <= wild.above("q")).all()
    assert wild.flags.sum() < wild.above("q").sum()
    top = wild.per_frame("q", "max")
    assert top[3] == wild.q[27:36].max()
    assert wild.per_frame("flags")[0] == wild.flags[:9].mean()


def test_chunks_change_nothing(model: OODModel, hot: FrameSet, monkeypatch):
    whole = model.score(hot)
    monkeypatch.setattr(
        "mlipkit.analysis.descriptors.chunks", lambda frames, *_: [(i, i + 1) for i in range(len(frames))]
    )
    single = model.score(hot)
    np.testing.assert_allclose(single.q, whole.q, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(single.flags, whole.flags)


def test_a_stream_gives_the_same_scores_and_flags(model: OODModel, cold: FrameSet, hot: FrameSet):
    frames = hot.concat(cold[:11])
    whole, parts = model.score(frames), list(model.stream(frames, 7))
    assert [len(part) for part in parts] == [7] * 7 + [2]
    for name in ("numbers", "flags", "uids"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    for name in ("q", "t2", "combined", "nearest"):
        joined = np.concatenate([part.per_frame(name, "max") for part in parts])
        np.testing.assert_allclose(joined, whole.per_frame(name, "max"), rtol=1e-4, atol=1e-5)
    assert whole.flags.any()
    with pytest.raises(ModelError, match="only at its end"):
        next(OODModel.fit(cold[:9], model.descriptor, rule="trajectory").stream(frames))


@pytest.mark.parametrize("per_element", [False, True])
def test_round_trip(cold, hot, soap, tmp_path, per_element: bool):
    model = OODModel.fit(cold, soap, components=3, per_element=per_element)
    path = model.save(tmp_path / "model.safetensors")
    again = OODModel.load(path)
    assert path.stat().st_size < 1_000_000
    assert again.per_element == per_element
    assert again.facts == model.facts
    a, b = model.score(hot), again.score(hot)
    for name in ("projections", "q", "t2", "combined", "nearest", "flags"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    with pytest.raises(ModelError, match=r"model.safetensors.*expected H C O; found H C N O"):
        OODModel.load(path, Soap([1, 6, 7, 8], **SMALL))
    with pytest.raises(ModelError, match="another kind of file"):
        model.planes[1 if per_element else 0].load(path)


def test_per_element_planes_are_those_of_the_element_alone(cold: FrameSet, soap: Soap):
    model = OODModel.fit(cold, soap, components=2, per_element=True)
    assert set(model.planes) == {1, 6, 8}
    X = soap(cold)[cold.numbers == 6]
    alone, scores = fit_pca([X], 2), model.score(cold)
    np.testing.assert_allclose(model.planes[6].variance, alone.variance, rtol=1e-3)
    np.testing.assert_allclose(scores.q[cold.numbers == 6], alone.residual(X), rtol=1e-2, atol=1e-4)
    with pytest.raises(ModelError, match="one PCA per element"):
        _ = model.pca


def test_a_fraction_of_the_variance(cold: FrameSet, soap: Soap):
    model = OODModel.fit(cold, soap, components=0.95)
    assert model.pca.explained.sum() >= 0.95
    assert model.pca.explained[:-1].sum() < 0.95


def test_a_fit_repeats(model: OODModel, cold: FrameSet, soap: Soap):
    again = OODModel.fit(cold, soap)
    np.testing.assert_array_equal(model.pca.components, again.pca.components)
    np.testing.assert_array_equal(model.limits["nearest"].limit, again.limits["nearest"].limit)


def test_duplicates_are_counted_and_never_judge_themselves(cold: FrameSet, soap: Soap):
    twice = cold.concat(cold[:10].with_table(trajectory=9))
    model = OODModel.fit(twice, soap)
    assert model.facts["duplicates"] == 10
    assert "share structures" in model.facts["runs_detail"]
    assert (model.limits["nearest"].mean > 0.01).all()


def test_an_element_that_the_fit_on_set_lacks_is_outside(cold: FrameSet):
    water = samples.load("water_liquid")[:3]
    model = OODModel.fit(water, Soap.of(water, cold, **SMALL))
    scores = model.score(cold[:1])
    carbon = scores.numbers == 6
    assert np.isinf(scores.nearest[carbon]).all()
    assert np.isinf(scores.ratio[carbon]).all()
    assert np.isinf(scores.combined[carbon]).all()
    assert scores.above("q")[carbon].all()
    assert np.isfinite(scores.q).all()
    alone = OODModel.fit(water, Soap.of(water, cold, **SMALL), per_element=True).score(cold[:1])
    assert np.isinf(alone.q[carbon]).all()


def test_frames_of_a_single_atom_are_named(cold: FrameSet):
    atom = FrameSet.from_arrays([1], np.zeros((1, 1, 3)), source="atoms.xyz")
    with pytest.raises(DataError, match=r"atoms.xyz: frame 120.*frames\[frames.n_atoms > 1\]"):
        OODModel.fit(cold.concat(atom))


def test_unknown_elements_and_bad_requests_are_refused(model: OODModel, cold: FrameSet):
    nitrogen = FrameSet.from_arrays([7, 7], np.array([[[0.0, 0, 0], [0, 0, 1.1]]]))
    with pytest.raises(DataError, match=r"element N unknown.*only H C O"):
        model.score(nitrogen)
    with pytest.raises(DataError, match="no frames"):
        OODModel.fit(cold[:0])
    with pytest.raises(DataError, match="leave_one_run_out"):
        OODModel.fit(cold, rule="leave_one_out")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such measure"):
        model.score(cold[:1]).per_frame("qq")


def test_missing_periodic_flags_are_noticed():
    water = samples.load("water_liquid")[:2]
    model = OODModel.fit(water, Soap.of(water, **SMALL))
    bare = FrameSet.from_arrays(water.numbers[:96], water.positions[:96], 96, cell=water.cell[:1])
    with pytest.raises(DataError, match=r"frame 0: pbc.*periodic flags"):
        model.score(bare)
    model.score(FrameSet.from_arrays(water.numbers[:96], water.positions[:96], 96))


def test_the_published_rule_needs_no_runs(cold: FrameSet, soap: Soap, tmp_path):
    model = OODModel.fit(cold[:1], soap, components=2, rule="trajectory")
    scores = OODModel.load(model.save(tmp_path / "m.safetensors")).score(cold[:30])
    assert scores.limits["q"].rule == "trajectory"
    with pytest.raises(ModelError, match="without limits"):
        model.score(cold, sigma_rule="leave_one_run_out")
    with pytest.raises(ModelError, match="not known while it runs"):
        LiveScorer(model)


def test_live_scores_are_those_of_the_set(model: OODModel, hot: FrameSet):
    scorer, whole = LiveScorer(model), model.score(hot)
    for i in (0, 7, 3):
        frame = hot.frame(i)
        live = scorer.score(frame["numbers"], frame["positions"], frame["cell"], frame["pbc"])
        rows = slice(hot.offsets[i], hot.offsets[i + 1])
        np.testing.assert_allclose(live.q, whole.q[rows], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(live.t2, whole.t2[rows], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(live.ratio, whole.ratio[rows], rtol=1e-4, atol=1e-6)
        rows_of = model.descriptor(hot[i : i + 1])
        np.testing.assert_array_equal(scorer.score_rows(frame["numbers"], rows_of).q, live.q)
        np.testing.assert_array_equal(rows_of, model.descriptor(hot[i : i + 1]))


def test_live_structures_are_checked(model: OODModel):
    scorer, positions = LiveScorer(model), np.array([[0.0, 0, 0], [0, 0, 1.1]])
    with pytest.raises(DataError, match=r"element N unknown.*only H C O"):
        scorer.score(np.array([7, 1]), positions, np.eye(3), np.zeros(3, bool))
    with pytest.raises(DataError, match="no cell vector"):
        scorer.score(np.array([8, 1]), positions, np.zeros((3, 3)), np.ones(3, bool))
    with pytest.raises(DataError, match="not finite"):
        scorer.score(np.array([8, 1]), positions * np.nan, np.eye(3), np.zeros(3, bool))


def test_frames_that_are_all_the_same_structure_set_no_limits(cold: FrameSet, soap: Soap):
    same = FrameSet.concat([cold[:1]] * 4)
    with pytest.raises(DataError, match=r"all frames are the same structure.*found 4 frames"):
        OODModel.fit(same, soap)
    model = OODModel.fit(same, soap, components=100, rule="trajectory")
    assert np.isfinite(model.score(same).q).all()


@pytest.mark.parametrize("components", [0, -1, 2.5, float("nan"), float("inf"), "5", None])
def test_what_is_no_number_of_components_is_refused(cold: FrameSet, soap: Soap, components):
    with pytest.raises(DataError, match="no number of components"):
        OODModel.fit(cold[:3], soap, components)


def test_an_element_of_one_atom_has_no_axes_of_its_own(cold: FrameSet):
    numbers = np.array(cold.numbers)
    numbers[0] = 17
    frames = FrameSet.from_arrays(numbers, cold.positions, np.diff(cold.offsets), cell=cold.cell, pbc=cold.pbc)
    with pytest.raises(DataError, match=r"element Cl: a PCA needs at least two atoms; found 1\. Use one PCA"):
        OODModel.fit(frames, Soap.of(frames, n_max=2, l_max=1), per_element=True)


def test_a_ratio_to_no_limit_is_infinite_and_nothing_over_nothing_is_nothing():
    from mlipkit.analysis.scores import ratio_to

    found = ratio_to(np.array([0.0, 1.0, 1.0, 3.0]), np.array([0.0, 0.0, np.nan, 2.0]))
    assert found.tolist() == [0.0, np.inf, np.inf, 1.5]


def test_a_stream_of_no_frames_at_a_time_is_refused(model: OODModel, cold: FrameSet):
    with pytest.raises(DataError, match="n_frames"):
        next(model.stream(cold, 0))


def test_live_structures_need_an_element_a_position_and_periodic_flags(model: OODModel, cold: FrameSet):
    numbers, positions = np.array(cold.numbers[: cold.offsets[1]]), cold.positions[: cold.offsets[1]]
    scorer = LiveScorer(model)
    with pytest.raises(DataError, match="element 150 unknown"):
        scorer.score(np.full(len(numbers), 150), positions, cold.cell[0], cold.pbc[0])
    with pytest.raises(DataError, match="one position per atom"):
        scorer.score(numbers, positions[:-1], cold.cell[0], cold.pbc[0])
    water = samples.load("water_liquid")[:4]
    scorer = LiveScorer(OODModel.fit(water, Soap.of(water, n_max=2, l_max=1)))
    first = slice(0, int(water.offsets[1]))
    with pytest.raises(DataError, match="pbc: a cell without periodic flags"):
        scorer.score(water.numbers[first], water.positions[first], water.cell[0], [False] * 3)


def test_an_element_that_the_other_runs_hold_too_little_of_is_named(cold: FrameSet, soap: Soap):
    few = OODModel.fit(cold[:4], soap, 5, per_element=True)
    assert "; O judged by the whole fit" in few.limits["q"].detail
    assert "judged" not in OODModel.fit(cold[:12], soap, 5, per_element=True).limits["q"].detail
