"""SOAP + PCA + Q beside plain dscribe + scikit-learn; a stream of 10,000 frames; what one live score costs.

    MLIPKIT_DATA=... python benchmarks/soap_pca.py [shift] [stream] [live]

Each job is a process of its own with its number of threads; peak memory is that of the process with its children, read
twenty times a second. Appends JSON lines to `results/soap_pca.jsonl`.

shift    naive_50 + periodic_50 of `chclca_bias` (100 frames of 197 atoms, 11,172 numbers per atom): descriptor, five
         components, Q of every atom. The peer is dscribe 2 and scikit-learn as their manuals show them ("plain",
         float64) and with float32 everywhere ("float32"); numbers are compared atom by atom.
stream   fit on 274 frames, then 1,000 and 10,000 frames of 197 atoms, memory-mapped, scored as a stream.
live     CPU time of one score of 9, 197 and 288 atoms, one thread, median of many.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

RESULTS = Path(__file__).resolve().parent / "results" / "soap_pca.jsonl"
STREAM = (1_000, 10_000)
SETTINGS = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.375}


def imported() -> None:
    """Ours imports when first needed; the peers' imports are not timed either."""
    import mlipkit.data.neighbours  # noqa: F401
    from mlipkit.analysis.power_spectrum import kernels

    kernels()


def published():
    from mlipkit.data import read

    folder = Path(os.environ["MLIPKIT_DATA"]) / "chclca_bias"
    return [read(folder / f"{name}.extxyz") for name in ("naive_50", "periodic_50", "nonperiodic_50", "self_md_tests")]


