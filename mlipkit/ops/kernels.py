"""Loops of the fused versions, compiled by Numba when this module is first imported (`mlipkit.ops.native.kernels`).

Symbols as in `mlipkit.ops.message`: `w` [E,R,D] filters, `x` scalar features of the sender, `v` its vectors, `u` unit
vectors; `gs`, `gm` belong to the two sums of a receiver; a leading `h` marks the partner of an argument in the second
derivative. Addresses carry the name of the array that lies there; `like` is a zero of its type.

With `both`, each edge `j -> i` is met a second time as `i -> j`, with the opposite u. Sums over neighbours are split by
features (`start`, `stop`), so that edges are read in their order and each number is added up by one thread; slopes of
filters are split by edges.
"""

from __future__ import annotations

from numba import carray, njit, types  # type: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic

# Sums may be reordered for the vector units; NaN and infinity keep their meaning.
FAST = ("reassoc", "contract", "nsz", "arcp")
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": set(FAST)}


def compiled(function):
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder to keep the machine code in
        return njit(**_OPTIONS)(function)


@intrinsic
def _pointer(context, address, offset, like):
    kind = types.CPointer(like)

    def generate(context, builder, signature, arguments):
        return builder.gep(builder.inttoptr(arguments[0], context.get_value_type(kind)), [arguments[1]])

    return kind(address, types.intp, like), generate


@compiled
def at(address, shape, like, offset=0):
    """Array at an address, in the type of `like`, `offset` numbers further on."""
    return carray(_pointer(address, offset, like), shape)  # type: ignore[reportCallIssue]


@compiled
def check(n, sender, receiver):
    """Raise IndexError where an edge points to no atom: the loops look no more."""
    for p in range(len(sender)):
        if not (0 <= sender[p] < n and 0 <= receiver[p] < n):
            raise IndexError("an edge points to no atom")


# ---- scalars alone


@compiled
def scalar_sum(start, stop, like, sender, receiver, both, width, n, x, w, s):
    """s_i = Σ_j x_j w"""
    x_, w_ = at(x, (n, width), like, start), at(w, (n, width), like, start)
    s_ = at(s, (n, width), like, start)
    for i in range(n):
        for c in range(stop - start):
            s_[i, c] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i = sender[p], receiver[p]
            if end == 1:
                j, i = i, j
            for c in range(stop - start):
                s_[i, c] += x_[j, c] * w_[p, c]


@compiled
def scalar_second_sum(start, stop, like, sender, receiver, both, width, n, x, w, y, z, s):
    """s_i = Σ_j x_j w + y_j z"""
    x_, w_ = at(x, (n, width), like, start), at(w, (n, width), like, start)
    y_, z_ = at(y, (n, width), like, start), at(z, (n, width), like, start)
    s_ = at(s, (n, width), like, start)
    for i in range(n):
        for c in range(stop - start):
            s_[i, c] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i = sender[p], receiver[p]
            if end == 1:
                j, i = i, j
            for c in range(stop - start):
                s_[i, c] += x_[j, c] * w_[p, c] + y_[j, c] * z_[p, c]


@compiled
def scalar_edges(start, stop, like, sender, receiver, both, width, n, x, g, dw):
    """dw = g_i x_j"""
    x_, g_, dw_ = at(x, (n, width), like), at(g, (n, width), like), at(dw, (n, width), like)
    for p in range(start, stop):
        j, i = sender[p], receiver[p]
        if both:
            for c in range(width):
                dw_[p, c] = g_[i, c] * x_[j, c] + g_[j, c] * x_[i, c]
        else:
            for c in range(width):
                dw_[p, c] = g_[i, c] * x_[j, c]


# ---- scalars and vectors; x = (along, scalar) [N,2,D]; w = (carry where there is v, along, scalar) [E,R,D]


