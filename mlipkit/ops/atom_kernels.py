"""Loops over the features of atoms for `mlipkit.ops.gating`, compiled by Numba when first imported.

One short loop per row that is written: vector units serve only where it can be checked that rows do not overlap.
Rows of a = (vv, sv, ss) [N,3,D]; of uv [N,3,2,D] = U v and V v per axis; a leading `d` marks slopes, a leading `h` the
partner of a slope in the second derivative.
"""

from __future__ import annotations

import numpy as np

from mlipkit.ops.kernels import at, compiled


@compiled
def scale(start, stop, like, width, n, v, c, out):
    """out_k = v_k c"""
    v_, c_, out_ = at(v, (n, 3, width), like), at(c, (n, width), like), at(out, (n, 3, width), like)
    for i in range(start, stop):
        for k in range(3):
            for f in range(width):
                out_[i, k, f] = v_[i, k, f] * c_[i, f]


@compiled
def scale_slopes(start, stop, like, width, n, g, v, c, dv, dc):
    """dv_k = g_k c,  dc = Σ g_k v_k"""
    g_, v_, c_ = at(g, (n, 3, width), like), at(v, (n, 3, width), like), at(c, (n, width), like)
    dv_, dc_ = at(dv, (n, 3, width), like), at(dc, (n, width), like)
    for i in range(start, stop):
        for k in range(3):
            for f in range(width):
                dv_[i, k, f] = g_[i, k, f] * c_[i, f]
        for f in range(width):
            dc_[i, f] = g_[i, 0, f] * v_[i, 0, f] + g_[i, 1, f] * v_[i, 1, f] + g_[i, 2, f] * v_[i, 2, f]


@compiled
def scale_second(start, stop, like, width, n, g, v, c, hv, hc, dg, dv, dc):
    """dg_k = hv_k c + v_k hc,  dv_k = g_k hc,  dc = Σ g_k hv_k"""
    g_, v_, c_ = at(g, (n, 3, width), like), at(v, (n, 3, width), like), at(c, (n, width), like)
    hv_, hc_ = at(hv, (n, 3, width), like), at(hc, (n, width), like)
    dg_, dv_, dc_ = at(dg, (n, 3, width), like), at(dv, (n, 3, width), like), at(dc, (n, width), like)
    for i in range(start, stop):
        for k in range(3):
            for f in range(width):
                dg_[i, k, f] = hv_[i, k, f] * c_[i, f] + v_[i, k, f] * hc_[i, f]
            for f in range(width):
                dv_[i, k, f] = g_[i, k, f] * hc_[i, f]
        for f in range(width):
            dc_[i, f] = g_[i, 0, f] * hv_[i, 0, f] + g_[i, 1, f] * hv_[i, 1, f] + g_[i, 2, f] * hv_[i, 2, f]


@compiled
def norms(start, stop, like, width, n, epsilon, uv, s, x):
    """x = (√(Σ V_k² + ε), s)"""
    uv_, s_, x_ = at(uv, (n, 3, 2, width), like), at(s, (n, width), like), at(x, (n, 2, width), like)
    for i in range(start, stop):
        for f in range(width):
            a, b, c = uv_[i, 0, 1, f], uv_[i, 1, 1, f], uv_[i, 2, 1, f]
            x_[i, 0, f] = np.sqrt(a * a + b * b + c * c + (like + epsilon))
        for f in range(width):
            x_[i, 1, f] = s_[i, f]


@compiled
def norms_slopes(start, stop, like, width, n, g, uv, x, duv, ds):
    """dV_k = g V_k / ν,  dU = 0,  ds = g of s"""
    g_, uv_, x_ = at(g, (n, 2, width), like), at(uv, (n, 3, 2, width), like), at(x, (n, 2, width), like)
    duv_, ds_ = at(duv, (n, 3, 2, width), like), at(ds, (n, width), like)
    for i in range(start, stop):
        for k in range(3):
            for f in range(width):
                duv_[i, k, 0, f] = 0
            for f in range(width):
                duv_[i, k, 1, f] = g_[i, 0, f] * uv_[i, k, 1, f] / x_[i, 0, f]
        for f in range(width):
            ds_[i, f] = g_[i, 1, f]


