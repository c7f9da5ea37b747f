"""What is said before the first step."""

from __future__ import annotations

import emt_sets
import pytest

from mlipkit.models import Potential
from mlipkit.training import EnergyForcesStress, TrainSettings, preflight


@pytest.mark.parametrize(("head", "sizes", "warned"), [
    ("pooled", (5, 4), True), ("pooled_features", (5, 4), True), ("pooled", (5,), False), ("per_atom", (5, 4), False),
])  # fmt: skip
def test_a_pooled_head_warns_of_several_compositions(head, sizes, warned):
    frames, said = emt_sets.clusters(4, seed=1, sizes=sizes), []
    made = emt_sets.make_potential(frames)
    energies = {z: float(made.atomic_energies[z]) for z in made.elements}
    potential = Potential(made.encoder, atomic_energies=energies, head=head)
    preflight.check([EnergyForcesStress()], potential, frames, frames, TrainSettings(), said.append)
    texts = [event.text for event in said if event.level == "warning" and "one composition only" in event.text]
    assert len(texts) == warned
    assert not warned or "have 2: Au2Cu3, Au2Cu2" in texts[0] or "have 2: Au2Cu2, Au2Cu3" in texts[0]
