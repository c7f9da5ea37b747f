"""Loops of PaiNN's layers for energies and forces alone (`mlipkit.models.painn_slopes`), compiled when first imported.

Rows of c = (carry where there are vectors, along, scalar) [N,R,D], what the MLP of the message gives; of filters w
[E,R,D] likewise, and of their slopes wd in the distance; of a = (vv, sv, ss) [N,3,D] or (sv, ss) [N,2,D] and
uv = (U v, V v) [N,3,2,D] as in `mlipkit.ops.atom_kernels`. `g` marks slopes of the energy. Ranges, addresses, `like`,
`both` and the one loop per written row: see `mlipkit.ops.kernels`.
"""

from __future__ import annotations

import math

import numpy as np

from mlipkit.ops.kernels import at, compiled

RAY = 5
"""Numbers per edge: unit vector, 1/d, and 1 (0 for edges so short that their length is taken as a constant)."""


@compiled
def radial(start, stop, like, n, k, cutoff, shortest, r, ray, basis, slope):
    """(sin(jπd/rc)/d fc, fc) and its slope in d, [E,K+1] each, from r [E,3]: `bessel`, `cosine_cutoff` and `polar`.

    In float64 throughout: sine and cosine of jx follow from those of x by turning, one rounding error per step.
    """
    r_, ray_ = at(r, (n, 3), like), at(ray, (n, RAY), like)
    basis_, slope_ = at(basis, (n, k + 1), like), at(slope, (n, k + 1), like)
    step = math.pi / cutoff
    for p in range(start, stop):
        x, y, z = np.float64(r_[p, 0]), np.float64(r_[p, 1]), np.float64(r_[p, 2])
        square, free = x * x + y * y + z * z, 1.0
        if square < shortest * shortest:
            square, free = shortest * shortest, 0.0
        d = np.sqrt(square)
        inverse = 1 / d
        ray_[p, 0], ray_[p, 1], ray_[p, 2] = x * inverse, y * inverse, z * inverse
        ray_[p, 3], ray_[p, 4] = inverse, free
        c1, s1 = math.cos(step * d), math.sin(step * d)
        f, df = (0.5 * c1 + 0.5, -0.5 * step * s1) if d < cutoff else (0.0, 0.0)
        c, s = c1, s1
        for j in range(k):
            basis_[p, j] = s * inverse * f
            slope_[p, j] = ((j + 1) * step * c - s * inverse) * inverse * f + s * inverse * df
            c, s = c * c1 - s * s1, s * c1 + c * s1
        basis_[p, k], slope_[p, k] = f, df


@compiled
def exchange(start, stop, like, sender, receiver, both, rows, width, n, c, s, v, w, ray, moved, s1, v1):
    """moved_k = v_k c₁,  s1_i = s_i + Σ_j c₃ w₃,  v1_ik = v_ik + Σ_j u_k c₂ w₂ + moved_jk w₁; v zero without c₁"""
    c_, w_ = at(c, (n, rows, width), like, start), at(w, (n, rows, width), like, start)
    s_, v_, ray_ = at(s, (n, width), like, start), at(v, (n, 3, width), like, start), at(ray, (n, RAY), like)
    moved_ = at(moved, (n, 3, width), like, start)
    s1_, v1_ = at(s1, (n, width), like, start), at(v1, (n, 3, width), like, start)
    for i in range(n):
        for f in range(stop - start):
            s1_[i, f] = s_[i, f]
        for k in range(3):
            if rows == 3:
                for f in range(stop - start):
                    v1_[i, k, f] = v_[i, k, f]
                for f in range(stop - start):
                    moved_[i, k, f] = v_[i, k, f] * c_[i, 0, f]
            else:
                for f in range(stop - start):
                    v1_[i, k, f] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            for f in range(stop - start):
                s1_[i, f] += c_[j, rows - 1, f] * w_[p, rows - 1, f]
            for k in range(3):
                u = sign * ray_[p, k]
                if rows == 3:
                    for f in range(stop - start):
                        v1_[i, k, f] += u * c_[j, 1, f] * w_[p, 1, f] + moved_[j, k, f] * w_[p, 0, f]
                else:
                    for f in range(stop - start):
                        v1_[i, k, f] += u * c_[j, 0, f] * w_[p, 0, f]