@compiled
def vector_sum(start, stop, like, sender, receiver, both, rows, width, n, x, v, w, u, s, m):
    """s_i = Σ x₂ w₃,  m_ik = Σ u_k x₁ w₂ + v_k w₁"""
    x_, v_ = at(x, (n, 2, width), like, start), at(v, (n, 3, width), like, start)
    w_, u_ = at(w, (n, rows, width), like, start), at(u, (n, 3), like)
    s_, m_ = at(s, (n, width), like, start), at(m, (n, 3, width), like, start)
    for i in range(n):
        for c in range(stop - start):
            s_[i, c] = 0
        for k in range(3):
            for c in range(stop - start):
                m_[i, k, c] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            for c in range(stop - start):
                s_[i, c] += x_[j, 1, c] * w_[p, rows - 1, c]
            for k in range(3):
                uk = sign * u_[p, k]
                if rows == 3:
                    for c in range(stop - start):
                        m_[i, k, c] += uk * x_[j, 0, c] * w_[p, 1, c] + v_[j, k, c] * w_[p, 0, c]
                else:
                    for c in range(stop - start):
                        m_[i, k, c] += uk * x_[j, 0, c] * w_[p, 0, c]


@compiled
def vector_spread(start, stop, like, sender, receiver, both, rows, width, n, gs, gm, w, u, dx, dv):
    """The same sums at the sender: dx₁_j = Σ (u·gm_i) w₂,  dx₂_j = Σ gs_i w₃,  dv_jk = Σ gm_ik w₁"""
    gs_, gm_ = at(gs, (n, width), like, start), at(gm, (n, 3, width), like, start)
    w_, u_ = at(w, (n, rows, width), like, start), at(u, (n, 3), like)
    dx_, dv_ = at(dx, (n, 2, width), like, start), at(dv, (n, 3, width), like, start)
    for j in range(n):
        for r in range(2):
            for c in range(stop - start):
                dx_[j, r, c] = 0
        if rows == 3:
            for k in range(3):
                for c in range(stop - start):
                    dv_[j, k, c] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            u0, u1, u2 = sign * u_[p, 0], sign * u_[p, 1], sign * u_[p, 2]
            for c in range(stop - start):
                dx_[j, 0, c] += (u0 * gm_[i, 0, c] + u1 * gm_[i, 1, c] + u2 * gm_[i, 2, c]) * w_[p, rows - 2, c]
            for c in range(stop - start):
                dx_[j, 1, c] += gs_[i, c] * w_[p, rows - 1, c]
            if rows == 3:
                for k in range(3):
                    for c in range(stop - start):
                        dv_[j, k, c] += gm_[i, k, c] * w_[p, 0, c]


