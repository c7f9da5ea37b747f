"""Loops of the update of atoms by their vectors (`mlipkit.ops.vectors.mixed`), compiled by Numba when first imported.

With P = Σ_k v1_k v2_k: `x = P o2 + o3`, `V_k = v3_k o1`; with partners g, G_k of the two,

    do1 = Σ G_k v3_k,  do2 = g P,  do3 = g,  dv1_k = g o2 v2_k,  dv2_k = g o2 v1_k,  dv3_k = G_k o1

A `t` in front of a name marks the tangent that belongs to it. `w` = (v1, v2, v3) [N,M,3,D], `o` [N,3,D].
"""

from __future__ import annotations

from mlipkit.ops.kernels import compiled
from mlipkit.ops.silu_kernels import read, rows, write


def _of(M):
    @compiled
    def mixed(start, stop, like, D, w, o, x, v):
        w_, o_, x_, v_ = rows(w, like), rows(o, like), rows(x, like), rows(v, like)
        for i in range(start, stop):
            at, own = i * M * 3 * D, i * 3 * D
            for c in range(D):
                product, o1 = like, read(o_, own + c)
                for k in range(M):
                    product += read(w_, at + 3 * k * D + c) * read(w_, at + (3 * k + 1) * D + c)
                    write(1, v_, (i * M + k) * D + c, read(w_, at + (3 * k + 2) * D + c) * o1)
                write(0, x_, i * D + c, product * read(o_, own + D + c) + read(o_, own + 2 * D + c))

    @compiled
    def slopes(start, stop, like, D, w, o, gx, gv, dw, do):
        w_, o_, gx_, gv_ = rows(w, like), rows(o, like), rows(gx, like), rows(gv, like)
        dw_, do_ = rows(dw, like), rows(do, like)
        for i in range(start, stop):
            at, own = i * M * 3 * D, i * 3 * D
            for c in range(D):
                g, o1, o2, product, along = read(gx_, i * D + c), read(o_, own + c), read(o_, own + D + c), like, like
                for k in range(M):
                    v1, v2 = read(w_, at + 3 * k * D + c), read(w_, at + (3 * k + 1) * D + c)
                    gk = read(gv_, (i * M + k) * D + c)
                    product += v1 * v2
                    along += gk * read(w_, at + (3 * k + 2) * D + c)
                    write(0, dw_, at + 3 * k * D + c, g * o2 * v2)
                    write(1, dw_, at + (3 * k + 1) * D + c, g * o2 * v1)
                    write(2, dw_, at + (3 * k + 2) * D + c, gk * o1)
                write(3, do_, own + c, along)
                write(4, do_, own + D + c, g * product)
                write(5, do_, own + 2 * D + c, g)

    @compiled
    def second(start, stop, like, D, w, o, gx, gv, tw, to, dgx, dgv, dw, do):
        w_, o_, gx_, gv_ = rows(w, like), rows(o, like), rows(gx, like), rows(gv, like)
        tw_, to_, dgx_, dgv_ = rows(tw, like), rows(to, like), rows(dgx, like), rows(dgv, like)
        dw_, do_ = rows(dw, like), rows(do, like)
        for i in range(start, stop):
            at, own = i * M * 3 * D, i * 3 * D
            for c in range(D):
                g, o1, o2 = read(gx_, i * D + c), read(o_, own + c), read(o_, own + D + c)
                u1, u2, product, tproduct, along = read(to_, own + c), read(to_, own + D + c), like, like, like
                for k in range(M):
                    v1, v2 = read(w_, at + 3 * k * D + c), read(w_, at + (3 * k + 1) * D + c)
                    t1, t2 = read(tw_, at + 3 * k * D + c), read(tw_, at + (3 * k + 1) * D + c)
                    v3, t3 = read(w_, at + (3 * k + 2) * D + c), read(tw_, at + (3 * k + 2) * D + c)
                    gk = read(gv_, (i * M + k) * D + c)
                    product += v1 * v2
                    tproduct += t1 * v2 + v1 * t2
                    along += gk * t3
                    write(0, dw_, at + 3 * k * D + c, g * (o2 * t2 + u2 * v2))
                    write(1, dw_, at + (3 * k + 1) * D + c, g * (o2 * t1 + u2 * v1))
                    write(2, dw_, at + (3 * k + 2) * D + c, gk * u1)
                    write(6, dgv_, (i * M + k) * D + c, t3 * o1 + v3 * u1)
                write(3, do_, own + c, along)
                write(4, do_, own + D + c, g * tproduct)
                write(5, do_, own + 2 * D + c, like)
                write(7, dgx_, i * D + c, tproduct * o2 + product * u2 + read(to_, own + 2 * D + c))

    return {k.__name__: k for k in (mixed, slopes, second)}


LOOPS = {3: _of(3), 8: _of(8)}