@compiled
def exchange_atoms(start, stop, like, sender, receiver, both, width, n, gs, gv, c, v, w, ray, dc, dv):
    """dc₃ = Σ_i gs_i w₃,  dc₂ = Σ_i (u·gv_i) w₂,  with h_k = Σ_i gv_ik w₁: dc₁ = Σ h_k v_k,  dv_k = gv_k + h_k c₁"""
    gs_, gv_ = at(gs, (n, width), like, start), at(gv, (n, 3, width), like, start)
    c_, v_ = at(c, (n, 3, width), like, start), at(v, (n, 3, width), like, start)
    w_, ray_ = at(w, (n, 3, width), like, start), at(ray, (n, RAY), like)
    dc_, dv_ = at(dc, (n, 3, width), like, start), at(dv, (n, 3, width), like, start)
    for j in range(n):
        for k in range(3):
            for f in range(stop - start):
                dc_[j, k, f] = 0
            for f in range(stop - start):
                dv_[j, k, f] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            u0, u1, u2 = sign * ray_[p, 0], sign * ray_[p, 1], sign * ray_[p, 2]
            for f in range(stop - start):
                dc_[j, 1, f] += (u0 * gv_[i, 0, f] + u1 * gv_[i, 1, f] + u2 * gv_[i, 2, f]) * w_[p, 1, f]
            for f in range(stop - start):
                dc_[j, 2, f] += gs_[i, f] * w_[p, 2, f]
            for k in range(3):
                for f in range(stop - start):
                    dv_[j, k, f] += gv_[i, k, f] * w_[p, 0, f]
    for j in range(n):
        for f in range(stop - start):
            dc_[j, 0, f] = dv_[j, 0, f] * v_[j, 0, f] + dv_[j, 1, f] * v_[j, 1, f] + dv_[j, 2, f] * v_[j, 2, f]
        for k in range(3):
            for f in range(stop - start):
                dv_[j, k, f] = gv_[j, k, f] + dv_[j, k, f] * c_[j, 0, f]


@compiled
def exchange_edges(start, stop, like, sender, receiver, both, rows, width, n, gs, gv, c, moved, w, wd, ray, dr):
    """dr [E,3] grows by the slopes of the sums of `exchange` in the edges, through u and, by wd, through d."""
    c_, moved_ = at(c, (n, rows, width), like), at(moved, (n, 3, width), like)
    w_, wd_ = at(w, (n, rows, width), like), at(wd, (n, rows, width), like)
    gs_, gv_ = at(gs, (n, width), like), at(gv, (n, 3, width), like)
    ray_, dr_ = at(ray, (n, RAY), like), at(dr, (n, 3), like)
    t, b = rows - 1, rows - 2
    for p in range(start, stop):
        j, i = sender[p], receiver[p]
        u0, u1, u2 = ray_[p, 0], ray_[p, 1], ray_[p, 2]
        d0, d1, d2, along = like, like, like, like
        if both:
            for f in range(width):
                e0 = gv_[i, 0, f] * c_[j, b, f] - gv_[j, 0, f] * c_[i, b, f]
                e1 = gv_[i, 1, f] * c_[j, b, f] - gv_[j, 1, f] * c_[i, b, f]
                e2 = gv_[i, 2, f] * c_[j, b, f] - gv_[j, 2, f] * c_[i, b, f]
                d0 += w_[p, b, f] * e0
                d1 += w_[p, b, f] * e1
                d2 += w_[p, b, f] * e2
                along += wd_[p, b, f] * (u0 * e0 + u1 * e1 + u2 * e2)
                along += wd_[p, t, f] * (gs_[i, f] * c_[j, t, f] + gs_[j, f] * c_[i, t, f])
            if rows == 3:
                for f in range(width):
                    e = gv_[i, 0, f] * moved_[j, 0, f] + gv_[i, 1, f] * moved_[j, 1, f] + gv_[i, 2, f] * moved_[j, 2, f]
                    e += (
                        gv_[j, 0, f] * moved_[i, 0, f] + gv_[j, 1, f] * moved_[i, 1, f] + gv_[j, 2, f] * moved_[i, 2, f]
                    )
                    along += wd_[p, 0, f] * e
        else:
            for f in range(width):
                e0, e1, e2 = gv_[i, 0, f] * c_[j, b, f], gv_[i, 1, f] * c_[j, b, f], gv_[i, 2, f] * c_[j, b, f]
                d0 += w_[p, b, f] * e0
                d1 += w_[p, b, f] * e1
                d2 += w_[p, b, f] * e2
                along += wd_[p, b, f] * (u0 * e0 + u1 * e1 + u2 * e2) + wd_[p, t, f] * gs_[i, f] * c_[j, t, f]
            if rows == 3:
                for f in range(width):
                    e = gv_[i, 0, f] * moved_[j, 0, f] + gv_[i, 1, f] * moved_[j, 1, f] + gv_[i, 2, f] * moved_[j, 2, f]
                    along += wd_[p, 0, f] * e
        # What turns the edge and what lengthens it.
        inverse = ray_[p, 3]
        along = ray_[p, 4] * (along - (d0 * u0 + d1 * u1 + d2 * u2) * inverse)
        dr_[p, 0] += d0 * inverse + along * u0
        dr_[p, 1] += d1 * inverse + along * u1
        dr_[p, 2] += d2 * inverse + along * u2