class Clock:
    """Wall and CPU seconds since the last look; CPU time of children counts."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self._last = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        me = psutil.Process()
        children = sum(sum(child.cpu_times()[:2]) for child in me.children(recursive=True))
        return time.perf_counter(), sum(me.cpu_times()[:2]) + children

    def look(self, name: str) -> None:
        now = self._now()
        self.parts[name] = [round(now[i] - self._last[i], 2) for i in range(2)]
        self._last = now


def shift_ours(out: Path, threads: int) -> dict:
    from mlipkit.analysis.descriptors import Rows
    from mlipkit.analysis.pca import fit_and_project
    from mlipkit.analysis.soap import Soap

    naive, rounds, *_ = published()
    frames = naive.concat(rounds)
    imported()
    base = psutil.Process().memory_info().rss
    clock = Clock()
    soap = Soap.of(frames, n_jobs=threads, **SETTINGS)
    pca, _, q = fit_and_project(Rows(soap, frames), 5)
    clock.look("soap_pca_q")
    np.savez(out, explained=pca.explained, q=q)
    return {"parts_wall_cpu_s": clock.parts, "base_mib": base / 2**20, "engine": soap.engine}


def shift_model(out: Path, threads: int) -> dict:
    """The same with limits from five or more runs and nearest neighbours."""
    from mlipkit.analysis.ood import OODModel
    from mlipkit.analysis.soap import Soap

    naive, rounds, *_ = published()
    frames = naive.concat(rounds)
    imported()
    base = psutil.Process().memory_info().rss
    clock = Clock()
    model = OODModel.fit(frames, Soap.of(frames, n_jobs=threads, **SETTINGS))
    clock.look("fit_with_limits")
    scores = model.score(frames)
    clock.look("score")
    np.savez(out, explained=model.pca.explained, q=scores.q)
    return {"parts_wall_cpu_s": clock.parts, "base_mib": base / 2**20}


def shift_peer(out: Path, threads: int, dtype: str) -> dict:
    from dscribe.descriptors import SOAP
    from sklearn.decomposition import PCA

    naive, rounds, *_ = published()
    frames = list(naive.concat(rounds))
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    base = psutil.Process().memory_info().rss
    clock = Clock()
    soap = SOAP(species=species, periodic=True, dtype=dtype, **SETTINGS)
    X = soap.create(frames, n_jobs=threads).reshape(-1, soap.get_number_of_features())
    clock.look("soap")
    pca = PCA(n_components=5, random_state=0)
    z = pca.fit_transform(X)
    clock.look("pca")
    q = ((X - pca.inverse_transform(z)) ** 2).sum(axis=1)
    clock.look("q")
    np.savez(out, explained=pca.explained_variance_ratio_, q=q)
    return {"parts_wall_cpu_s": clock.parts, "base_mib": base / 2**20}


def stream(out: Path, threads: int) -> dict:
    """Fit, then score a thousand and ten thousand frames; the folder lies beside `out`."""
    from mlipkit.analysis.ood import OODModel
    from mlipkit.analysis.soap import Soap
    from mlipkit.data import FrameSet
    from mlipkit.runs.process import peak_memory

    fit_on = FrameSet.concat(published())
    base = peak_memory()
    clock = Clock()
    model = OODModel.fit(fit_on, Soap.of(fit_on, n_jobs=threads, **SETTINGS))
    clock.look("fit")
    peaks = {"fit": peak_memory()}
    frames = FrameSet.open(out.parent / "frames")
    for n in STREAM:
        means = np.concatenate([part.per_frame("q") for part in model.stream(frames[:n])])
        clock.look(f"score_{n}")
        peaks[str(n)] = peak_memory()
        assert len(means) == n
    return {
        "fit_on_frames": len(fit_on),
        "parts_wall_cpu_s": clock.parts,
        "base_mib": base / 2**20,
        "peak_after_mib": {name: round(value / 2**20, 1) for name, value in peaks.items()},
        "ms_per_frame_wall": round(1e3 * clock.parts[f"score_{STREAM[-1]}"][0] / STREAM[-1], 2),
    }


def grow(folder: Path, n: int) -> None:
    """A folder of `n` frames: the published ones in turn, each atom moved by 0.02 Å."""
    from mlipkit.data import FrameSet

    frames = FrameSet.concat(published())
    rng, pick = np.random.default_rng(0), np.arange(n) % len(frames)
    positions = frames.positions.reshape(len(frames), 197, 3)[pick] + rng.normal(0.0, 0.02, (n, 197, 3))
    FrameSet.from_arrays(
        frames.numbers.reshape(-1, 197)[pick].reshape(-1), positions.reshape(-1, 3), 197, cell=frames.cell[pick],
        pbc=frames.pbc[pick], source="grown", trajectory=0, time=np.arange(n),
    ).save(folder)  # fmt: skip


def live(out: Path, threads: int) -> dict:
    from mlipkit.analysis.features import ModelFeatures
    from mlipkit.analysis.live import LiveScorer
    from mlipkit.analysis.ood import OODModel
    from mlipkit.analysis.soap import Soap
    from mlipkit.data import FrameSet, samples
    from mlipkit.models import load

    ethanol, water = samples.load("ethanol_300K")[:60], samples.load("water_liquid")[:12]
    liquid = published()[0]
    atoms = list(water)
    large = FrameSet.from_atoms([a.repeat((3, 1, 1)) for a in atoms])
    features = ModelFeatures(load("sample:ethanol_1000"))
    cases = {
        "9 atoms, SOAP": (ethanol, None, 200),
        "197 atoms, SOAP": (liquid[::5], None, 40),
        "288 atoms, SOAP": (large, None, 40),
        "197 atoms, SOAP mu1nu1": (liquid[::5], Soap.of(liquid, compression="mu1nu1"), 40),
        "197 atoms, SOAP by dscribe": (liquid[::5], Soap.of(liquid, engine="dscribe"), 40),
        "9 atoms, features of PaiNN": (ethanol, features, 60),
    }
    found: dict[str, dict[str, float]] = {}
    for name, (frames, descriptor, n) in cases.items():
        scorer = LiveScorer(OODModel.fit(frames, descriptor))
        taken = []
        for i in range(n + 3):
            f = frames.frame(i % len(frames))
            begin = time.process_time()
            scorer.score(f["numbers"], f["positions"], f["cell"], f["pbc"])
            taken.append(1e3 * (time.process_time() - begin))
        quartiles = np.percentile(taken[3:], [25, 50, 75]).round(3).tolist()
        found[name] = {"cpu_ms": quartiles[1], "quartiles": quartiles, "numbers_per_atom": scorer.model.descriptor.size}
        if descriptor is features:
            rows = features(frames[:1])
            begin = time.process_time()
            for _ in range(300):
                scorer.score_rows(f["numbers"], rows)
            found[name]["cpu_ms_when_evaluated_anyway"] = round(1e3 * (time.process_time() - begin) / 300, 4)
    return {"live": found}


JOBS = {
    "ours": shift_ours,
    "ours_with_limits": shift_model,
    "plain": lambda out, threads: shift_peer(out, threads, "float64"),
    "float32": lambda out, threads: shift_peer(out, threads, "float32"),
    "stream": stream,
    "live": live,
}


def measure(name: str, threads: int, folder: Path) -> dict:
    """Run a job in a process of its own and watch its memory."""
    env = {**os.environ, **{f"{lib}_NUM_THREADS": str(threads) for lib in ("OMP", "MKL", "OPENBLAS", "NUMBA")}}
    out = folder / f"{name}_{threads}.npz"
    command = [sys.executable, __file__, "--job", name, str(threads), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family))
        except psutil.Error:
            pass
        time.sleep(0.05)
    assert process.stdout is not None
    text = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{name} with {threads} threads failed")
    said = json.loads(text.strip().splitlines()[-1])
    parts = said.get("parts_wall_cpu_s", {}).values()
    line = {"job": name, "threads": threads, "wall_s": round(sum(p[0] for p in parts), 2)}
    line |= {"cpu_s": round(sum(p[1] for p in parts), 2), "peak_mib": round(peak / 2**20, 1), **said}
    if "base_mib" in line:
        line["base_mib"] = round(line["base_mib"], 1)
    return line


def compare(folder: Path, a: str, b: str, threads: int) -> dict:
    """How far two jobs' numbers lie apart."""
    x, y = (np.load(folder / f"{name}_{threads}.npz") for name in (a, b))
    return {
        "explained_percent": [round(100 * float(v), 3) for v in x["explained"]],
        "explained_points_apart": float(np.abs(100 * (x["explained"] - y["explained"])).max()),
        "mean_q": [float(x["q"].mean()), float(y["q"].mean())],
        "q_apart_relative_max": float(np.abs(x["q"] / y["q"] - 1).max()),
        "q_apart_relative_median": float(np.median(np.abs(x["q"] / y["q"] - 1))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="shift, stream, live; all when left out")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2], help="of the part shift")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        name, threads, out = args.job
        print(json.dumps(JOBS[name](Path(out), int(threads))))
        return
    parts = args.parts or ["shift", "stream", "live"]
    command = " ".join(["python benchmarks/soap_pca.py", *args.parts])
    RESULTS.parent.mkdir(exist_ok=True)

    def keep(line: dict) -> None:
        line["command"] = command
        print(json.dumps(line), flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for threads in args.threads if "shift" in parts else []:
            lines = {job: measure(job, threads, folder) for job in ("ours", "float32", "plain", "ours_with_limits")}
            ours = lines["ours"]
            for job in ("float32", "plain"):
                ours[f"times_faster_than_{job}"] = round(lines[job]["wall_s"] / ours["wall_s"], 2)
                ours[f"times_less_cpu_than_{job}"] = round(lines[job]["cpu_s"] / ours["cpu_s"], 2)
                ours[f"beside_{job}"] = compare(folder, "ours", job, threads)
            for line in lines.values():
                keep(line)
        if "stream" in parts:
            grow(folder / "frames", STREAM[-1])
            keep(measure("stream", 2, folder))
        if "live" in parts:
            keep(measure("live", 1, folder))


if __name__ == "__main__":
    main()
