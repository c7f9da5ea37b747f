"""The registry of public sets: what it says, where it looks, what it says without a network."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mlipkit.data import public, public_sets, read_source
from mlipkit.errors import DataError
from mlipkit.units import KCAL_PER_MOL


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(data folder, cache folder), both empty and private."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    monkeypatch.setenv("MLIPKIT_DATA", str(data))
    monkeypatch.setenv("MLIPKIT_CACHE", str(cache))
    return data, cache


def ethanol_npz(**more) -> bytes:
    out = io.BytesIO()
    positions = np.random.default_rng(0).normal(size=(5, 9, 3))
    energy = np.arange(5.0)[:, None] - 97195
    np.savez(out, R=positions, z=np.array([6, 6, 8, 1, 1, 1, 1, 1, 1]), E=energy, F=np.zeros((5, 9, 3)), **more)
    return out.getvalue()


@pytest.fixture
def server(tmp_path):
    """Address of a server on this machine, and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", folder
    running.shutdown()
    running.server_close()
    thread.join()


def test_registry_is_complete_and_honest():
    assert {one.name for one in public.list()} == set(public.names())
    for family, count in {"md17_": 10, "rmd17_": 10, "md22_": 7, "iso17_": 3}.items():
        assert sum(name.startswith(family) for name in public.names()) == count
    assert {"aimd_chig", "taip_water", "ipip", "bias_chclca", "dynamic_training"} <= set(public.names())
    for one in public.list():
        card = public.card(one.name)
        assert all(card[key] for key in ("title", "licence", "citation", "address", "file")), one.name
        assert re.match(r"https?://", one.address)
        assert one.url is None or re.match(r"https?://", one.url)
        assert one.checksum is None or re.fullmatch(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})", one.checksum)
        assert one.url or one.note, f"{one.name}: says neither where to fetch it nor what to do by hand"


def test_a_file_in_the_data_folder_is_read(folders):
    (folders[0] / "md17_ethanol.npz").write_bytes(ethanol_npz())
    frames = public.get("md17_ethanol", index="1:3", download=False)
    np.testing.assert_allclose(frames.energy, (np.array([1.0, 2.0]) - 97195) * KCAL_PER_MOL)
    assert len(read_source("public:md17_ethanol@-1")) == 1


