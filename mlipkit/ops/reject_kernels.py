"""Loops of the edge update (`mlipkit.ops.vectors.rejected`), compiled by Numba when first imported.

Per edge j -> i of row p, with s = SiLU(h), p = a_i·Y, q = b_j·Y (M = 3 only: above they are not part of r):

    r = Σ_k a_ik b_jk - p q,   out = f + s r;   with the partner G of out and ρ = G s
    df = G,  dh = G s' r,  da_ik = Σ ρ (b_jk - q Y_k),  db_jk = Σ ρ (a_ik - p Y_k),  dY_k = -Σ ρ (a_ik q + p b_jk)

A `t` in front of a name marks the tangent that belongs to it; τ = G s' th. `ab` [N,M,2,D]; row p is that of edges p
(where p < pairs) and p + pairs.
"""

from __future__ import annotations

from mlipkit.ops.kernels import compiled
from mlipkit.ops.silu_kernels import add, bend, clear, read, rows, sigmoid, twist, write


def _of(M):
    @compiled
    def reject(start, stop, like, sender, receiver, pairs, width, f, h, ab, y, out):
        f_, h_, x_, y_, o_ = rows(f, like), rows(h, like), rows(ab, like), rows(y, like), rows(out, like)
        for e in range(start, stop):
            a, b = receiver[e] * 2 * M * width, (sender[e] * 2 * M + 1) * width
            row = width * (e if e < pairs else e - pairs)
            for c in range(width):
                r, p, q = like, like, like
                for k in range(M):
                    ak, bk = read(x_, a + 2 * k * width + c), read(x_, b + 2 * k * width + c)
                    r += ak * bk
                    if M == 3:
                        p += ak * read(y_, e * M + k)
                        q += bk * read(y_, e * M + k)
                z = read(h_, row + c)
                write(0, o_, e * width + c, read(f_, row + c) + z * sigmoid(z) * (r - p * q))

    @compiled
    def edge_slopes(start, stop, like, sender, receiver, pairs, width, h, ab, y, g, df, dh, dy):
        h_, x_, y_, g_ = rows(h, like), rows(ab, like), rows(y, like), rows(g, like)
        df_, dh_, dy_ = rows(df, like), rows(dh, like), rows(dy, like)
        for row in range(start, stop):
            w = row * width
            clear(df_, w, width)
            clear(dh_, w, width)
            for end in range(0 if row < pairs else 1, 2):
                e = row + end * pairs
                a, b = receiver[e] * 2 * M * width, (sender[e] * 2 * M + 1) * width
                d0, d1, d2 = like, like, like
                for c in range(width):
                    r, p, q = like, like, like
                    for k in range(M):
                        ak, bk = read(x_, a + 2 * k * width + c), read(x_, b + 2 * k * width + c)
                        r += ak * bk
                        if M == 3:
                            p += ak * read(y_, e * M + k)
                            q += bk * read(y_, e * M + k)
                    z, gc = read(h_, w + c), read(g_, e * width + c)
                    o = sigmoid(z)
                    add(0, df_, w + c, gc)
                    add(1, dh_, w + c, gc * (r - p * q) * bend(z, o))
                    if M == 3:
                        rho = gc * z * o
                        d0 += rho * (read(x_, a + c) * q + p * read(x_, b + c))
                        d1 += rho * (read(x_, a + 2 * width + c) * q + p * read(x_, b + 2 * width + c))
                        d2 += rho * (read(x_, a + 4 * width + c) * q + p * read(x_, b + 4 * width + c))
                if M == 3:
                    write(2, dy_, e * M, -d0)
                    write(2, dy_, e * M + 1, -d1)
                    write(2, dy_, e * M + 2, -d2)

    @compiled
    def atom_slopes(start, stop, like, first, other, number, side, pairs, width, h, ab, y, g, dab):
        """da of receivers (side 0) or db of senders (side 1), from the other of the two at the far end."""
        h_, x_, y_, g_, d_ = rows(h, like), rows(ab, like), rows(y, like), rows(g, like), rows(dab, like)
        for i in range(start, stop):
            own = (i * 2 * M + side) * width
            for k in range(M):
                clear(d_, own + 2 * k * width, width)
            for place in range(first[i], first[i + 1]):
                far, e = (other[place] * 2 * M + 1 - side) * width, number[place]
                row = width * (e if e < pairs else e - pairs)
                for c in range(width):
                    z, q = read(h_, row + c), like
                    rho = read(g_, e * width + c) * z * sigmoid(z)
                    if M == 3:
                        for k in range(M):
                            q += read(x_, far + 2 * k * width + c) * read(y_, e * M + k)
                    for k in range(M):
                        at, bk = own + 2 * k * width + c, read(x_, far + 2 * k * width + c)
                        if M == 3:
                            bk -= q * read(y_, e * M + k)
                        add(0, d_, at, rho * bk)

    @compiled
    def edge_second(
        start, stop, like, sender, receiver, pairs, width, h, ab, y, g, tf, th, tab, ty, dg, dh, dy
    ):  # fmt: skip
        """Slopes of Σ G tout with tout = tf + s' th r + s tr: dG = tout, dh, dY."""
        h_, x_, y_, g_ = rows(h, like), rows(ab, like), rows(y, like), rows(g, like)
        tf_, th_, tx_, ty_ = rows(tf, like), rows(th, like), rows(tab, like), rows(ty, like)
        dg_, dh_, dy_ = rows(dg, like), rows(dh, like), rows(dy, like)
        for row in range(start, stop):
            w = row * width
            clear(dh_, w, width)
            for end in range(0 if row < pairs else 1, 2):
                e = row + end * pairs
                a, b = receiver[e] * 2 * M * width, (sender[e] * 2 * M + 1) * width
                for c in range(width):
                    r, p, q, tr, tp, tq = like, like, like, like, like, like
                    for k in range(M):
                        ak, bk = read(x_, a + 2 * k * width + c), read(x_, b + 2 * k * width + c)
                        tak, tbk = read(tx_, a + 2 * k * width + c), read(tx_, b + 2 * k * width + c)
                        r += ak * bk
                        tr += tak * bk + ak * tbk
                        if M == 3:
                            yk, tyk = read(y_, e * M + k), read(ty_, e * M + k)
                            p += ak * yk
                            q += bk * yk
                            tp += tak * yk + ak * tyk
                            tq += tbk * yk + bk * tyk
                    r, tr = r - p * q, tr - tp * q - p * tq
                    z, tz = read(h_, w + c), read(th_, w + c)
                    o = sigmoid(z)
                    s1 = bend(z, o)
                    write(0, dg_, e * width + c, read(tf_, w + c) + s1 * tz * r + z * o * tr)
                    d = read(g_, e * width + c) * (twist(z, o) * tz * r + s1 * tr)
                    add(1, dh_, w + c, d)
                if M == 3 and dy != 0:
                    for m in range(M):
                        along = like
                        for c in range(width):
                            p, q, tp, tq = like, like, like, like
                            for k in range(M):
                                ak, bk = read(x_, a + 2 * k * width + c), read(x_, b + 2 * k * width + c)
                                yk, tyk = read(y_, e * M + k), read(ty_, e * M + k)
                                p += ak * yk
                                q += bk * yk
                                tp += read(tx_, a + 2 * k * width + c) * yk + ak * tyk
                                tq += read(tx_, b + 2 * k * width + c) * yk + bk * tyk
                            am, bm = read(x_, a + 2 * m * width + c), read(x_, b + 2 * m * width + c)
                            tam, tbm = read(tx_, a + 2 * m * width + c), read(tx_, b + 2 * m * width + c)
                            z, gc = read(h_, w + c), read(g_, e * width + c)
                            o = sigmoid(z)
                            along += gc * bend(z, o) * read(th_, w + c) * (am * q + p * bm)
                            along += gc * z * o * (tam * q + tp * bm + am * tq + p * tbm)
                        write(2, dy_, e * M + m, -along)

    @compiled
    def atom_second(
        start, stop, like, first, other, number, side, pairs, width, h, ab, y, g, th, tab, ty, dab
    ):  # fmt: skip
        """da of receivers (side 0) or db of senders (side 1)."""
        h_, x_, y_, g_, d_ = rows(h, like), rows(ab, like), rows(y, like), rows(g, like), rows(dab, like)
        th_, tx_, ty_ = rows(th, like), rows(tab, like), rows(ty, like)
        for i in range(start, stop):
            own = (i * 2 * M + side) * width
            for k in range(M):
                clear(d_, own + 2 * k * width, width)
            for place in range(first[i], first[i + 1]):
                far, e = (other[place] * 2 * M + 1 - side) * width, number[place]
                row = width * (e if e < pairs else e - pairs)
                for c in range(width):
                    z, gc, q, tq = read(h_, row + c), read(g_, e * width + c), like, like
                    o = sigmoid(z)
                    rho, tau = gc * z * o, gc * bend(z, o) * read(th_, row + c)
                    if M == 3:
                        for k in range(M):
                            bk, yk = read(x_, far + 2 * k * width + c), read(y_, e * M + k)
                            q += bk * yk
                            tq += read(tx_, far + 2 * k * width + c) * yk + bk * read(ty_, e * M + k)
                    for k in range(M):
                        at = own + 2 * k * width + c
                        bk, tbk = read(x_, far + 2 * k * width + c), read(tx_, far + 2 * k * width + c)
                        if M == 3:
                            yk = read(y_, e * M + k)
                            bk -= q * yk
                            tbk -= tq * yk + q * read(ty_, e * M + k)
                        add(0, d_, at, tau * bk + rho * tbk)

    return {k.__name__: k for k in (reject, edge_slopes, atom_slopes, edge_second, atom_second)}


LOOPS = {3: _of(3), 8: _of(8)}