@compiled
def vector_edges(start, stop, like, sender, receiver, both, rows, width, n, x, v, w, u, gs, gm, dw, du):
    """dw₁ = Σ_k gm_ik v_jk,  dw₂ = (u·gm_i) x₁_j,  dw₃ = gs_i x₂_j,  du_k = Σ_c w₂ gm_ik x₁_j

    Address 0: not wanted.
    """
    x_, v_, w_ = at(x, (n, 2, width), like), at(v, (n, 3, width), like), at(w, (n, rows, width), like)
    gs_, gm_, u_ = at(gs, (n, width), like), at(gm, (n, 3, width), like), at(u, (n, 3), like)
    dw_, du_ = at(dw, (n, rows, width), like), at(du, (n, 3), like)
    t, b = rows - 1, rows - 2
    for p in range(start, stop):
        j, i = sender[p], receiver[p]
        u0, u1, u2 = u_[p, 0], u_[p, 1], u_[p, 2]
        if dw != 0:
            if rows == 3:
                for c in range(width):
                    dw_[p, 0, c] = gm_[i, 0, c] * v_[j, 0, c] + gm_[i, 1, c] * v_[j, 1, c] + gm_[i, 2, c] * v_[j, 2, c]
                if both:
                    for c in range(width):
                        dw_[p, 0, c] += (
                            gm_[j, 0, c] * v_[i, 0, c] + gm_[j, 1, c] * v_[i, 1, c] + gm_[j, 2, c] * v_[i, 2, c]
                        )
            if both:
                for c in range(width):
                    dw_[p, t, c] = gs_[i, c] * x_[j, 1, c] + gs_[j, c] * x_[i, 1, c]
                for c in range(width):
                    a = (u0 * gm_[i, 0, c] + u1 * gm_[i, 1, c] + u2 * gm_[i, 2, c]) * x_[j, 0, c]
                    dw_[p, b, c] = a - (u0 * gm_[j, 0, c] + u1 * gm_[j, 1, c] + u2 * gm_[j, 2, c]) * x_[i, 0, c]
            else:
                for c in range(width):
                    dw_[p, t, c] = gs_[i, c] * x_[j, 1, c]
                for c in range(width):
                    dw_[p, b, c] = (u0 * gm_[i, 0, c] + u1 * gm_[i, 1, c] + u2 * gm_[i, 2, c]) * x_[j, 0, c]
        if du != 0:
            d0, d1, d2 = like, like, like
            if both:
                for c in range(width):
                    a, r = w_[p, b, c] * x_[j, 0, c], w_[p, b, c] * x_[i, 0, c]
                    d0 += a * gm_[i, 0, c] - r * gm_[j, 0, c]
                    d1 += a * gm_[i, 1, c] - r * gm_[j, 1, c]
                    d2 += a * gm_[i, 2, c] - r * gm_[j, 2, c]
            else:
                for c in range(width):
                    a = w_[p, b, c] * x_[j, 0, c]
                    d0 += a * gm_[i, 0, c]
                    d1 += a * gm_[i, 1, c]
                    d2 += a * gm_[i, 2, c]
            du_[p, 0], du_[p, 1], du_[p, 2] = d0, d1, d2


# ---- second derivative of scalars and vectors: what `_Slopes.backward` in `mlipkit.ops.fused` states


@compiled
def vector_second_sum(start, stop, like, sender, receiver, both, rows, width, n, x, v, w, u, hx, hv, hw, hu, s, m):
    """`vector_sum` of (hx, hv, w, u) + (x, v, hw, u) + (x₁, w₂, hu)."""
    x_, v_ = at(x, (n, 2, width), like, start), at(v, (n, 3, width), like, start)
    w_, u_ = at(w, (n, rows, width), like, start), at(u, (n, 3), like)
    hx_, hv_ = at(hx, (n, 2, width), like, start), at(hv, (n, 3, width), like, start)
    hw_, hu_ = at(hw, (n, rows, width), like, start), at(hu, (n, 3), like)
    s_, m_ = at(s, (n, width), like, start), at(m, (n, 3, width), like, start)
    t, b = rows - 1, rows - 2
    for i in range(n):
        for c in range(stop - start):
            s_[i, c] = 0
        for k in range(3):
            for c in range(stop - start):
                m_[i, k, c] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            for c in range(stop - start):
                s_[i, c] += hx_[j, 1, c] * w_[p, t, c] + x_[j, 1, c] * hw_[p, t, c]
            for k in range(3):
                a, ha = sign * u_[p, k], sign * hu_[p, k]
                for c in range(stop - start):
                    m_[i, k, c] += (a * hx_[j, 0, c] + ha * x_[j, 0, c]) * w_[p, b, c] + a * x_[j, 0, c] * hw_[p, b, c]
                if rows == 3:
                    for c in range(stop - start):
                        m_[i, k, c] += hv_[j, k, c] * w_[p, 0, c] + v_[j, k, c] * hw_[p, 0, c]