def test_a_folder_filled_by_hand(folders):
    folder = folders[0] / "aimd_chig"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    (folder / "b.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-2\nH 0 0 0\n")
    (folder / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-1\nH 0 0 0\n")
    assert public.get("aimd_chig").energy.tolist() == [-1, -2]


def test_real_folder_of_a_method_paper(shared_data, monkeypatch):
    monkeypatch.setenv("MLIPKIT_DATA", str(shared_data))
    frames = public.get("bias_chclca", download=False)
    assert len(frames) == 312
    assert frames.has("energy").all()


def test_download_checks_and_keeps(folders, server, monkeypatch):
    address, served = server
    content = ethanol_npz()
    (served / "md17_ethanol.npz").write_bytes(content)
    one = replace(
        public.find("md17_ethanol"),
        url=f"{address}/md17_ethanol.npz",
        checksum=f"sha256:{hashlib.sha256(content).hexdigest()}",
    )
    monkeypatch.setitem(public_sets.SETS, "md17_ethanol", one)
    assert len(public.get("md17_ethanol")) == 5
    (served / "md17_ethanol.npz").unlink()
    assert len(public.get("md17_ethanol")) == 5  # from the cache
    (folders[1] / "md17_ethanol.npz").write_bytes(ethanol_npz(extra=np.zeros(1)))
    with pytest.raises(DataError, match=r"md17_ethanol: md17_ethanol\.npz: the file is not the published one"):
        public.get("md17_ethanol")


def test_wrong_checksum_of_a_download(folders, server, monkeypatch):
    address, served = server
    (served / "x.npz").write_bytes(ethanol_npz())
    one = replace(public.find("md17_ethanol"), url=f"{address}/x.npz", checksum=f"sha256:{'0' * 64}")
    monkeypatch.setitem(public_sets.SETS, "md17_ethanol", one)
    with pytest.raises(DataError, match="not the published one") as caught:
        public.get("md17_ethanol")
    assert "\n" not in str(caught.value)
    assert not (folders[1] / "md17_ethanol.npz").exists()


def test_member_of_an_archive(folders, server, monkeypatch):
    address, served = server
    with tarfile.open(served / "rmd17.tar.bz2", "w:bz2") as archive:
        content = ethanol_npz()
        entry = tarfile.TarInfo("rmd17/npz_data/rmd17_ethanol.npz")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    for name in ("rmd17_ethanol", "rmd17_uracil"):
        one = replace(public.find(name), url=f"{address}/rmd17.tar.bz2", checksum=None)
        monkeypatch.setitem(public_sets.SETS, name, one)
    assert len(public.get("rmd17_ethanol")) == 5
    with pytest.raises(DataError, match=r"the archive holds no 'rmd17/npz_data/rmd17_uracil\.npz'"):
        public.get("rmd17_uracil")
    (folders[1] / "rmd17.tar.bz2").unlink()
    assert len(public.get("rmd17_ethanol", download=False)) == 5  # extracted once


def test_no_network_says_what_to_put_where(folders, monkeypatch):
    one = replace(public.find("md22_dha"), url="http://127.0.0.1:9/md22_DHA.npz")
    monkeypatch.setitem(public_sets.SETS, "md22_dha", one)
    with pytest.raises(DataError) as caught:
        public.get("md22_dha")
    message = str(caught.value)
    assert "http://127.0.0.1:9/md22_DHA.npz" in message
    assert str(folders[0] / "md22_DHA.npz") in message
    assert "could not be fetched (" in message
    assert "\n" not in message


def test_by_hand_only(folders):
    with pytest.raises(DataError, match=r"dynamic_training.*has to be opened by hand.*m9\.figshare\.28498778"):
        public.get("dynamic_training")


def test_without_permission_to_download(folders):
    with pytest.raises(DataError, match="is not on this machine"):
        public.get("md17_uracil", download=False)


def test_an_iso17_data_base(folders):
    """The layout of ISO17: labels as key-value pairs and data of an ASE data base."""
    from ase import Atoms
    from ase.db import connect

    folder: Path = folders[0] / "iso17_reference"
    folder.mkdir()
    with connect(str(folder / "reference.db")) as base:
        for k in range(3):
            atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0 + k]])
            base.write(atoms, total_energy=-10.0 - k, data={"atomic_forces": np.full((2, 3), float(k))})
    frames = public.get("iso17_reference", download=False)
    assert frames.energy.tolist() == [-10, -11, -12]
    assert frames.forces[4].tolist() == [2, 2, 2]
    assert len(public.get("iso17_reference", index="::2", download=False)) == 2


def test_schnetpack_data_base_states_its_units(tmp_path):
    from ase import Atoms
    from ase.db import connect

    from mlipkit.data.read import read_with_report
    from mlipkit.units import BOHR

    path = tmp_path / "md.db"
    with connect(str(path)) as base:
        base.metadata = {
            "_property_unit_dict": {"energy": "kcal/mol", "forces": "kcal/mol/Bohr"},
            "_distance_unit": "Bohr",
        }
        data = {"energy": np.array([-2.0]), "forces": np.ones((2, 3))}
        base.write(Atoms("H2", positions=[[0, 0, 0], [0, 0, 1.4]]), data=data)
    frames, report = read_with_report(path)
    np.testing.assert_allclose(frames.energy, -2 * KCAL_PER_MOL)
    np.testing.assert_allclose(frames.forces, KCAL_PER_MOL / BOHR)
    np.testing.assert_allclose(frames.positions[1, 2], 1.4 * BOHR)
    assert "energy in kcal/mol" in report.notes()[0]
