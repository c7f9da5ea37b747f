"""A dynamic training in a real browser: its form, its stages while it runs, and its roll-out beside AIMD in 3D."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_lab import Lab
from test_browser import both_themes, differ, drawn, nothing_cut
from test_browser import work as work

from mlipkit.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SPEC = """dict(
    name="rolled", data="sample:ethanol_nve@:2807", model={"features": 16, "layers": 1, "cutoff": 4.0}, batch_size=8,
    curriculum={"n_structures": [1, 2, 4], "converge": "fixed", "stage_epochs": 4, "evaluations_per_epoch": 128},
    rollout_validation={"n_structures": 20, "n_points": 4, "test_structures": 40},
)"""
MARKS = """() => [...document.querySelectorAll('.js-plotly-plot')].filter(one => one.offsetParent)
    .map(one => (one._fullLayout?.annotations || []).map(mark => mark.text).join())"""
SLIDER = ".mlipkit-view .widget-hslider:visible"
SCENES = ".mlipkit-scene:visible canvas"


def test_stages_are_marked_and_the_roll_out_lies_beside_aimd(lab: Lab, work: Path) -> None:
    name = f"{work.name}/dynamic.ipynb"
    lab.write(
        name,
        [
            "import mlipkit as mk\nfrom mlipkit_widgets import TrainingMonitor\n"
            f"run = mk.launch(mk.DynamicSpec(**{SPEC}))\nTrainingMonitor(run)"
        ],
    )  # fmt: skip
    with lab.open(name, width=1000, height=2300) as page:
        page.run_all()
        page.wait_text("roll-out steps", timeout=120)
        page.wait_text("stage 3", timeout=120)
        assert Run(work / "runs" / "rolled").wait(120).state == "completed"
        page.wait_text("COMPLETED")
        page.wait_text("chosen")
        page.page.wait_for_function(f"() => ({MARKS})().filter(one => one === 'roll-out steps: 1,2,4').length === 2")
        for label in ("Error of validation roll-outs", "Force error over roll-out steps"):
            assert drawn(page.pixels(f".mlipkit-plot [aria-label^='{label}']")) > 0.005, label
        both_themes(page, "dynamic_training")
        nothing_cut(page)

        page.click("Beside AIMD")
        page.wait_text("held out for the test", timeout=60)
        page.page.wait_for_function(
            "count => document.querySelectorAll('.mlipkit-scene canvas').length >= count", arg=2, timeout=60_000
        )
        page.wait_text("Force error")
        page.page.wait_for_timeout(1500)
        before = [one.screenshot() for one in page.page.locator(SCENES).all()]
        assert len(before) == 2
        assert min(drawn(one) for one in before) > 0.01
        page.page.locator(".mlipkit-view button[title='One frame back']:visible").first.focus()
        slider = page.page.locator(".mlipkit-view .slider-container:visible").last
        place = slider.bounding_box()
        assert place is not None
        page.page.mouse.click(place["x"] + 0.97 * place["width"], place["y"] + place["height"] / 2)
        page.page.wait_for_function(
            "() => [...document.querySelectorAll('.widget-html-content')].some(one => "
            "/step 19\\d of 200/.test(one.innerText))"
        )
        page.page.wait_for_timeout(1500)
        after = [one.screenshot() for one in page.page.locator(SCENES).all()]
        # Both have moved, and no longer look alike.
        assert min(differ(one, other) for one, other in zip(before, after, strict=True)) > 0.002
        assert differ(*after) > 0.002
        page.page.locator("select:visible").last.select_option("distance")
        page.page.wait_for_timeout(1000)
        both_themes(page, "rollout_1000")
        nothing_cut(page)
        page.page.set_viewport_size({"width": 1600, "height": 2300})
        page.page.wait_for_timeout(2500)
        both_themes(page, "rollout_1600")
        page.page.set_viewport_size({"width": 680, "height": 2900})
        page.page.wait_for_timeout(2500)
        nothing_cut(page)
        page.shot("rollout_narrow")
        page.page.locator(".mlipkit-view button:visible", has_text="Code").first.click()
        page.wait_text("roll_beside(mk.load('runs/rolled'), read_source('sample:ethanol_nve@:2807')")
        assert page.cell_errors() == []
        page.healthy()


def test_the_form_and_the_empty_view(lab: Lab, work: Path) -> None:
    name = f"{work.name}/form.ipynb"
    lab.write(
        name,
        [
            "from mlipkit_widgets import Launcher, RolloutView\nLauncher('dynamic', automatic=False)",
            "RolloutView()",
        ],
    )  # fmt: skip
    with lab.open(name, width=1000, height=1500) as page:
        page.run_all()
        page.wait_text("roll-out steps of the stages")
        page.wait_text("No potential is open yet")
        page.page.wait_for_timeout(700)
        nothing_cut(page)
        page.click("More settings")
        page.wait_text("fit the energy zero at the end")
        page.page.wait_for_timeout(700)
        both_themes(page, "dynamic_form")
        nothing_cut(page)
        assert page.cell_errors() == []
        page.healthy()


def test_both_scenes_turn_together(lab: Lab, work: Path) -> None:
    name = f"{work.name}/twins.ipynb"
    opened = "RolloutView('sample:ethanol_1000', 'sample:ethanol_nve@:401', 40, 20)"
    lab.write(name, [f"from mlipkit_widgets import RolloutView\n{opened}"])
    with lab.open(name, width=1000, height=1200) as page:
        page.run_all()
        page.wait_text("Force error", timeout=120)
        page.page.wait_for_function(
            "() => document.querySelectorAll('.mlipkit-scene canvas').length >= 2", timeout=60_000
        )
        page.page.wait_for_timeout(2000)
        scenes = page.page.locator(SCENES)
        before = [one.screenshot() for one in scenes.all()]
        place = scenes.first.bounding_box()
        assert place is not None
        x, y = place["x"] + place["width"] / 2, place["y"] + 40
        page.page.mouse.move(x, y)
        page.page.mouse.down()
        page.page.mouse.move(x + 90, y + 30, steps=6)
        page.page.mouse.up()
        page.page.wait_for_timeout(2000)
        after = [one.screenshot() for one in scenes.all()]
        assert min(differ(one, other) for one, other in zip(before, after, strict=True)) > 0.005
        # At the first step both are the same molecule, seen from the same side.
        assert differ(*after) < 0.002
        page.shot("twins")
        assert page.cell_errors() == []
        page.healthy()
