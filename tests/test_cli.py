"""The command `mlipkit`: one line on errors, exit codes, the JSON of every command, doctor, notebooks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlipkit import cli, lab
from mlipkit.cli.command import SCHEMA
from mlipkit.doctor import CHECKS, Item, examine
from mlipkit.errors import MlipkitError, SpecError
from mlipkit.runs import MDSpec, TrainSpec
from mlipkit.runs.options import options_of, parse_pairs, spec_from_options

CALC = """
from ase.calculators.emt import EMT
from ase.cluster import Octahedron

def emt():
    return EMT()

def cluster():
    return Octahedron("Cu", 2, 0)

def broken():
    raise RuntimeError("no engine\\nhere")
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "calc.py").write_text(CALC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("MLIPKIT_CORES", "8")
    return tmp_path


def run(*arguments: object, capsys=None) -> int:
    """Exit code of a command in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


WRONG = [
    (["md", "--temperatur", "3"], 2, "--temperature"),
    (["simulate"], 2, "No such command"),
    (["md", "--temperature", "hot"], 2, "temperature"),
    (["md", "--potential", "sample:ethanol_9999"], 1, "no sample potential"),
    (["md", "--start", "sample:ethanol_30K", "--potential", "calc.py:emt"], 1, "did you mean 'ethanol_300K'"),
    (["md", "--checks", "max_force"], 2, "name=value"),
    (["md", "--ensemble", "nve", "--friction", "1"], 2, "no effect"),
    (["train", "--data", "nowhere.xyz"], 1, "no such file"),
    (["train"], 2, "data: this field is needed"),
    (["train", "--data", "calc.py", "--model-encoder", "pain"], 2, "did you mean 'painn'"),
    (["train", "--data", "calc.py", "--model-features", "0"], 2, "model: features"),
    (["data", "report", "calc.py", "--units", "energy"], 2, "name=value"),
    (["run", "missing.yaml"], 1, "missing.yaml"),
    (["open", "nowhere"], 1, "no such folder"),
    (["data", "report", "calc.py"], 1, "calc.py"),
    (["data", "get", "md17_ethanl"], 1, "md17_ethanol"),
]


@pytest.mark.parametrize(("arguments", "code", "part"), WRONG, ids=[" ".join(case[0])[:40] for case in WRONG])
def test_an_error_is_one_line_and_an_exit_code(work: Path, capfd, arguments: list[str], code: int, part: str):
    assert run(*arguments) == code
    out, err = capfd.readouterr()
    assert part in err
    assert err.startswith("mlipkit: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in out + err


def test_debug_shows_the_traceback(work: Path):
    with pytest.raises(Exception, match="no such folder"):
        cli.main(["open", "nowhere", "--debug"])


def schema(record: dict) -> None:
    """What docs/runs.md promises of every JSON file."""
    types = {
        "schema": str, "mlipkit": str, "command": str, "arguments": list, "started": str, "seconds": float,
        "exit_code": int, "error": str | None, "what": dict, "figures": dict, "paths": dict,
    }  # fmt: skip
    assert set(record) == set(types)
    for name, kind in types.items():
        assert isinstance(record[name], kind), name
    assert record["schema"] == SCHEMA
    for name, figure in record["figures"].items():
        assert set(figure) == {"value", "unit"}, name
        assert isinstance(figure["value"], int | float), name
    for path in record["paths"].values():
        assert Path(path).exists()


def test_json_of_an_error(work: Path):
    assert run("md", "--temperature", "hot", "--json", "out/error.json") == 2
    record = json.loads(Path("out/error.json").read_text())
    schema(record)
    assert record["exit_code"] == 2
    assert "'hot'" in record["error"]


def test_json_that_cannot_be_written_is_one_line(work: Path, capfd):
    assert run("data", "list", "--json", work) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "--json" in lines[0]


def test_data_commands(work: Path, capfd):
    assert run("data", "list", "--json", "list.json") == 0
    record = json.loads(Path("list.json").read_text())
    schema(record)
    assert "ethanol_300K" in record["what"]["samples"]
    assert "md17_ethanol" in record["what"]["public"]
    assert "sample:ethanol_300K" in capfd.readouterr().out
    assert run("data", "report", "sample:ethanol_300K@:20", "--json", "report.json", "--html", "report.html") == 0
    record = json.loads(Path("report.json").read_text())
    schema(record)
    assert record["figures"]["frames_with_forces"] == {"value": 20, "unit": "frames"}
    assert "Plotly.newPlot" in Path("report.html").read_text()


@pytest.mark.full
def test_md_from_start_to_report(work: Path, capfd):
    arguments = ["md", "--potential", "calc.py:emt", "--start", "calc.py:cluster", "--steps", "30", "--stride", "10",
                 "--temperature", "100", "--name", "cu", "--json", "md.json"]  # fmt: skip
    assert run(*arguments) == 0
    record = json.loads(Path("md.json").read_text())
    schema(record)
    assert record["what"]["specification"] == MDSpec(
        potential="calc.py:emt", start="calc.py:cluster", steps=30, stride=10, temperature=100, name="cu"
    ).model_dump(mode="json")
    assert record["what"]["state"] == "completed"
    assert record["what"]["verdict"]["outcome"] == "ok"
    assert record["figures"]["steps_done"] == {"value": 30, "unit": "steps"}
    assert {"run", "trajectory", "specification", "log"} <= set(record["paths"])
    events = Path("runs/cu/events.jsonl").read_text()
    assert run(*arguments) == 0  # opened, not run again
    assert Path("runs/cu/events.jsonl").read_text() == events
    assert run("run", "runs/cu/spec.yaml") == 0
    assert Path("runs/cu/events.jsonl").read_text() == events
    assert run("open", "runs/cu", "--report", "--json", "open.json") == 0
    schema(json.loads(Path("open.json").read_text()))
    assert Path("runs/cu/report.html").stat().st_size > 1e6
    assert run("md", "--potential", "calc.py:broken", "--start", "calc.py:cluster") == 1
    err = capfd.readouterr().err
    assert "RuntimeError: no engine here" in err
    assert "Traceback" not in err
    failing = [
        "md",
        "--potential",
        "calc.py:emt",
        "--start",
        "calc.py:cluster",
        "--checks",
        "max_force=0.001",
        "--name",
        "bad",
    ]
    assert run(*failing, "--json", "bad.json") == 3
    assert json.loads(Path("bad.json").read_text())["what"]["state"] == "failed"


@pytest.mark.full
def test_following_a_resumed_run_that_crashes_is_an_error(work: Path, capfd):
    assert run("md", "--potential", "calc.py:broken", "--start", "calc.py:cluster", "--name", "broken") == 1
    assert run("open", "runs/broken") == 0
    capfd.readouterr()
    assert run("open", "runs/broken", "--resume", "--follow") == 1
    assert "no engine here" in capfd.readouterr().err


@pytest.mark.full
def test_ctrl_c_stops_the_run_and_what_was_to_follow_it(work: Path):
    command = [
        sys.executable, "-m", "mlipkit.cli", "md", "--potential", "calc.py:emt", "--start", "calc.py:cluster",
        "--steps", "1000000", "--name", "long", "--json", "md.json",
    ]  # fmt: skip
    # A test run that itself was started in the background ignores Ctrl-C, and what it starts would too.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while not Path("runs/long/trajectory.traj").exists():
        assert time.monotonic() < end, "the run never began"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "mlipkit: interrupted\n"
    record = json.loads(Path("md.json").read_text())
    schema(record)
    assert (record["exit_code"], record["what"]["state"]) == (130, "stopped")
    assert run("open", "runs/long") == 0  # looking at a stopped run is no interruption


@pytest.mark.parametrize("cls", [TrainSpec, MDSpec])
def test_every_field_is_an_option(cls):
    names = {parameter.name for parameter in options_of(cls)}
    flat = set()
    for name, field in cls.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        flat |= {f"{name}__{key}" for key in inner} if inner else {name}
    assert names == flat - {"kind", "version"}


def test_options_become_the_same_specification():
    values = {
        "data": ["a.xyz", "b.xyz"], "model__features": "32", "optimiser__ema_decay": "none",
        "keys": "forces=dft_forces, energy=E", "time_limit_s": "60", "name": "001",
    }  # fmt: skip
    spec = spec_from_options(TrainSpec, {**values, "max_steps": None})
    assert spec == TrainSpec(
        data=["a.xyz", "b.xyz"], model={"features": 32}, optimiser={"ema_decay": None},  # type: ignore[arg-type]
        keys={"forces": "dft_forces", "energy": "E"}, time_limit_s=60, name="001",
    )  # fmt: skip
    assert parse_pairs("max_force=40,overlap=false", "checks") == {"max_force": 40, "overlap": False}


def test_values_with_commas_stay_whole():
    assert parse_pairs("temperature=[50,60], steps=10", "--change") == {"temperature": [50, 60], "steps": 10}
    assert parse_pairs("checks={a: 1, b: 2},", "--change") == {"checks": {"a": 1, "b": 2}}
    found = parse_pairs("temperature=70,80,steps=10", "--change")
    assert MDSpec(**found).temperature == [70, 80]
    with pytest.raises(SpecError, match=r"--change: temperature: not a value.*\[50"):
        parse_pairs("temperature=[50,60", "--change")
    with pytest.raises(SpecError, match="not of the form name=value; found 70"):
        parse_pairs("70,80", "--change")


# ---- doctor


def test_doctor_says_one_line_per_item(work: Path, capfd):
    code = run("doctor", "--json", "doctor.json")
    record = json.loads(Path("doctor.json").read_text())
    schema(record)
    out = capfd.readouterr().out.strip().splitlines()
    assert len(out) == len(record["what"]["items"])
    assert all(line[:5].strip() in ("ok", "note", "fix") for line in out)
    names = {item["name"] for item in record["what"]["items"]}
    assert {"Python", "torch", "GPU", "threads", "nglview front end", "disk", "Chromium", "folder for runs"} <= names
    assert code == (1 if any(item["state"] == "fix" for item in record["what"]["items"]) else 0)


def test_doctor_finds_what_is_broken(work: Path, monkeypatch):
    import mlipkit.doctor as doctor

    def breaks(_: Path):
        raise OSError("disk on fire")

    monkeypatch.setattr(doctor, "CHECKS", (*CHECKS, breaks))
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    monkeypatch.setattr(doctor, "MIN_PYTHON", (99, 0))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.0.1")
    items = {item.name: item for item in examine(work)}
    for name in ("Python", "disk", "breaks", "mlipkit_widgets", "torch", "numpy"):
        assert items[name].state == "fix", name
    assert "disk on fire" in items["breaks"].found
    assert items["nglview front end"].state == "note"
    assert Item("a", "fix", "b", "c").line == "fix   a: b. c"


# ---- notebooks


def copied(folder: Path, text: str, name: str = "a.ipynb") -> lab.Copied:
    (result,) = lab.copy_notebooks(folder, {name: text.encode()})
    return result


def test_notebooks_are_never_overwritten(tmp_path: Path):
    folder = tmp_path / "notebooks"
    assert copied(folder, "first").what == "new"
    assert copied(folder, "first").what == "unchanged"
    (folder / "a.ipynb").write_text("mine")
    assert copied(folder, "first").what == "kept"  # nothing new is delivered
    assert sorted(path.name for path in folder.glob("*.ipynb")) == ["a.ipynb"]
    second = copied(folder, "second")
    assert second.what == "beside"
    assert second.path.read_text() == "second"
    assert second.path.name in second.sentence
    assert (folder / "a.ipynb").read_text() == "mine"
    assert copied(folder, "second").what == "kept"
    second.path.write_text("mine too")
    third = copied(folder, "third")
    assert third.path not in (second.path, folder / "a.ipynb")
    assert {path.read_text() for path in folder.glob("*.ipynb")} == {"mine", "mine too", "third"}


def test_a_stranger_s_file_of_the_same_name_is_kept(tmp_path: Path):
    (tmp_path / "a.ipynb").write_text("theirs")
    assert copied(tmp_path, "ours").what == "beside"
    assert (tmp_path / "a.ipynb").read_text() == "theirs"


def test_a_folder_for_notebooks_that_cannot_be_used(tmp_path: Path):
    notebooks = {"00_start_here.ipynb": b"{}"}
    lab.copy_notebooks(tmp_path, notebooks)
    (tmp_path / lab.DELIVERED).write_text("torn")
    assert [item.what for item in lab.copy_notebooks(tmp_path, notebooks)] == ["unchanged"]
    with pytest.raises(MlipkitError, match=r"00_start_here\.ipynb: notebooks cannot be kept here"):
        lab.copy_notebooks(tmp_path / "00_start_here.ipynb", notebooks)


def test_kernel_runs_this_python(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    folder = lab.register_kernel()
    assert folder == tmp_path / "env/share/jupyter/kernels/mlipkit"
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["argv"][0] == sys.executable
    # An environment that cannot be written: the user's own folder then.
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(sys, "prefix", str(blocked))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    assert lab.register_kernel() == tmp_path / "user/kernels/mlipkit"


def test_lab_copies_registers_and_opens_offline(tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setattr(lab, "shipped", lambda: {lab.START: b"{}"})
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    assert run("lab", tmp_path / "nb", "--copy-only", "--json", tmp_path / "lab.json") == 0
    record = json.loads((tmp_path / "lab.json").read_text())
    schema(record)
    assert record["what"]["notebooks"] == {lab.START: "new"}
    (tmp_path / "nb" / lab.START).write_text("mine")
    monkeypatch.setattr(lab, "shipped", lambda: {lab.START: b"{ }"})
    capfd.readouterr()
    assert run("lab", tmp_path / "nb", "--copy-only") == 0
    assert "was kept" in capfd.readouterr().out
    command = lab.lab_command(tmp_path / "nb", ["--no-browser"])
    assert str(tmp_path / "nb" / lab.START) in command
    assert "--LabApp.news_url=None" in command
    assert command[-1] == "--no-browser"


def test_starting_the_command_is_quick_and_loads_no_torch():
    code = "import sys; import mlipkit.cli; assert 'torch' not in sys.modules; assert 'IPython' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
