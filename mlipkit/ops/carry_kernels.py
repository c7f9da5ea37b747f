"""Loops of the vector messages (`mlipkit.ops.vectors.carry`), compiled by Numba when first imported.

Per edge j -> i with s = SiLU(z): `V_ik += f (s1 v_jk + s2 Y_k)`. With the partner G_i of the sum,

    α = Σ_k G_ik v_jk,   β = Σ_k G_ik Y_k:   dz1 = f s1' α,  dz2 = f s2' β,  df = Σ s1 α + s2 β,
    dv_jk = Σ f s1 G_ik,   dY_k = f Σ s2 G_ik

A `t` in front of a name marks the tangent that belongs to it. `z` [E,R,D] = (z1 where there is v, z2); `v`, `V`
[N,M,D]. The number of components M is known when a loop is compiled: loops over it are unrolled.
"""

from __future__ import annotations

from mlipkit.ops.kernels import compiled
from mlipkit.ops.silu_kernels import add, bend, clear, read, rows, sigmoid, twist, write


def _of(M):
    @compiled
    def carry(start, stop, like, first, other, number, R, width, v, z, y, f, out):
        v_, z_, y_, f_, o_ = rows(v, like), rows(z, like), rows(y, like), rows(f, like), rows(out, like)
        for i in range(start, stop):
            clear(o_, i * M * width, M * width)
            for place in range(first[i], first[i + 1]):
                e, own, far = number[place], i * M * width, other[place] * M * width
                z1, z2, cut = e * R * width, (e * R + R - 1) * width, read(f_, e)
                if R == 2:
                    for c in range(width):
                        a, b = read(z_, z1 + c), read(z_, z2 + c)
                        s1, s2 = cut * a * sigmoid(a), cut * b * sigmoid(b)
                        for k in range(M):
                            d = s1 * read(v_, far + k * width + c) + s2 * read(y_, e * M + k)
                            add(0, o_, own + k * width + c, d)
                else:
                    for c in range(width):
                        b = read(z_, z2 + c)
                        s2 = cut * b * sigmoid(b)
                        for k in range(M):
                            d = s2 * read(y_, e * M + k)
                            add(0, o_, own + k * width + c, d)

    @compiled
    def edge_slopes(start, stop, like, sender, receiver, R, width, v, z, y, f, g, dz, dy, df):
        v_, z_, y_, f_, g_ = rows(v, like), rows(z, like), rows(y, like), rows(f, like), rows(g, like)
        dz_, dy_, df_ = rows(dz, like), rows(dy, like), rows(df, like)
        for e in range(start, stop):
            own, far = receiver[e] * M * width, sender[e] * M * width
            z1, z2, cut, slope = e * R * width, (e * R + R - 1) * width, read(f_, e), like
            if R == 2:
                for c in range(width):
                    a, alpha = read(z_, z1 + c), like
                    for k in range(M):
                        alpha += read(g_, own + k * width + c) * read(v_, far + k * width + c)
                    o = sigmoid(a)
                    slope += a * o * alpha
                    write(0, dz_, z1 + c, cut * bend(a, o) * alpha)
            d0, d1, d2 = like, like, like
            for c in range(width):
                b, beta = read(z_, z2 + c), like
                for k in range(M):
                    beta += read(g_, own + k * width + c) * read(y_, e * M + k)
                o = sigmoid(b)
                slope += b * o * beta
                d0 += b * o * read(g_, own + c)
                d1 += b * o * read(g_, own + width + c)
                d2 += b * o * read(g_, own + 2 * width + c)
                write(0, dz_, z2 + c, cut * bend(b, o) * beta)
            write(1, df_, e, slope)
            write(2, dy_, e * M, cut * d0)
            write(2, dy_, e * M + 1, cut * d1)
            write(2, dy_, e * M + 2, cut * d2)
            for k in range(3, M):
                along = like
                for c in range(width):
                    b = read(z_, z2 + c)
                    along += b * sigmoid(b) * read(g_, own + k * width + c)
                write(2, dy_, e * M + k, cut * along)

    @compiled
    def atom_slopes(start, stop, like, first, other, number, R, width, z, f, g, dv):
        z_, f_, g_, d_ = rows(z, like), rows(f, like), rows(g, like), rows(dv, like)
        for j in range(start, stop):
            own = j * M * width
            clear(d_, own, M * width)
            for place in range(first[j], first[j + 1]):
                far, e = other[place] * M * width, number[place]
                z1, cut = e * R * width, read(f_, e)
                for c in range(width):
                    a = read(z_, z1 + c)
                    s1 = cut * a * sigmoid(a)
                    for k in range(M):
                        at = own + k * width + c
                        add(0, d_, at, s1 * read(g_, far + k * width + c))

    @compiled
    def sum_second(
        start, stop, like, first, other, number, R, width, v, z, y, f, g, tv, tz, ty, tf, dg, dz, dy, df
    ):  # fmt: skip
        """All slopes of Σ G tV but dv: those in G, z, Y and f."""
        v_, z_, y_, f_, g_ = rows(v, like), rows(z, like), rows(y, like), rows(f, like), rows(g, like)
        tv_, tz_, ty_, tf_ = rows(tv, like), rows(tz, like), rows(ty, like), rows(tf, like)
        dg_, dz_, dy_, df_ = rows(dg, like), rows(dz, like), rows(dy, like), rows(df, like)
        for i in range(start, stop):
            own = i * M * width
            clear(dg_, own, M * width)
            for place in range(first[i], first[i + 1]):
                far, e = other[place] * M * width, number[place]
                z1, z2 = e * R * width, (e * R + R - 1) * width
                cut, tcut, slope = read(f_, e), read(tf_, e), like
                if R == 2:
                    for c in range(width):
                        a, ta, alpha, talpha = read(z_, z1 + c), read(tz_, z1 + c), like, like
                        o = sigmoid(a)
                        s0, s1 = a * o, bend(a, o)
                        moved = s1 * ta * cut + s0 * tcut
                        for k in range(M):
                            at = own + k * width + c
                            gk, vk, tvk = read(g_, at), read(v_, far + k * width + c), read(tv_, far + k * width + c)
                            alpha += gk * vk
                            talpha += gk * tvk
                            add(0, dg_, at, s0 * cut * tvk + moved * vk)
                        slope += talpha * s0 + alpha * s1 * ta
                        write(1, dz_, z1 + c, talpha * s1 * cut + alpha * (twist(a, o) * ta * cut + s1 * tcut))
                for c in range(width):
                    b, tb, beta, tbeta = read(z_, z2 + c), read(tz_, z2 + c), like, like
                    o = sigmoid(b)
                    s0, s1 = b * o, bend(b, o)
                    moved = s1 * tb * cut + s0 * tcut
                    for k in range(M):
                        at = own + k * width + c
                        gk, yk, tyk = read(g_, at), read(y_, e * M + k), read(ty_, e * M + k)
                        beta += gk * yk
                        tbeta += gk * tyk
                        add(0, dg_, at, s0 * cut * tyk + moved * yk)
                    slope += tbeta * s0 + beta * s1 * tb
                    write(1, dz_, z2 + c, tbeta * s1 * cut + beta * (twist(b, o) * tb * cut + s1 * tcut))
                write(2, df_, e, slope)
                if dy != 0:
                    for k in range(M):
                        along = like
                        for c in range(width):
                            b = read(z_, z2 + c)
                            o = sigmoid(b)
                            moved = bend(b, o) * read(tz_, z2 + c) * cut + b * o * tcut
                            along += moved * read(g_, own + k * width + c)
                        write(3, dy_, e * M + k, along)

    @compiled
    def atom_second(start, stop, like, first, other, number, R, width, z, f, g, tz, tf, dv):
        z_, f_, g_, d_ = rows(z, like), rows(f, like), rows(g, like), rows(dv, like)
        tz_, tf_ = rows(tz, like), rows(tf, like)
        for j in range(start, stop):
            own = j * M * width
            clear(d_, own, M * width)
            for place in range(first[j], first[j + 1]):
                far, e = other[place] * M * width, number[place]
                z1, cut, tcut = e * R * width, read(f_, e), read(tf_, e)
                for c in range(width):
                    a = read(z_, z1 + c)
                    o = sigmoid(a)
                    moved = bend(a, o) * read(tz_, z1 + c) * cut + a * o * tcut
                    for k in range(M):
                        at = own + k * width + c
                        add(0, d_, at, moved * read(g_, far + k * width + c))

    return {k.__name__: k for k in (carry, edge_slopes, atom_slopes, sum_second, atom_second)}


LOOPS = {3: _of(3), 8: _of(8)}