@compiled
def norms_second(start, stop, like, width, n, g, uv, x, huv, hs, dg, duv):
    """dg = (Σ h_k V_k / ν, hs),  dV_k = g (h_k / ν - V_k (Σ h V) / ν³),  dU = 0"""
    g_, uv_, x_ = at(g, (n, 2, width), like), at(uv, (n, 3, 2, width), like), at(x, (n, 2, width), like)
    huv_, hs_ = at(huv, (n, 3, 2, width), like), at(hs, (n, width), like)
    dg_, duv_ = at(dg, (n, 2, width), like), at(duv, (n, 3, 2, width), like)
    for i in range(start, stop):
        for f in range(width):
            dg_[i, 0, f] = (
                huv_[i, 0, 1, f] * uv_[i, 0, 1, f]
                + huv_[i, 1, 1, f] * uv_[i, 1, 1, f]
                + huv_[i, 2, 1, f] * uv_[i, 2, 1, f]
            ) / x_[i, 0, f]
        for k in range(3):
            for f in range(width):
                duv_[i, k, 0, f] = 0
            for f in range(width):
                slope = huv_[i, k, 1, f] - uv_[i, k, 1, f] * dg_[i, 0, f] / x_[i, 0, f]
                duv_[i, k, 1, f] = g_[i, 0, f] * slope / x_[i, 0, f]
        for f in range(width):
            dg_[i, 1, f] = hs_[i, f]


@compiled
def product(uv_, i, f):
    """Σ U_k V_k"""
    total = uv_[i, 0, 0, f] * uv_[i, 0, 1, f]
    for k in range(1, 3):
        total += uv_[i, k, 0, f] * uv_[i, k, 1, f]
    return total


@compiled
def gate(start, stop, like, width, n, s, v, uv, a, s_out, v_out):
    """s + a_ss + a_sv Σ U_k V_k,  v_k + a_vv U_k"""
    s_, v_, a_ = at(s, (n, width), like), at(v, (n, 3, width), like), at(a, (n, 3, width), like)
    uv_ = at(uv, (n, 3, 2, width), like)
    so_, vo_ = at(s_out, (n, width), like), at(v_out, (n, 3, width), like)
    for i in range(start, stop):
        for f in range(width):
            so_[i, f] = product(uv_, i, f)
        for f in range(width):
            so_[i, f] = s_[i, f] + a_[i, 2, f] + a_[i, 1, f] * so_[i, f]
        for k in range(3):
            for f in range(width):
                vo_[i, k, f] = v_[i, k, f] + a_[i, 0, f] * uv_[i, k, 0, f]


@compiled
def gate_slopes(start, stop, like, width, n, gs, gv, uv, a, duv, da):
    """da = (Σ gv_k U_k, gs Σ U_k V_k, gs),  dU_k = gs a_sv V_k + gv_k a_vv,  dV_k = gs a_sv U_k"""
    gs_, gv_, a_ = at(gs, (n, width), like), at(gv, (n, 3, width), like), at(a, (n, 3, width), like)
    uv_, duv_, da_ = at(uv, (n, 3, 2, width), like), at(duv, (n, 3, 2, width), like), at(da, (n, 3, width), like)
    for i in range(start, stop):
        for f in range(width):
            da_[i, 0, f] = (
                gv_[i, 0, f] * uv_[i, 0, 0, f] + gv_[i, 1, f] * uv_[i, 1, 0, f] + gv_[i, 2, f] * uv_[i, 2, 0, f]
            )
        for f in range(width):
            da_[i, 1, f] = gs_[i, f] * product(uv_, i, f)
        for f in range(width):
            da_[i, 2, f] = gs_[i, f]
        for k in range(3):
            for f in range(width):
                duv_[i, k, 0, f] = gs_[i, f] * a_[i, 1, f] * uv_[i, k, 1, f] + gv_[i, k, f] * a_[i, 0, f]
            for f in range(width):
                duv_[i, k, 1, f] = gs_[i, f] * a_[i, 1, f] * uv_[i, k, 0, f]


