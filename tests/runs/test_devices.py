"""What can be known of a device without torch."""

from __future__ import annotations

import pytest

from mlipkit.errors import SpecError
from mlipkit.runs import devices
from mlipkit.runs.devices import check_device


@pytest.mark.parametrize(
    ("build", "count", "name", "reason"),
    [
        ("cpu", 1, "cuda", "built without CUDA"),
        ("cuda", 0, "cuda", "no such device on this machine; found cuda"),
        ("cuda", 1, "cuda:1", "expected one of 1 CUDA devices; found cuda:1"),
        ("cuda", 1, "cuda", ""),
        ("cuda", 2, "cuda:1", ""),
        ("cuda", None, "cuda:7", ""),
        ("hip", 0, "cuda", ""),
        ("", 0, "cuda:3", "" ),
        ("cpu", 0, "cpu", ""),
        ("cpu", 0, "auto", ""),
    ],
)  # fmt: skip
def test_only_what_cannot_be_is_refused(
    build: str, count: int | None, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "torch_build", lambda: build)
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    if not reason:
        check_device(name)
        return
    with pytest.raises(SpecError, match=reason) as caught:
        check_device(name)
    assert "cpu" in str(caught.value), "the next step"


def test_the_machine_is_seen_as_torch_sees_it() -> None:
    import torch

    expected = "hip" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"
    assert devices.torch_build() == expected
    if expected == "cuda":
        assert devices.cuda_devices() in (torch.cuda.device_count(), None)