@compiled
def vector_second_spread(start, stop, like, sender, receiver, both, rows, width, n, gs, gm, w, u, hw, hu, dx, dv):
    """`vector_spread` of (hw, u) + (w₂, hu)."""
    gs_, gm_ = at(gs, (n, width), like, start), at(gm, (n, 3, width), like, start)
    w_, u_ = at(w, (n, rows, width), like, start), at(u, (n, 3), like)
    hw_, hu_ = at(hw, (n, rows, width), like, start), at(hu, (n, 3), like)
    dx_, dv_ = at(dx, (n, 2, width), like, start), at(dv, (n, 3, width), like, start)
    t, b = rows - 1, rows - 2
    for j in range(n):
        for r in range(2):
            for c in range(stop - start):
                dx_[j, r, c] = 0
        if rows == 3:
            for k in range(3):
                for c in range(stop - start):
                    dv_[j, k, c] = 0
    for p in range(len(sender)):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            u0, u1, u2 = sign * u_[p, 0], sign * u_[p, 1], sign * u_[p, 2]
            h0, h1, h2 = sign * hu_[p, 0], sign * hu_[p, 1], sign * hu_[p, 2]
            for c in range(stop - start):
                g0, g1, g2 = gm_[i, 0, c], gm_[i, 1, c], gm_[i, 2, c]
                h = h0 * g0 + h1 * g1 + h2 * g2
                dx_[j, 0, c] += (u0 * g0 + u1 * g1 + u2 * g2) * hw_[p, b, c] + h * w_[p, b, c]
            for c in range(stop - start):
                dx_[j, 1, c] += gs_[i, c] * hw_[p, t, c]
            if rows == 3:
                for k in range(3):
                    for c in range(stop - start):
                        dv_[j, k, c] += gm_[i, k, c] * hw_[p, 0, c]


@compiled
def vector_second_edges(
    start, stop, like, sender, receiver, both, rows, width, n, x, w, u, hx, hv, hw, hu, gs, gm, dw, du
):
    """`vector_edges` of (hx, hv, w, u) + (x₁, w₂, hu), and the latter's du of (x₁, hw₂). Address 0: not wanted."""
    x_, w_, u_ = at(x, (n, 2, width), like), at(w, (n, rows, width), like), at(u, (n, 3), like)
    hx_, hv_, hu_ = at(hx, (n, 2, width), like), at(hv, (n, 3, width), like), at(hu, (n, 3), like)
    hw_, gs_, gm_ = at(hw, (n, rows, width), like), at(gs, (n, width), like), at(gm, (n, 3, width), like)
    dw_, du_ = at(dw, (n, rows, width), like), at(du, (n, 3), like)
    t, b = rows - 1, rows - 2
    for p in range(start, stop):
        for end in range(2 if both else 1):
            j, i, sign = sender[p], receiver[p], like + 1
            if end == 1:
                j, i, sign = i, j, -sign
            if dw != 0:
                if end == 0:
                    for r in range(rows):
                        for c in range(width):
                            dw_[p, r, c] = 0
                u0, u1, u2 = sign * u_[p, 0], sign * u_[p, 1], sign * u_[p, 2]
                h0, h1, h2 = sign * hu_[p, 0], sign * hu_[p, 1], sign * hu_[p, 2]
                for c in range(width):
                    dw_[p, t, c] += gs_[i, c] * hx_[j, 1, c]
                for c in range(width):
                    g0, g1, g2 = gm_[i, 0, c], gm_[i, 1, c], gm_[i, 2, c]
                    h = h0 * g0 + h1 * g1 + h2 * g2
                    dw_[p, b, c] += (u0 * g0 + u1 * g1 + u2 * g2) * hx_[j, 0, c] + h * x_[j, 0, c]
                if rows == 3:
                    for c in range(width):
                        dw_[p, 0, c] += (
                            gm_[i, 0, c] * hv_[j, 0, c] + gm_[i, 1, c] * hv_[j, 1, c] + gm_[i, 2, c] * hv_[j, 2, c]
                        )
            if du != 0:
                d0, d1, d2 = like, like, like
                for c in range(width):
                    a = w_[p, b, c] * hx_[j, 0, c] + hw_[p, b, c] * x_[j, 0, c]
                    d0 += a * gm_[i, 0, c]
                    d1 += a * gm_[i, 1, c]
                    d2 += a * gm_[i, 2, c]
                if end == 0:
                    du_[p, 0], du_[p, 1], du_[p, 2] = d0, d1, d2
                else:
                    du_[p, 0] -= d0
                    du_[p, 1] -= d1
                    du_[p, 2] -= d2
