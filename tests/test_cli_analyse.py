"""`mlipkit analyse`: screens, JSON, pages, and one line for what cannot be analysed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlipkit import cli
from mlipkit.analysis.ood import OODModel
from mlipkit.data import FrameSet, samples, write
from mlipkit.runs.findings import names_of

SMALL = ("--n-max", "3", "--l-max", "2", "--no-matched")


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    cold, hot = samples.load("ethanol_300K")[:12], samples.load("ethanol_600K")[:12]
    write(tmp_path / "cold.extxyz", cold)
    write(tmp_path / "hot.extxyz", hot)
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def record(path: str | Path) -> dict:
    return json.loads(Path(path).read_text(), parse_constant=lambda text: pytest.fail(f"{text} in the JSON"))


def test_shift_of_two_files(work: Path, capsys):
    arguments = ("analyse", "shift", "cold.extxyz", "hot.extxyz", "--fit-on", "cold.extxyz", *SMALL)
    assert run(*arguments, "--json", "o.json", "--html", "pages/p.html", "--save", "m.safetensors") == 0
    out = capsys.readouterr().out
    assert out.startswith("hot: ")
    assert "outside the training space of cold" in out.splitlines()[0]
    data = record("o.json")
    assert data["command"] == "analyse shift"
    found = data["what"]["shift"]
    assert found["fit"]["on"] == ["cold"]
    assert data["figures"]["explained_pc1"] == {"value": found["fit"]["explained_percent"]["all"][0], "unit": "%"}
    assert data["what"]["sources"] == {"cold": "cold.extxyz", "hot": "hot.extxyz"}
    assert OODModel.load(data["paths"]["model"]).facts["frames"] == 12
    page = Path(data["paths"]["page"]).read_text()
    assert page.count('<div class="figure">') >= 8
    assert found["sentences"][0] in page
    assert "analyse_shift(sets, fit_on=[&#x27;cold&#x27;]" in page
    assert "http" not in page.split("</script>", 1)[1].replace("http://www.w3.org", "")


def test_the_python_of_a_page_gives_the_same_sentences(work: Path, capsys):
    import html
    import re

    for arguments in (
        ("shift", "cold.extxyz", "hot.extxyz", *SMALL, "--fit-on", "hot"),
        ("bonds", "cold.extxyz", "hot.extxyz", "--pair", "O-H", "--cut", "soft"),
        ("rdf", "cold.extxyz", "--pair", "C-C"),
        ("msd", "cold.extxyz", "--spacing", "2", "--origin", "first"),
        ("species", "cold.extxyz", "--spacing", "100"),
    ):
        assert run("analyse", *arguments, "--html", "p.html") == 0, arguments
        printed = capsys.readouterr().out
        text = Path("p.html").read_text()
        code = html.unescape(re.findall(r"In Python</p><pre>(.*?)</pre>", text, re.S)[0])
        exec(compile(code, "page", "exec"), {})
        first = capsys.readouterr().out.splitlines()[0]
        assert printed.splitlines()[0] == first, arguments


def test_a_joint_fit_and_the_same_file_twice(work: Path, capsys):
    assert run("analyse", "shift", "cold.extxyz", "cold.extxyz", *SMALL, "--json", "o.json") == 0
    assert capsys.readouterr().out.startswith("cold and cold (2) hold the same 12 structures.")
    assert record("o.json")["what"]["shift"]["fit"]["joint"]


def test_bonds_rdf_and_species(work: Path, capsys):
    assert run("analyse", "bonds", "cold.extxyz", "hot.extxyz", "--pair", "C-H", "--json", "b.json") == 0
    out = capsys.readouterr().out
    assert "hot differs from cold by" in out
    found = record("b.json")["what"]["bonds"]
    assert found["comparisons"][0]["pair"] == "C-H"
    assert found["bonds"][0]["per_frame"] == pytest.approx(5.0)
    assert found["bonds"][0]["values"]["mean"]["value"] == pytest.approx(1.1, abs=0.03)

    assert run("analyse", "rdf", "cold.extxyz", "--pair", "O-H", "--json", "r.json") == 0
    found = record("r.json")
    assert found["figures"]["peak_O-H_cold"]["value"] == pytest.approx(0.97, abs=0.05)
    assert found["what"]["rdf"]["normalise"] == "none"
    assert "neighbours per Å" in capsys.readouterr().out

    assert run("analyse", "species", "cold.extxyz", "--json", "s.json") == 0
    species = record("s.json")["what"]["species"]["sets"]["cold"]["species"]
    assert [row["species"] for row in species] == ["C2H6O"]
    assert species[0]["mean"] == 1.0


def test_species_of_a_run_and_its_reactions(work: Path, capsys):
    """A proton goes from oxygen to a chlorine and stays there: one reaction."""
    n = 40
    positions = np.zeros((n, 4, 3))
    positions[:, 1, 0], positions[:, 2, 0] = 0.96, -0.96
    positions[:, 3, 0] = 3.2
    positions[20:, 1, 0] = 3.2 - 1.28
    frames = FrameSet.from_arrays([8, 1, 1, 17], positions, trajectory=0, time=np.arange(n) * 500.0)
    write(work / "toy.extxyz", frames)
    assert run("analyse", "species", "toy.extxyz", "--json", "s.json", "--html", "s.html") == 0
    out = capsys.readouterr().out
    assert "1 reaction" in out
    assert "HCl" in out
    found = record("s.json")["what"]["species"]["sets"]["toy"]
    assert len(found["reactions"]) == 1
    assert found["reactions"][0]["time_ps"] == pytest.approx(10.0)


def test_msd_of_a_walk(work: Path, capsys):
    rng = np.random.default_rng(0)
    n, step, dt = 400, 0.1, 10.0
    walk = np.cumsum(step * rng.standard_normal((n, 60, 3)), axis=0)
    frames = FrameSet.from_arrays([18] * 60, walk)
    write(work / "walk.extxyz", frames)
    assert run("analyse", "msd", "walk.extxyz") == 1
    assert "--spacing" in capsys.readouterr().err
    assert run("analyse", "msd", "walk.extxyz", "--spacing", dt, "--element", "Ar", "--json", "m.json") == 0
    assert "D = " in capsys.readouterr().out
    value = record("m.json")["figures"]["diffusion_walk_Ar"]
    # <r²> = 3 step² per frame, less 1/60 of it for the centre of mass, and D = <r²> / 6t in cm²/s.
    assert value["value"] == pytest.approx(3 * step**2 * (59 / 60) / (6 * dt) * 0.1, rel=0.15)
    assert value["unit"] == "cm²/s"


def test_parity_of_a_potential_and_of_two_files(work: Path, capsys):
    arguments = ("analyse", "parity", "cold.extxyz", "--potential", "sample:ethanol_1000")
    assert run(*arguments, "--json", "p.json", "--html", "p.html") == 0
    assert "forces are off by" in capsys.readouterr().out
    found = record("p.json")
    error = found["figures"]["force_component_mae_cold"]
    assert error["unit"] == "eV/Å"
    assert 0 < error["value"] < 0.1
    assert "stress_voigt_mae_cold" not in found["figures"]

    from mlipkit.data import read

    frames = read("cold.extxyz")
    shifted = frames.with_labels(energy=frames.energy + 0.009, forces=1.1 * frames.forces)
    write(work / "guess.extxyz", shifted[::-1])
    assert run("analyse", "parity", "cold.extxyz", "guess.extxyz", "--json", "q.json") == 0
    figures = record("q.json")["figures"]
    assert figures["energy_bias_cold"]["value"] == pytest.approx(0.001)
    softening = record("q.json")["what"]["parity"]["sets"]["cold"]["elements"][0]["softening_slope"]
    assert softening == pytest.approx(1.1)
    assert "too stiff" in capsys.readouterr().out


WRONG = [
    (["shift"], 2, "Missing"),
    (["shift", "none.extxyz"], 1, "none.extxyz"),
    (["shift", "empty.extxyz"], 1, "empty.extxyz"),
    (["shift", "cold.extxyz", "--rule", "leave-one-out"], 2, "did you mean 'leave_one_run_out'"),
    (["shift", "cold.extxyz", "--components", "-1"], 2, "--components"),
    (["shift", "cold.extxyz", "--compression", "zip"], 1, "no such compression"),
    (["shift", "cold.extxyz", "--html", "/proc/no/page.html"], 1, "/proc/no/page.html: cannot be written"),
    (["shift", "cold.extxyz", "--html", "."], 1, "is a folder"),
    (["shift", "cold.extxyz@0", *SMALL], 1, "at least two frames"),
    (["shift", "atoms.extxyz", *SMALL], 1, "only frames of a single atom"),
    (["bonds", "cold.extxyz", "--cut", "long"], 2, "hard, soft or a length"),
    (["bonds", "cold.extxyz", "--pair", "C-Cl"], 1, "no Cl in the set"),
    (["bonds", "cold.extxyz", "--pair", "CH"], 1, "not a pair of elements"),
    (["rdf", "cold.extxyz", "--normalise", "density"], 1, "cold: rdf: frame 0"),
    (["msd", "bare.extxyz"], 1, "--spacing"),
    (["msd", "cold.extxyz", "--window", "3"], 2, "PS,PS"),
    (["msd", "back.extxyz"], 1, "frames are not in order of time"),
    (["parity", "cold.extxyz"], 2, "--potential"),
    (["parity", "cold.extxyz", "hot.extxyz"], 1, "another structure than the labelled one"),
    (["parity", "bare.extxyz", "--potential", "sample:ethanol_1000"], 1, "no label to compare with"),
    (["parity", "cold.extxyz", "--potential", "sample:ethanol_9"], 1, "no sample potential"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), WRONG, ids=lambda x: " ".join(x) if isinstance(x, list) else None
)
def test_what_cannot_be_analysed_is_one_line(arguments, code, said, work: Path, capsys):
    cold = samples.load("ethanol_300K")[:6]
    (work / "empty.extxyz").write_text("")
    write(work / "atoms.extxyz", FrameSet.from_arrays([1, 8], np.zeros((2, 3)), [1, 1]))
    write(work / "bare.extxyz", FrameSet.from_arrays(cold.numbers, cold.positions, cold.n_atoms))
    back = FrameSet.from_arrays(cold.numbers, cold.positions, cold.n_atoms, time=np.arange(6)[::-1] * 1.0)
    write(work / "back.extxyz", back)
    assert run("analyse", *arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_names_are_short_and_their_own():
    places = [
        "a/x.extxyz",
        "b/x.extxyz",
        "sample:ethanol_300K",
        "runs/md_1/",
        "y.xyz.gz@::10",
        "y.xyz.gz@::10",
        "*.xyz",
    ]
    assert names_of(places) == ["a/x", "b/x", "ethanol_300K", "md_1", "y@::10", "y@::10 (2)", "*.xyz"]
