"""Names of the package, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlipkit import analysis


def test_every_name_is_there_and_is_no_module():
    for name in analysis.__all__:
        value = getattr(analysis, name)
        assert callable(value), f"{name} is {value}"
    assert set(analysis.__all__) <= set(dir(analysis))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing


def test_a_function_keeps_its_name_whatever_is_imported_first():
    code = (
        "import mlipkit.analysis.rdf, mlipkit.analysis.species, mlipkit.analysis as a\n"
        "from mlipkit.analysis import rdf\n"
        "assert callable(a.rdf) and a.rdf is rdf and callable(a.species) and callable(a.msd)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_alone_brings_neither_torch_nor_scipy():
    code = "import sys, mlipkit.analysis; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
