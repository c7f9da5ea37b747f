"""Fourier features of EGNN: their derivatives are those of sine and cosine, three times over."""

from __future__ import annotations

import torch

from mlipkit.models.egnn import _Fourier


def plain(d: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    phase = d.unsqueeze(-1) * b
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def test_values_and_derivatives():
    torch.manual_seed(0)
    d = (torch.rand(5, dtype=torch.float64) + 0.5).requires_grad_()
    b, weights = torch.randn(7, dtype=torch.float64), torch.randn(14, dtype=torch.float64)

    def slope(features, x: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((features(x, b).square() * weights).sum(), x, create_graph=True)[0]

    assert torch.equal(_Fourier.apply(d, b), plain(d, b))
    torch.testing.assert_close(slope(_Fourier.apply, d), slope(plain, d), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: _Fourier.apply(x, b), (d,))
    assert torch.autograd.gradgradcheck(lambda x: _Fourier.apply(x, b), (d,))
    assert torch.autograd.gradgradcheck(lambda x: slope(_Fourier.apply, x), (d,))