@compiled
def update_mix(start, stop, like, rows, width, n, gs, gv, uv, da):
    """Slopes of the gate in a: da_vv = Σ gv_k U_k (where asked for),  da_sv = gs Σ U_k V_k,  da_ss = gs"""
    gs_, gv_ = at(gs, (n, width), like), at(gv, (n, 3, width), like)
    uv_, da_ = at(uv, (n, 3, 2, width), like), at(da, (n, rows, width), like)
    for i in range(start, stop):
        if rows == 3:
            for f in range(width):
                da_[i, 0, f] = (
                    gv_[i, 0, f] * uv_[i, 0, 0, f] + gv_[i, 1, f] * uv_[i, 1, 0, f] + gv_[i, 2, f] * uv_[i, 2, 0, f]
                )
        for f in range(width):
            da_[i, rows - 2, f] = gs_[i, f] * (
                uv_[i, 0, 0, f] * uv_[i, 0, 1, f]
                + uv_[i, 1, 0, f] * uv_[i, 1, 1, f]
                + uv_[i, 2, 0, f] * uv_[i, 2, 1, f]
            )
        for f in range(width):
            da_[i, rows - 1, f] = gs_[i, f]


@compiled
def update_uv(start, stop, like, width, n, gs, gv, gx, uv, x, a, duv, ds):
    """dU_k = gs a_sv V_k + gv_k a_vv,  dV_k = gs a_sv U_k + gx_ν V_k / ν,  ds = gs + gx_s; x = (ν, s). gv 0: none."""
    gs_, gv_, gx_ = at(gs, (n, width), like), at(gv, (n, 3, width), like), at(gx, (n, 2, width), like)
    uv_, x_, a_ = at(uv, (n, 3, 2, width), like), at(x, (n, 2, width), like), at(a, (n, 3, width), like)
    duv_, ds_ = at(duv, (n, 3, 2, width), like), at(ds, (n, width), like)
    for i in range(start, stop):
        for k in range(3):
            if gv != 0:
                for f in range(width):
                    duv_[i, k, 0, f] = gs_[i, f] * a_[i, 1, f] * uv_[i, k, 1, f] + gv_[i, k, f] * a_[i, 0, f]
            else:
                for f in range(width):
                    duv_[i, k, 0, f] = gs_[i, f] * a_[i, 1, f] * uv_[i, k, 1, f]
        for f in range(width):
            ds_[i, f] = gx_[i, 0, f] / x_[i, 0, f]
        for k in range(3):
            for f in range(width):
                duv_[i, k, 1, f] = gs_[i, f] * a_[i, 1, f] * uv_[i, k, 0, f] + ds_[i, f] * uv_[i, k, 1, f]
        for f in range(width):
            ds_[i, f] = gs_[i, f] + gx_[i, 1, f]
