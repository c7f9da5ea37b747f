"""Child process of the shift explorer: fits and scores, also frames that a run is still writing.

    python -m mlipkit.runs.shift_job FOLDER

A job is a folder with ``job.json``; the answers are files in it that only grow, so that the notebook reads what is new:

=============  ========================================================================================
state.json     phase, words, share done, per set the number of frames and G; or the error
model          the fitted `OODModel`
N.G.scores     float32, one row per atom of set N: k scores, Q, T², limit; NaN for a frame without finite positions
N.G.uids       uint64, one per frame of set N, when it is a run; G counts how often the set began anew
N.error        float32, one per atom: |predicted - labelled force|, eV/Å
N.embedding    float32, two per atom: t-SNE, NaN where an atom was not embedded
=============  ========================================================================================
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.errors import MlipkitError
from mlipkit.runs.folder import write_text

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.analysis.ood import OODModel

CHUNK_ATOMS = 4000
"""Atoms scored between two reports."""
WAIT_S = 0.15
LAST_COLUMNS = 3
"""Columns behind the scores: Q, T², limit."""
SIGMAS = 2.0
"""Standard deviations on both sides of the mean that count as usual."""
MODEL = "model.safetensors"
MOST_EMBEDDED = 4000
EMBED_COMPONENTS = 30


class Job:
    """One folder of work.

    Args:
        folder: holds ``job.json``: ``sets`` (``{"frames": folder}`` or ``{"run": folder, "replica": n}``), ``model``
            (file or null), ``fit_on`` (numbers of sets), ``components``, ``options``, ``potential``, ``embed``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.parent = folder, os.getppid()
        self.asked = json.loads((folder / "job.json").read_text())
        self.state: dict[str, Any] = {
            "phase": "computing", "text": "Reading", "done": 0.0, "error": None,
            "sets": [{"frames": 0, "generation": 0, "forces": False, "embedded": False} for _ in self.asked["sets"]],
        }  # fmt: skip
        self.sets: list[FrameSet | None] = [
            FrameSet.open(one["frames"]) if "frames" in one else None for one in self.asked["sets"]
        ]

    def say(self, text: str, done: float | None = None) -> None:
        """Report; ends the process when nobody listens any more."""
        if os.getppid() != self.parent:
            sys.exit(0)
        self.state["text"] = text
        if done is not None:
            self.state["done"] = done
        write_text(self.folder / "state.json", json.dumps(self.state), durable=False)

    def run(self) -> None:
        """All that was asked for, one after the other."""
        if self.asked.get("embed"):
            self.embed()
        else:
            model = self.fitted()
            self.score(model)
            self.force_errors()
            self.state["phase"] = "ready"
            self.say("", 1.0)
            self.follow(model)
        self.state["phase"] = "ready"
        self.say("", 1.0)

    def fitted(self) -> OODModel:
        from mlipkit.analysis.ood import OODModel

        if self.asked["model"]:
            self.say("Opening the model")
            model = OODModel.load(self.asked["model"])
        else:
            parts = [frames for i in self.asked["fit_on"] if (frames := self.sets[i]) is not None]
            frames = FrameSet.concat(parts)
            self.say(f"Fitting the components on {len(frames)} frames", 0.02)
            model = OODModel.fit(frames, self.descriptor(), components=self.asked["components"])
        model.save(self.folder / MODEL)
        explained = [] if model.per_element else model.pca.explained.tolist()
        self.state |= {"components": model.k, "explained": explained, "bands": {}, "hash": model.descriptor.hash}
        if (limits := model.limits.get("q")) is not None:
            low, high = limits.mean - SIGMAS * limits.std, limits.limit
            self.state["bands"] = {
                int(z): [max(0.0, float(a)), float(b)] for z, a, b in zip(limits.elements, low, high, strict=True)
            }
        return model

    def descriptor(self) -> Any:
        from mlipkit.analysis.soap import Soap

        # Species of all sets: what is scored later must be known when the fit is made.
        known = [frames for frames in self.sets if frames is not None]
        starts = [frames for one in self.asked["sets"] if "run" in one for frames in self.first_frames(one)]
        return Soap.of(*known, *starts, **self.asked["options"])

    def first_frames(self, one: dict[str, Any]) -> list[FrameSet]:
        """The first frame of a run, waiting for it while the run is active."""
        from mlipkit.runs import Run
        from mlipkit.runs.frames import RunFrames

        run = Run(one["run"])
        frames = RunFrames(run.replica_folder(one["replica"]))
        while not frames.refresh() or not len(frames):
            if not run.active:
                return []
            self.say(f"Waiting for the first frame of {run.name}")
            time.sleep(WAIT_S)
        return [FrameSet.from_atoms([frames[0]])]

    def score(self, model: OODModel) -> None:
        total = sum(len(frames) for frames in self.sets if frames is not None) or 1
        done = 0
        for number, frames in enumerate(self.sets):
            for first, last in _chunks(frames) if frames is not None else ():
                assert frames is not None
                self.append(number, model, frames[first:last])
                done += last - first
                self.say(f"Scoring frame {done} of {total}", 0.3 + 0.6 * done / total)

    def append(self, number: int, model: OODModel, frames: FrameSet) -> None:
        scores = model.score(frames)
        self._write(number, "scores", np.column_stack([scores.projections, scores.q, scores.t2, scores.limit]), "<f4")
        if "run" in self.asked["sets"][number]:
            self._write(number, "uids", frames.structure_hashes, "<u8")
        self.state["sets"][number]["frames"] += len(frames)

    def append_images(self, number: int, model: OODModel, images: list[Atoms]) -> None:
        """Frames of a run; one that flew apart into what is no number gets no scores, and does not stop the others."""
        if all(np.isfinite(atoms.positions).all() for atoms in images):
            self.append(number, model, FrameSet.from_atoms(images))
            return
        for atoms in images:
            if np.isfinite(atoms.positions).all():
                self.append(number, model, FrameSet.from_atoms([atoms]))
                continue
            self._write(number, "scores", np.full((len(atoms), model.k + LAST_COLUMNS), np.nan), "<f4")
            self._write(number, "uids", np.zeros(1), "<u8")
            self.state["sets"][number]["frames"] += 1

    def _write(self, number: int, name: str, values: np.ndarray, dtype: str) -> None:
        generation = self.state["sets"][number]["generation"]
        with open(self.folder / f"{number}.{generation}.{name}", "ab") as file:
            file.write(np.ascontiguousarray(values, dtype).tobytes())

    def force_errors(self) -> None:
        if not self.asked["potential"]:
            return
        from mlipkit.models import load, predict

        self.say("Opening the potential", 0.9)
        potential = load(self.asked["potential"])
        for number, frames in enumerate(self.sets):
            if frames is None or not frames.has("forces").any():
                continue
            with open(self.folder / f"{number}.error", "wb") as file:
                for first, last in _chunks(frames):
                    part = frames[first:last]
                    miss = np.linalg.norm(np.asarray(predict(potential, part).forces) - part.forces, axis=1)
                    file.write(np.ascontiguousarray(miss, "<f4").tobytes())
                    self.say(f"Force errors, frame {last} of {len(frames)}", 0.9 + 0.1 * last / len(frames))
            self.state["sets"][number]["forces"] = True

    def follow(self, model: OODModel) -> None:
        """Score the frames of runs as they come, until all have ended and nothing is left."""
        from mlipkit.runs import Run
        from mlipkit.runs.frames import RunFrames

        watched = {
            number: (Run(one["run"]), RunFrames(Run(one["run"]).replica_folder(one["replica"])))
            for number, one in enumerate(self.asked["sets"]) if "run" in one
        }  # fmt: skip
        while watched:
            news = False
            for number, (run, frames) in list(watched.items()):
                active = run.active
                grown, state = frames.refresh(), self.state["sets"][number]
                if grown and frames.first_last_step < state["frames"]:
                    self.begin_anew(number, frames.first_last_step)
                while state["frames"] < len(frames):
                    first = state["frames"]
                    last = min(len(frames), first + max(1, CHUNK_ATOMS // len(frames[first])))
                    self.append_images(number, model, [frames[i] for i in range(first, last)])
                    self.say(f"Scoring frame {last} of {run.name}")
                    news = True
                    if last - first > 1:
                        break
                if not active and not grown and state["frames"] >= len(frames):
                    frames.close()
                    del watched[number]
            self.say("")
            if not news:
                time.sleep(WAIT_S)

    def begin_anew(self, number: int, kept: int) -> None:
        """The last steps one by one have taken the place of stored frames: forget those after `kept`."""
        state = self.state["sets"][number]
        for name in ("scores", "uids"):
            # A file that may be read at this moment is left as it is.
            whole = (self.folder / f"{number}.{state['generation']}.{name}").read_bytes()
            part = whole[: len(whole) // state["frames"] * kept]
            (self.folder / f"{number}.{state['generation'] + 1}.{name}").write_bytes(part)
        state["frames"], state["generation"] = kept, state["generation"] + 1

    def embed(self) -> None:
        """t-SNE of some thousand atoms of whole frames, spread evenly over the sets, after 30 principal components."""
        from mlipkit.analysis.embedding import tsne
        from mlipkit.analysis.pca import fit_pca

        descriptor, X, where = self.descriptor(), [], []
        many = sum(int(frames.offsets[-1]) for frames in self.sets if frames is not None)
        step = max(1, -(-many // MOST_EMBEDDED))
        for number, frames in enumerate(self.sets):
            rows = range(0, len(frames) if frames is not None else 0, step)
            for count, row in enumerate(rows):
                assert frames is not None
                X.append(descriptor(frames[row : row + 1]))
                where.append((number, row))
                self.say(f"Descriptors of frame {count + 1} of {len(rows)}", 0.4 * (count + 1) / len(rows))
        table = np.concatenate(X)
        self.say(f"t-SNE of {len(table)} atoms", 0.5)
        k = min(EMBED_COMPONENTS, len(table) - 1, table.shape[1])
        reduced = fit_pca([table.copy()], k=k).transform(table.copy())
        flat = tsne(reduced).points
        at = 0
        found = [np.full((int(frames.offsets[-1]), 2), np.nan, np.float32) if frames is not None else None
                 for frames in self.sets]  # fmt: skip
        for (number, row), rows_of in zip(where, X, strict=True):
            frames, into = self.sets[number], found[number]
            assert frames is not None
            assert into is not None
            first = int(frames.offsets[row])
            into[first : first + len(rows_of)] = flat[at : at + len(rows_of)]
            at += len(rows_of)
        for number, values in enumerate(found):
            if values is not None:
                (self.folder / f"{number}.embedding").write_bytes(values.astype("<f4").tobytes())
                self.state["sets"][number]["embedded"] = True


def _chunks(frames: FrameSet) -> Iterator[tuple[int, int]]:
    first = 0
    while first < len(frames):
        last = int(np.searchsorted(frames.offsets, frames.offsets[first] + CHUNK_ATOMS, side="right")) - 1
        last = min(max(last, first + 1), len(frames))
        yield first, last
        first = last


def main(folder: str) -> None:
    job = Job(Path(folder))
    try:
        job.run()
    except Exception as error:
        told = str(error) if isinstance(error, MlipkitError) else f"{type(error).__name__}: {error}"
        job.state |= {"phase": "failed", "error": told}
        job.say("")
        raise


if __name__ == "__main__":
    main(sys.argv[1])
