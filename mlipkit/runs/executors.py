"""Where the worker process of a run is started: this machine (default) or anything Dask reaches."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mlipkit import events
from mlipkit.errors import require
from mlipkit.runs import process
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.interpreters import interpreter
from mlipkit.runs.log import EventLog
from mlipkit.runs.run import spec_in


class Executor(Protocol):
    """Starts ``python -m mlipkit.runs.worker FOLDER`` somewhere and returns at once.

    The returned record goes into `pid.json`: the process (see `mlipkit.runs.process.describe`), or
    ``{"submitted": True}`` when it is not known yet.
    """

    def submit(self, folder: Path, cwd: Path, environment: Mapping[str, str]) -> dict[str, Any]: ...


def worker_environment(threads: int) -> dict[str, str]:
    """Environment a worker must be born with.

    The two malloc settings keep freed blocks in the process (17 to 55 thousand page faults less per call of a model);
    thread limits must stand before the numeric libraries are loaded.
    """
    limits = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
    return {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "-1",
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(limits, str(threads)),
    }  # fmt: skip


def command(folder: Path) -> list[str]:
    """Command line of the worker of a run folder, with the Python that its specification names."""
    files = RunFolder(folder)
    python = spec_in(files).python
    base = Path(files.read("launch.json").get("cwd", folder))
    return [interpreter(python, base), "-m", "mlipkit.runs.worker", str(folder)]


class LocalExecutor:
    """A child process of this one, in a session of its own: it outlives the notebook and ignores its Ctrl-C."""

    def submit(self, folder: Path, cwd: Path, environment: Mapping[str, str]) -> dict[str, Any]:
        with open(folder / "log.txt", "ab") as log:
            child = subprocess.Popen(
                command(folder), cwd=cwd, env={**os.environ, **environment}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        record = process.describe(child.pid)
        process.lower_priority(child.pid)
        process.session_niceness(process.NICENESS, child.pid)
        # Collects the child when it ends; without this it would stay as a zombie as long as the notebook lives.
        threading.Thread(target=child.wait, name=f"reaper {folder.name}", daemon=True).start()
        return record


class DaskExecutor:
    """Runs on the workers of a `dask.distributed` client, for example of a `dask_jobqueue.SLURMCluster`.

    The folder must be reachable under the same path there. Each run is still a process of its own.

    Args:
        client: a `distributed.Client`, or the address of a scheduler.
    """

    def __init__(self, client: Any) -> None:
        if isinstance(client, str):
            client = require("distributed", "dask", "running on a Dask cluster").Client(client)
        self.client = client

    def submit(self, folder: Path, cwd: Path, environment: Mapping[str, str]) -> dict[str, Any]:
        distributed = require("distributed", "dask", "running on a Dask cluster")
        future = self.client.submit(
            run_worker, str(folder), str(cwd), dict(environment), pure=False, key=f"{folder.name}-{os.urandom(4).hex()}"
        )
        future.add_done_callback(lambda done: _note_failure(folder, done))
        distributed.fire_and_forget(future)
        return {"submitted": True}


def run_worker(folder: str, cwd: str, environment: dict[str, str]) -> int:
    """Body of a Dask task: start the worker process, wait for its end, return its exit code."""
    with open(Path(folder) / "log.txt", "ab") as log:
        child = subprocess.run(
            command(Path(folder)), cwd=cwd, env={**os.environ, **environment}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    return child.returncode


def _note_failure(folder: Path, future: Any) -> None:
    """A task that never became a process must not look queued for ever."""
    files = RunFolder(folder)
    record = files.read("pid.json")
    if future.status in ("error", "cancelled") and record.get("submitted"):
        log = EventLog(files.events)
        log(events.Finished("crashed", f"Dask could not start the worker: {future.status}"))
        log.close()
