"""The threshold of a simulation comes from the frames that were split off when the potential was trained."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlipkit.data import samples, write
from mlipkit.errors import SpecError
from mlipkit.runs import TrainSpec
from mlipkit.runs.building_adaptation import _validation_frames
from mlipkit.runs.building_train import split_frames
from mlipkit.runs.folder import RunFolder


def test_data_that_grew_since_give_the_validation_frames_of_then(tmp_path):
    frames, data = samples.load("ethanol_300K"), tmp_path / "data.extxyz"
    write(data, frames[:60])
    spec = TrainSpec(data=str(data), split={"by": "random", "validation": 0.2, "test": 0.2})  # type: ignore[arg-type]
    files = RunFolder(tmp_path / "runs" / "one")
    files.path.mkdir(parents=True)
    files.spec.write_text(spec.to_yaml())
    parts = split_frames(spec, tmp_path)
    (files.path / "split.json").write_text(json.dumps(parts.to_json()))
    write(data, frames[:90])
    assert set(split_frames(spec, tmp_path).validation.uids.tolist()) != set(parts.validation.uids.tolist())
    found = _validation_frames(str(files.path), tmp_path)
    assert np.array_equal(found.uids, parts.validation.uids)
    assert np.array_equal(found.positions, parts.validation.positions)
    write(data, frames[:20])
    with pytest.raises(SpecError, match="validation frames, which would give a threshold, cannot be read"):
        _validation_frames(str(files.path), tmp_path)
