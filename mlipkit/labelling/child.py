"""A child process that holds one engine: ``python -m mlipkit.labelling.child``.

It reads one JSON object per line from its standard input and answers each with one line. The first holds the recipe;
the answer says that the engine is built, or why not. Every other one is a frame; the answer holds its labels or the
engine's reason for having none. Whatever the engine prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import IO, Any

WATCH_S = 1.0


def main() -> int:
    """Answer until the input ends."""
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    # Engines in Fortran print to descriptor 1, which must not end up among the answers.
    os.dup2(2, 1)
    lines = iter(sys.stdin.buffer.readline, b"")
    first = json.loads(next(lines))
    sys.path[:] = first["sys_path"]
    from mlipkit.errors import MlipkitError
    from mlipkit.labelling.makers import build

    try:
        maker = build(first["recipe"])
        _say(answers, {"name": maker.name, "describe": maker.describe()})
    except Exception as error:
        _say(answers, {"error": str(error) if isinstance(error, MlipkitError) else _words(error)})
        return 1
    if "torch" in sys.modules:
        # As in the worker of a run: products of subnormal numbers are more than ten times slower.
        sys.modules["torch"].set_flush_denormal(True)
    for line in lines:
        _say(answers, answer(maker, json.loads(line)))
    return 0


def answer(maker: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Labels of one frame as plain data, or the reason why there are none, with wall and CPU seconds."""
    import numpy as np
    from ase import Atoms

    from mlipkit.errors import MlipkitError

    atoms = Atoms(request["numbers"], np.reshape(request["positions"], (-1, 3)), cell=request["cell"],
                  pbc=request["pbc"], info={"uid": request["uid"]})  # fmt: skip
    wall, cpu = time.perf_counter(), time.process_time()
    found: dict[str, Any]
    try:
        labels = maker.label(atoms)
        found = {
            "energy": float(labels.energy), "forces": np.asarray(labels.forces, np.float64).tolist(),
            "stress": None if labels.stress is None else np.asarray(labels.stress, np.float64).tolist(),
        }  # fmt: skip
    except MlipkitError as error:
        found = {"error": str(error)}
    except MemoryError:
        found = {"error": "out of memory"}
    except Exception as error:
        found = {"error": _words(error)}
    return {**found, "seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def _say(answers: IO[str], record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _die_with_parent() -> None:
    """No engine computes on for nobody when the process that asked was killed."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    if sys.platform != "linux":
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
