"""Loops of the attention over edges (`mlipkit.ops.attend`), compiled by Numba when first imported.

Per edge e = (j -> i) of row p, with A = SiLU(h_k), B = SiLU(h_v) and one head at a time:

    l = Σ q_i k_j A,   a = SiLU(l) f,   m = a v_j B
    u = Σ G v_j B,   λ = u f SiLU'(l):   dq_i = λ k_j A,  dk_j = λ q_i A,  dh_k = λ q_i k_j A',  dv_j = a G B,
    dh_v = a G v_j B',  df = Σ u SiLU(l)                                           with G = gm_e + gt_i

A second `t` in front of a name marks the tangent that belongs to it. `qkv` [N,3,D]; `h` [R,2,D]; row p is that of edges
p (where p < pairs) and p + pairs. Loops run over all D features at
once; what belongs to a head goes through rows of `room`, and loops over a head, of known width, are unrolled.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mlipkit.ops.kernels import compiled
from mlipkit.ops.silu_kernels import add, again, bend, clear, read, rows, sigmoid, twist, write


@compiled
def table(n, here, there):
    """(first, other, number): edges number[k] of atom i `here`, first[i] <= k < first[i+1], with atom `there`."""
    first = np.zeros(n + 1, np.int64)
    for e in range(len(here)):
        if not (0 <= here[e] < n and 0 <= there[e] < n):
            raise IndexError("an edge points to no atom")
        first[here[e] + 1] += 1
    for i in range(n):
        first[i + 1] += first[i]
    place = first[:-1].copy()
    other, number = np.empty(first[n], np.int64), np.empty(first[n], np.int64)
    for e in range(len(here)):
        other[place[here[e]]], number[place[here[e]]] = there[e], e
        place[here[e]] += 1
    return first, other, number


@compiled
def total_of(room, begin, count, like):
    total = like
    for c in range(begin, begin + count):
        total += again(6, room, c)
    return total


@compiled
def fill(room, begin, count, value):
    for c in range(begin, begin + count):
        write(6, room, c, value)


@cache
def loops(depth: int) -> dict[str, Any]:
    """By name, for heads of this width."""

    @compiled
    def attend(start, stop, like, first, other, number, pairs, heads, width, qkv, h, f, m, total):
        """m_e and its sum over the edges of each receiver."""
        x_, h_, f_, m_, t_ = rows(qkv, like), rows(h, like), rows(f, like), rows(m, like), rows(total, like)
        room = np.full(1 * width, like)
        r_ = rows(room.ctypes.data, like)
        for i in range(start, stop):
            q = 3 * i * width
            clear(t_, i * width, width)
            for place in range(first[i], first[i + 1]):
                j, e = other[place], number[place]
                k, v = (3 * j + 1) * width, (3 * j + 2) * width
                hk = 2 * width * (e if e < pairs else e - pairs)
                hv = hk + width
                for c in range(width):
                    y = read(h_, hk + c)
                    write(6, r_, c, read(x_, q + c) * read(x_, k + c) * y * sigmoid(y))
                for head in range(heads):
                    dot = total_of(r_, head * depth, depth, like)
                    fill(r_, head * depth, depth, dot * sigmoid(dot) * read(f_, e))
                for c in range(width):
                    y = read(h_, hv + c)
                    message = again(6, r_, c) * read(x_, v + c) * y * sigmoid(y)
                    write(0, m_, e * width + c, message)
                    add(1, t_, i * width + c, message)
        room[0] = like  # lives until here

    @compiled
    def edge_slopes(
        start, stop, like, sender, receiver, pairs, heads, width, qkv, h, f, gm, gt, dh, df, a_of, l_of
    ):  # fmt: skip
        """dh, df; a and λ of each edge and head are kept for `atom_slopes`."""
        x_, h_, f_, gm_, gt_ = rows(qkv, like), rows(h, like), rows(f, like), rows(gm, like), rows(gt, like)
        dh_, df_, a_, l_ = rows(dh, like), rows(df, like), rows(a_of, like), rows(l_of, like)
        room = np.full(4 * width, like)
        r_ = rows(room.ctypes.data, like)
        for p in range(start, stop):
            hk, hv = 2 * p * width, (2 * p + 1) * width
            clear(dh_, hk, 2 * width)
            for c in range(width):
                write(6, r_, 2 * width + c, sigmoid(read(h_, hk + c)))
                write(6, r_, 3 * width + c, sigmoid(read(h_, hv + c)))
            for end in range(0 if p < pairs else 1, 2):
                e = p + end * pairs
                i, j = receiver[e], sender[e]
                q, k, v = 3 * i * width, (3 * j + 1) * width, (3 * j + 2) * width
                cut, slope = read(f_, e), like
                for c in range(width):
                    y, z = read(h_, hk + c), read(h_, hv + c)
                    g = read(gm_, e * width + c) + read(gt_, i * width + c)
                    write(6, r_, c, read(x_, q + c) * read(x_, k + c) * y * again(6, r_, 2 * width + c))
                    write(6, r_, width + c, g * read(x_, v + c) * z * again(6, r_, 3 * width + c))
                for head in range(heads):
                    b = head * depth
                    dot, u = total_of(r_, b, depth, like), total_of(r_, width + b, depth, like)
                    o = sigmoid(dot)
                    a, lam = dot * o * cut, u * cut * bend(dot, o)
                    slope += u * dot * o
                    write(2, a_, e * heads + head, a)
                    write(3, l_, e * heads + head, lam)
                    fill(r_, b, depth, lam)
                    fill(r_, width + b, depth, a)
                for c in range(width):
                    y, z = read(h_, hk + c), read(h_, hv + c)
                    g = read(gm_, e * width + c) + read(gt_, i * width + c)
                    d = again(6, r_, c) * read(x_, q + c) * read(x_, k + c) * bend(y, again(6, r_, 2 * width + c))
                    add(0, dh_, hk + c, d)
                    d = again(6, r_, width + c) * g * read(x_, v + c) * bend(z, again(6, r_, 3 * width + c))
                    add(7, dh_, hv + c, d)
                write(1, df_, e, slope)
        room[0] = like  # lives until here

    @compiled
    def atom_slopes(
        start, stop, like, first, other, number, from_first, from_other, from_number, pairs, heads, width,
        qkv, h, gm, gt, a_of, l_of, dqkv,
    ):  # fmt: skip
        """dq of receivers, dk and dv of senders."""
        x_, h_, gm_, gt_ = rows(qkv, like), rows(h, like), rows(gm, like), rows(gt, like)
        a_, l_, d_ = rows(a_of, like), rows(l_of, like), rows(dqkv, like)
        room = np.full(2 * width, like)
        r_ = rows(room.ctypes.data, like)
        for i in range(start, stop):
            q, k, v = 3 * i * width, (3 * i + 1) * width, (3 * i + 2) * width
            clear(d_, q, 3 * width)
            for place in range(first[i], first[i + 1]):
                far, e = 3 * other[place] * width + width, number[place]
                hk = 2 * width * (e if e < pairs else e - pairs)
                for head in range(heads):
                    fill(r_, head * depth, depth, read(l_, e * heads + head))
                for c in range(width):
                    y = read(h_, hk + c)
                    add(0, d_, q + c, again(6, r_, c) * read(x_, far + c) * y * sigmoid(y))
            for place in range(from_first[i], from_first[i + 1]):
                o, e = from_other[place], from_number[place]
                far, hk = 3 * o * width, 2 * width * (e if e < pairs else e - pairs)
                hv = hk + width
                for head in range(heads):
                    fill(r_, head * depth, depth, read(l_, e * heads + head))
                    fill(r_, width + head * depth, depth, read(a_, e * heads + head))
                for c in range(width):
                    y, z = read(h_, hk + c), read(h_, hv + c)
                    g = read(gm_, e * width + c) + read(gt_, o * width + c)
                    add(2, d_, k + c, again(6, r_, c) * read(x_, far + c) * y * sigmoid(y))
                    add(3, d_, v + c, again(6, r_, width + c) * g * z * sigmoid(z))
        room[0] = like  # lives until here

    @compiled
    def edge_second(
        start, stop, like, sender, receiver, pairs, heads, width, qkv, h, f, gm, gt, tqkv, th, tf,
        dgm, dh, df, a_of, ta_of, l_of, mu_of,
    ):  # fmt: skip
        """Slopes of Σ G tm with tm = ta v B + a tv B + a v B' th_v: dgm = tm, dh, df; a, ta, λ, μ for `atom_second`."""
        x_, h_, f_, gm_, gt_ = rows(qkv, like), rows(h, like), rows(f, like), rows(gm, like), rows(gt, like)
        tx_, th_, tf_ = rows(tqkv, like), rows(th, like), rows(tf, like)
        dg_, dh_, df_ = rows(dgm, like), rows(dh, like), rows(df, like)
        a_, ta_, l_, mu_ = rows(a_of, like), rows(ta_of, like), rows(l_of, like), rows(mu_of, like)
        room = np.full(6 * width, like)
        r_ = rows(room.ctypes.data, like)
        for p in range(start, stop):
            hk, hv = 2 * p * width, (2 * p + 1) * width
            clear(dh_, hk, 2 * width)
            for c in range(width):
                write(6, r_, 4 * width + c, sigmoid(read(h_, hk + c)))
                write(6, r_, 5 * width + c, sigmoid(read(h_, hv + c)))
            for end in range(0 if p < pairs else 1, 2):
                e = p + end * pairs
                i, j = receiver[e], sender[e]
                q, k, v = 3 * i * width, (3 * j + 1) * width, (3 * j + 2) * width
                cut, tcut, slope = read(f_, e), read(tf_, e), like
                for c in range(width):
                    y, xq, xk = read(h_, hk + c), read(x_, q + c), read(x_, k + c)
                    o = again(6, r_, 4 * width + c)
                    write(6, r_, c, xq * xk * y * o)
                    d = (read(tx_, q + c) * xk + xq * read(tx_, k + c)) * y * o
                    write(6, r_, width + c, d + xq * xk * bend(y, o) * read(th_, hk + c))
                for c in range(width):
                    z, xv = read(h_, hv + c), read(x_, v + c)
                    o, g = again(6, r_, 5 * width + c), read(gm_, e * width + c) + read(gt_, i * width + c)
                    write(6, r_, 2 * width + c, g * xv * z * o)
                    d = read(tx_, v + c) * z * o + xv * bend(z, o) * read(th_, hv + c)
                    write(6, r_, 3 * width + c, g * d)
                for head in range(heads):
                    b = head * depth
                    dot, tdot = total_of(r_, b, depth, like), total_of(r_, width + b, depth, like)
                    u, w = total_of(r_, 2 * width + b, depth, like), total_of(r_, 3 * width + b, depth, like)
                    o = sigmoid(dot)
                    s0, s1, s2 = dot * o, bend(dot, o), twist(dot, o)
                    a, ta = s0 * cut, s1 * tdot * cut + s0 * tcut
                    lam, mu = u * cut * s1, w * cut * s1 + u * (s2 * tdot * cut + s1 * tcut)
                    slope += w * s0 + u * s1 * tdot
                    write(2, a_, e * heads + head, a)
                    write(3, ta_, e * heads + head, ta)
                    write(4, l_, e * heads + head, lam)
                    write(5, mu_, e * heads + head, mu)
                    fill(r_, b, depth, a)
                    fill(r_, width + b, depth, ta)
                    fill(r_, 2 * width + b, depth, lam)
                    fill(r_, 3 * width + b, depth, mu)
                for c in range(width):
                    y, xq, xk = read(h_, hk + c), read(x_, q + c), read(x_, k + c)
                    o, lam, mu = again(6, r_, 4 * width + c), again(6, r_, 2 * width + c), again(6, r_, 3 * width + c)
                    d = (mu * xq * xk + lam * (read(tx_, q + c) * xk + xq * read(tx_, k + c))) * bend(y, o)
                    d += lam * xq * xk * twist(y, o) * read(th_, hk + c)
                    add(0, dh_, hk + c, d)
                for c in range(width):
                    z, xv, tz = read(h_, hv + c), read(x_, v + c), read(th_, hv + c)
                    o, a, ta = again(6, r_, 5 * width + c), again(6, r_, c), again(6, r_, width + c)
                    g = read(gm_, e * width + c) + read(gt_, i * width + c)
                    moved, s1 = ta * xv + a * read(tx_, v + c), bend(z, o)
                    write(1, dg_, e * width + c, moved * z * o + a * xv * s1 * tz)
                    d = g * (moved * s1 + a * xv * twist(z, o) * tz)
                    add(7, dh_, hv + c, d)
                write(8, df_, e, slope)
        room[0] = like  # lives until here

    @compiled
    def atom_second(
        start, stop, like, first, other, number, from_first, from_other, from_number, pairs, heads, width,
        qkv, h, gm, gt, tqkv, th, dgm, a_of, ta_of, l_of, mu_of, dgt, dqkv,
    ):  # fmt: skip
        """dgt and dq of receivers, dk and dv of senders."""
        x_, h_, gm_, gt_ = rows(qkv, like), rows(h, like), rows(gm, like), rows(gt, like)
        tx_, th_, dg_ = rows(tqkv, like), rows(th, like), rows(dgm, like)
        a_, ta_, l_, mu_ = rows(a_of, like), rows(ta_of, like), rows(l_of, like), rows(mu_of, like)
        t_, d_ = rows(dgt, like), rows(dqkv, like)
        room = np.full(4 * width, like)
        r_ = rows(room.ctypes.data, like)
        for i in range(start, stop):
            q, k, v = 3 * i * width, (3 * i + 1) * width, (3 * i + 2) * width
            clear(d_, q, 3 * width)
            clear(t_, i * width, width)
            for place in range(first[i], first[i + 1]):
                far, e = (3 * other[place] + 1) * width, number[place]
                hk = 2 * width * (e if e < pairs else e - pairs)
                for c in range(width):
                    add(1, t_, i * width + c, read(dg_, e * width + c))
                for head in range(heads):
                    fill(r_, head * depth, depth, read(l_, e * heads + head))
                    fill(r_, width + head * depth, depth, read(mu_, e * heads + head))
                for c in range(width):
                    lam, mu = again(6, r_, c), again(6, r_, width + c)
                    y, xk = read(h_, hk + c), read(x_, far + c)
                    o = sigmoid(y)
                    d = (mu * xk + lam * read(tx_, far + c)) * y * o + lam * xk * bend(y, o) * read(th_, hk + c)
                    add(0, d_, q + c, d)
            for place in range(from_first[i], from_first[i + 1]):
                far, e = from_other[place], from_number[place]
                hk = 2 * width * (e if e < pairs else e - pairs)
                hv, xq_ = hk + width, 3 * far * width
                for head in range(heads):
                    b = head * depth
                    fill(r_, b, depth, read(l_, e * heads + head))
                    fill(r_, width + b, depth, read(mu_, e * heads + head))
                    fill(r_, 2 * width + b, depth, read(a_, e * heads + head))
                    fill(r_, 3 * width + b, depth, read(ta_, e * heads + head))
                for c in range(width):
                    lam, mu = again(6, r_, c), again(6, r_, width + c)
                    a, ta = again(6, r_, 2 * width + c), again(6, r_, 3 * width + c)
                    y, z, xq = read(h_, hk + c), read(h_, hv + c), read(x_, xq_ + c)
                    o, r = sigmoid(y), sigmoid(z)
                    d = (mu * xq + lam * read(tx_, xq_ + c)) * y * o + lam * xq * bend(y, o) * read(th_, hk + c)
                    add(2, d_, k + c, d)
                    g = read(gm_, e * width + c) + read(gt_, far * width + c)
                    d = g * (ta * z * r + a * bend(z, r) * read(th_, hv + c))
                    add(3, d_, v + c, d)
        room[0] = like  # lives until here

    return {k.__name__: k for k in (attend, edge_slopes, atom_slopes, edge_second, atom_second)}
