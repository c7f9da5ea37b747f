"""Labels by one's own VASP, by clicks in a real browser: jobs out, results in, training on."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_lab import Lab
from dft_text import vasp_template
from test_browser import nothing_cut
from test_browser import work as work
from test_browser_workbench import BENCH, OPEN, failed, four_pictures, place, step
from test_own_dft import compute, job_folders

from mlipkit.data import read
from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]


def test_jobs_go_out_and_labels_come_back_by_clicks(lab: Lab, work: Path) -> None:
    failed(work)
    vasp_template(work / "inputs", ("C", "O", "H"))
    lab.write(place(work), [OPEN])
    with lab.open(place(work), width=1600, height=1500) as page:
        page.run_all()
        step(page, "Go to failure")
        page.wait_text("before failure")
        step(page, "Select frames")
        page.wait_text("Label 10 frames")
        page.click("My own DFT")
        page.wait_text("A folder with your own inputs")
        page.page.locator(f"{BENCH} .mlipkit-jobs input[placeholder^='folder with INCAR']").fill("inputs")
        page.wait_text("no cell")
        page.page.locator(f"{BENCH} .mlipkit-jobs .widget-text", has_text="box").locator("input").fill("12")
        page.wait_text("VASP template: INCAR, KPOINTS, POTCAR, job.sh")
        page.click("Code")
        page.wait_text(".selection.export_jobs(")
        page.wait_text("template='inputs', box=12")
        page.click("Code")
        four_pictures(page, "own_dft_export")
        step(page, "Export 10 jobs")
        page.wait_text("10 VASP jobs in")
        step(page, "Collect labels")
        page.wait_text("0 of 10 jobs in jobs/hot done, 10 missing")
        folders = job_folders(str(work / "jobs" / "hot"))
        for row, folder in enumerate(folders[:8]):
            compute(folder, row, iterations=60 if row == 7 else 12)
        step(page, "Collect labels")
        page.wait_text("Add 7 labels to data")
        page.wait_text("unconverged")
        four_pictures(page, "own_dft_collected")
        page.click("Code")
        page.wait_text("write('selections/dft_hot.extxyz', collect('jobs/hot').frames)")
        page.click("Code")
        step(page, "Add 7 labels")
        page.wait_text("the two must not be mixed")
        assert len(read(work / "selections" / "dft_hot.extxyz")) == 7
        step(page, "Train ethanol_1000 on")
        page.wait_text("train_on_dft_hot", timeout=60)
        page.wait_text("latest 1", timeout=90)
        page.click("Stop")
        page.wait_text("STOPPED", timeout=60)
        nothing_cut(page)
        trained = Run(work / "runs" / "train_on_dft_hot")
        assert trained.spec.data == ["selections/dft_hot.extxyz@1:"]
        assert page.cell_errors() == []
        page.healthy()
