"""Public data sets that mlipkit can fetch or read: where they are, under which licence, how to cite them.

Nothing here is guessed: a licence that the address does not state is given as such, a checksum that is not published or
was not computed from the file is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_STATED = "not stated at the address"
KCAL: Mapping[str, str] = {"energy": "kcal/mol", "length": "Å"}


@dataclass(frozen=True)
class PublicSet:
    """One public data set.

    Attributes:
        name: how mlipkit calls it (``public:NAME``).
        title: what it is.
        licence: of the data, as stated at the address.
        citation: the paper to cite.
        address: DOI or page where people find it.
        url: direct address of the file, None where the record has to be opened by hand.
        file: name of the downloaded file.
        member: path inside an archive, None when the file itself is read.
        checksum: ``sha256:...`` or ``md5:...`` of the downloaded file, None when not known.
        level: level of theory.
        frames: number of frames as published, None when not known.
        keys, units, format: passed to `mlipkit.data.read`.
        note: what a user should know before using it.
    """

    name: str
    title: str
    licence: str
    citation: str
    address: str
    file: str
    url: str | None = None
    member: str | None = None
    checksum: str | None = None
    level: str = ""
    frames: int | None = None
    keys: Mapping[str, str | None] | None = None
    units: Mapping[str, str] | None = None
    format: str | None = None
    note: str = ""
    elements: tuple[str, ...] = field(default=())

    def card(self) -> dict[str, Any]:
        """Plain dictionary of everything above."""
        return asdict(self)


_MD17_FILES = {
    "aspirin": "md17_aspirin.npz",
    "azobenzene": "azobenzene_dft.npz",
    "benzene": "md17_benzene2017.npz",
    "ethanol": "md17_ethanol.npz",
    "malonaldehyde": "md17_malonaldehyde.npz",
    "naphthalene": "md17_naphthalene.npz",
    "paracetamol": "paracetamol_dft.npz",
    "salicylic": "md17_salicylic.npz",
    "toluene": "md17_toluene.npz",
    "uracil": "md17_uracil.npz",
}
_RMD17 = ("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene", "paracetamol", "salicylic")
_MD22_FILES = {
    "ac_ala3_nhme": ("md22_Ac-Ala3-NHMe.npz", 85109),
    "dha": ("md22_DHA.npz", 69753),
    "stachyose": ("md22_stachyose.npz", 27272),
    "at_at": ("md22_AT-AT.npz", 20001),
    "at_at_cg_cg": ("md22_AT-AT-CG-CG.npz", 10153),
    "buckyball_catcher": ("md22_buckyball-catcher.npz", 6102),
    "double_walled_nanotube": ("md22_double-walled_nanotube.npz", 5032),
}
_ISO17_FILES = {
    "reference": "80 % of the steps of 80 % of the molecules: the training set",
    "test_within": "the other steps of the same molecules",
    "test_other": "the molecules that the training set does not hold",
}


def _md17() -> list[PublicSet]:
    return [
        PublicSet(
            name=f"md17_{molecule}",
            title=f"MD17: {molecule}, ab initio MD at 500 K, 0.5 fs",
            licence=NOT_STATED,
            citation="Chmiela et al., Sci. Adv. 3, e1603015 (2017), doi 10.1126/sciadv.1603015",
            address="http://www.sgdml.org",
            url=f"http://www.quantum-machine.org/gdml/data/npz/{file}",
            file=file,
            level="PBE + vdW-TS (FHI-aims)",
            units=KCAL,
            note="Energies and forces carry numerical noise; rMD17 is the same geometries computed again, converged.",
        )
        for molecule, file in _MD17_FILES.items()
    ]


def _rmd17() -> list[PublicSet]:
    return [
        PublicSet(
            name=f"rmd17_{molecule}",
            title=f"rMD17: {molecule}, 100 000 geometries of MD17 computed again",
            licence="CC0",
            citation="Christensen, von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)",
            address="https://doi.org/10.6084/m9.figshare.12672038",
            url="https://figshare.com/ndownloader/files/23950376",
            file="rmd17.tar.bz2",
            member=f"rmd17/npz_data/rmd17_{molecule}.npz",
            checksum="sha256:cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b",
            level="PBE/def2-SVP, tight SCF and grid (ORCA)",
            units=KCAL,
            note="One archive of 1.07 GB for all molecules. Not in order of time; its authors ask to train on no more "
            "than 1000 frames.",
        )
        for molecule in (*_RMD17, "toluene", "uracil")
    ]


def _md22() -> list[PublicSet]:
    return [
        PublicSet(
            name=f"md22_{system}",
            title=f"MD22: {file.removeprefix('md22_').removesuffix('.npz')}, ab initio MD of large molecules",
            licence=NOT_STATED,
            citation="Chmiela et al., Sci. Adv. 9, eadf0873 (2023), doi 10.1126/sciadv.adf0873",
            address="http://www.sgdml.org",
            url=f"http://www.quantum-machine.org/gdml/repo/datasets/{file}",
            file=file,
            frames=frames,
            level="PBE + MBD (FHI-aims), 400 to 500 K",
            units=KCAL,
        )
        for system, (file, frames) in _MD22_FILES.items()
    ]


def _iso17() -> list[PublicSet]:
    return [
        PublicSet(
            name=f"iso17_{part}",
            title=f"ISO17, {part}: MD of 129 isomers of C7O2H10; {what}",
            licence=NOT_STATED,
            citation="Schütt et al., NeurIPS 30 (2017); Schütt et al., Nat. Commun. 8, 13890 (2017)",
            address="http://quantum-machine.org/datasets/",
            url="http://www.quantum-machine.org/datasets/iso17.tar.gz",
            file="iso17.tar.gz",
            member=f"iso17/{part}.db",
            level="PBE + vdW-TS (FHI-aims)",
            keys={"energy": "total_energy", "forces": "atomic_forces"},
            format="db",
            elements=("C", "O", "H"),
        )
        for part, what in _ISO17_FILES.items()
    ]


_OTHERS = [
    PublicSet(
        name="aimd_chig",
        title="AIMD-Chig: 2 million conformations of the 166-atom protein chignolin",
        licence="see the record: it is not repeated here",
        citation="Wang et al., Sci. Data 10, 549 (2023), doi 10.1038/s41597-023-02465-9",
        address="https://doi.org/10.6084/m9.figshare.22786730",
        file="aimd_chig",
        level="M06-2X/6-31G*, MD at 340 K",
        note="Open the record, download what you need and put it into the folder; every file in it is read.",
    ),
    PublicSet(
        name="taip_water",
        title="TAIP: 100 frames of liquid water, 96 H2O, 300 K (validation file of the paper)",
        licence="Apache-2.0 (stated in the repository's README)",
        citation="Cui et al., Nat. Commun. (2025), doi 10.1038/s41467-025-57101-4, arXiv:2405.08308",
        address="https://github.com/TaoyongCui/TAIP-codes",
        url="https://raw.githubusercontent.com/TaoyongCui/TAIP-codes/"
        "fe557746f602bc7d01f55cc8ad43bb1024dac04f/raw_data/liquid_validation.xyz",
        file="liquid_validation.xyz",
        frames=100,
        level="PBE + D3 (CP2K)",
        note="The training and ice files of the paper are not in the repository.",
    ),
    PublicSet(
        name="ipip",
        title="IPIP: data of the iterative pretraining paper",
        licence=NOT_STATED,
        citation="Cui et al., arXiv:2507.20118 (2025)",
        address="https://github.com/TaoyongCui/IPIP-codes",
        file="ipip",
        note="The repository holds scripts and single structures, no labelled set; ask the authors, then put the files "
        "into the folder.",
    ),
    PublicSet(
        name="bias_chclca",
        title="BIAS: choline chloride + citric acid with LiCl and CoCl2, 197 atoms, DFT along MD of universal models",
        licence="MIT",
        citation="Bias in Universal Machine-Learned Interatomic Potentials and its Effects on Fine-Tuning, "
        "arXiv:2603.10159",
        address="https://github.com/YangLab-GT/umlip_bias_finetuning",
        file="chclca_bias",
        level="PBE+U (VASP), E0",
        note="Published as one folder per frame (POSCAR and vasp_info.json): put extended XYZ files made from them "
        "into the folder. Frames of one run are 50 ps apart.",
    ),
    PublicSet(
        name="dynamic_training",
        title="Dynamic training: H2 on Pd6 on a graphene vacancy, 57 atoms, 100 NVE trajectories of 0.5 fs",
        licence="see the record: it is not repeated here",
        citation="Žugec et al., J. Chem. Inf. Model. (2025), doi 10.1021/acs.jcim.5c01180",
        address="https://doi.org/10.6084/m9.figshare.28498778",
        file="dynamic_training",
        frames=228925,
        note="One archive, https://figshare.com/ndownloader/files/52738940, in the layout of the authors' trainer "
        "(fractional coordinates, velocities times the step): convert it to extended XYZ files in the folder.",
    ),
]

SETS: dict[str, PublicSet] = {one.name: one for one in [*_md17(), *_rmd17(), *_md22(), *_iso17(), *_OTHERS]}