@compiled
def gate_second(start, stop, like, width, n, gs, gv, uv, a, huv, ha, dgs, dgv, duv, da):
    """With q = Σ hU_k V_k + hV_k U_k: dgs = ha_ss + ha_sv Σ U_k V_k + a_sv q,  dgv_k = ha_vv U_k + hU_k a_vv,
    da = (Σ hU_k gv_k, gs q, 0),  dU_k = gs ha_sv V_k + ha_vv gv_k + hV_k gs a_sv,  dV_k = gs (ha_sv U_k + hU_k a_sv)"""
    gs_, gv_, a_ = at(gs, (n, width), like), at(gv, (n, 3, width), like), at(a, (n, 3, width), like)
    uv_, huv_ = at(uv, (n, 3, 2, width), like), at(huv, (n, 3, 2, width), like)
    ha_, dgs_, dgv_ = at(ha, (n, 3, width), like), at(dgs, (n, width), like), at(dgv, (n, 3, width), like)
    duv_, da_ = at(duv, (n, 3, 2, width), like), at(da, (n, 3, width), like)
    for i in range(start, stop):
        for f in range(width):
            dgs_[i, f] = product(uv_, i, f)
        for f in range(width):
            dgs_[i, f] = ha_[i, 2, f] + ha_[i, 1, f] * dgs_[i, f]
        for f in range(width):
            da_[i, 1, f] = huv_[i, 0, 0, f] * uv_[i, 0, 1, f] + huv_[i, 0, 1, f] * uv_[i, 0, 0, f]
        for k in range(1, 3):
            for f in range(width):
                da_[i, 1, f] += huv_[i, k, 0, f] * uv_[i, k, 1, f] + huv_[i, k, 1, f] * uv_[i, k, 0, f]
        for f in range(width):
            dgs_[i, f] += a_[i, 1, f] * da_[i, 1, f]
        for f in range(width):
            da_[i, 1, f] *= gs_[i, f]
        for f in range(width):
            da_[i, 0, f] = (
                huv_[i, 0, 0, f] * gv_[i, 0, f] + huv_[i, 1, 0, f] * gv_[i, 1, f] + huv_[i, 2, 0, f] * gv_[i, 2, f]
            )
        for f in range(width):
            da_[i, 2, f] = 0
        for k in range(3):
            for f in range(width):
                dgv_[i, k, f] = ha_[i, 0, f] * uv_[i, k, 0, f] + huv_[i, k, 0, f] * a_[i, 0, f]
            for f in range(width):
                duv_[i, k, 0, f] = (
                    gs_[i, f] * (ha_[i, 1, f] * uv_[i, k, 1, f] + huv_[i, k, 1, f] * a_[i, 1, f])
                    + ha_[i, 0, f] * gv_[i, k, f]
                )
            for f in range(width):
                duv_[i, k, 1, f] = gs_[i, f] * (ha_[i, 1, f] * uv_[i, k, 0, f] + huv_[i, k, 0, f] * a_[i, 1, f])


@compiled
def silu_second(start, stop, like, sigma, x, g, h, dg, dx):
    """dg = h f',  dx = g h f'' of f = x σ(x), σ given"""
    o_, x_, g_ = at(sigma, (stop,), like), at(x, (stop,), like), at(g, (stop,), like)
    h_, dg_, dx_ = at(h, (stop,), like), at(dg, (stop,), like), at(dx, (stop,), like)
    for f in range(start, stop):
        dg_[f] = h_[f] * o_[f] * (1 + x_[f] * (1 - o_[f]))
    for f in range(start, stop):
        dx_[f] = g_[f] * h_[f] * o_[f] * (1 - o_[f]) * (2 + x_[f] * (1 - 2 * o_[f]))
