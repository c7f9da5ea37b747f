"""Words of forms: names of fields where the name in code says little to somebody who has not read the code, which
fields come first, and what they begin with.

A field that is not named here keeps its name; the tip of each tells the description and the name in code.
"""

from __future__ import annotations

from typing import Any

TUNING = {
    "recipe.train": "weights that move", "recipe.frozen": "blocks that stay", "recipe.lora_rank": "lora: rank",
    "recipe.shifts": "energy zero", "recipe.mix": "replay of old labels",
    "recipe.weight": "loss10: weight of new frames",
    "recipe.replay_batch": "loss10: old frames per step", "recipe.steps_per_epoch": "loss10: steps per epoch",
    "replay": "general frames mixed in", "max_epochs": "epochs at most", "batch_size": "frames per step",
    "optimiser.patience": "epochs without improvement",
}  # fmt: skip

WORKFLOW = {
    "potential": "model to be tuned",
    "start.molecules": "molecules in a box",
    "start.density": "density of the boxes",
    "start.tolerance": "least distance of molecules",
    "start.place": "given structures instead",
    "start.relax": "relax each start first",
    "runs": "MD runs",
    "frames": "labelled frames of a run",
    "sampling.ensemble": "ensemble and thermostat",
    "sampling.temperature": "temperature of the runs",
    "sampling.timestep": "time step",
    "sampling.time_ps": "length of a run",
    "sampling.stride": "steps between stored frames",
    "sampling.equilibration": "share left out as equilibration",
    "sampling.friction": "langevin: friction",
    "sampling.relaxation_time": "other thermostats: relaxation time",
    "sampling.pressure": "npt: target pressure",
    "sampling.pressure_relaxation_time": "npt: relaxation time of the pressure",
    "sampling.density_low": "boiled away below",
    "sampling.density_high": "collapsed above",
    "sampling.failure": "when a run fails",
    "sampling.checks": "limits of stability checks",
    "label.maker": "label maker",
    "label.options": "settings of the engine",
    "label.timeout_s": "longest time for a frame",
    "label.processes": "frames at once",
    **{f"tuning.{path}": words for path, words in TUNING.items()},
    "tuning.max_epochs": "epochs of a fine-tuning",
    "tuning.validation": "share for validation",
    "tuning.gradients": "frame-gradients instead of epochs",
    "evaluation.independent": "independent test structures",
    "evaluation.self_md": "models that run MD of their own",
    "evaluation.frames": "labelled frames of a test run",
    "evaluation.time_ps": "length of a test run",
    "evaluation.seed": "seed of the evaluation",
    "base": "a fine-tuning starts from",
    "sizes": "naive, longrun: frames of each model",
    "run_by_run": "naive: small models get the first runs",
    "chains": "hybrid: chains side by side",
    "share_first_run": "first run shared by all arms",
    "as_published": "longrun: as long as published",
    "rattle": "high_force: displacement",
    "strain": "high_force: largest strain",
    "hot": "high_force: temperature of hot runs",
    "review": "look at frames before they are labelled",
    "reuse": "take equal stages from",
    "fmax": "relaxed below a force of",
    "relax_steps": "relaxation steps at most",
    "dtype": "precision of the model",
    "threads": "CPU threads",
    "python": "another Python",
}

DYNAMIC = {
    "data": "AIMD runs",
    "potential": "potential to go on from",
    "auxiliary_heads": "self-supervised heads",
    "curriculum.n_structures": "roll-out steps of the stages",
    "curriculum.converge": "a stage ends",
    "curriculum.stage_epochs": "epochs of a stage",
    "curriculum.evaluations_per_epoch": "force evaluations of an epoch",
    "curriculum.points_per_epoch": "start frames of an epoch",
    "curriculum.start_from": "a stage begins with the weights",
    "curriculum.apart_limit": "lengthen only if this close to AIMD",
    "curriculum.choose": "stage that is kept",
    "rollout.bptt": "gradients through the steps",
    "rollout.window": "steps until gradients are cut",
    "rollout.recompute": "compute steps twice to save memory",
    "rollout.position_update": "integration of positions",
    "rollout.refresh": "steps between neighbour lists",
    "rollout.velocities": "velocities",
    "rollout.frozen": "atoms that stay",
    "loss.kind": "error of a step",
    "loss.first_step": "weight of the start frame",
    "loss.energy": "weight of energies, single frames",
    "loss.energy_dyn": "weight of energies, longer roll-outs",
    "loss.refit_energy": "fit the energy zero at the end",
    "rollout_validation.n_structures": "roll-out steps of validation",
    "rollout_validation.n_points": "validation roll-outs",
    "rollout_validation.test_structures": "roll-out steps of the test",
    "optimiser.stage_learning_rate": "learning rate of later stages",
    "optimiser.patience": "epochs without improvement",
    "max_epochs": "epochs at most",
    "batch_size": "roll-outs per step",
    "n_train": "frames to train on",
}

IPIP = {
    "arm": "method",
    "teacher": "universal teacher",
    "data": "labelled frames",
    "n_train": "of these to train on",
    "loop.iterations": "iterations",
    "loop.forget": "share of the pool forgotten",
    "loop.pool": "size of the pool",
    "loop.new_share": "grow: share that comes new",
    "loop.relabel": "frames that the student relabels",
    "loop.gate": "relabel only where confident",
    "loop.prefer_unstable": "frames before failures first",
    "loop.md_of": "new frames from the MD of the",
    "loop.md_seeds": "seeds of the students' MD",
    "loop.init": "pretraining begins with",
    "loop.pretrain_energy": "energies in pretraining",
    "loop.pool_seed": "seed of the pool's MD",
    "sampling.starts": "start structures",
    "sampling.steps": "MD steps from each",
    "sampling.stride": "steps between stored frames",
    "sampling.temperature": "temperature of the MD",
    "sampling.batch": "runs side by side",
    "instability.force_cap": "failed above a force of",
    "instability.hot": "failed above a temperature ratio of",
    "instability.hot_fs": "on average over",
    "instability.overlap": "failed below this share of the radii",
    "instability.closest": "failed below a distance of",
    "instability.stretch": "failed when a bond is stretched to",
    "instability.stretch_fs": "for as long as",
    "instability.window": "last frames before a failure",
    "instability.every": "steps between two of them",
    "instability.skip": "share left out next to the failure",
    "instability.look_every": "steps between two looks",
    "instability.proton_transfer": "protons may change places",
    "pretraining.steps": "gradient steps of a pretraining",
    "pretraining.look_every": "steps between validations",
    "pretraining.optimiser.patience": "patience, not used here",
    "finetuning.steps": "gradient steps of a fine-tuning",
    "finetuning.look_every": "steps between validations",
    "finetuning.optimiser.patience": "patience, not used here",
    "signals.noise": "denoising: noise",
    "signals.torsion": "denoising_fractional: turns",
    "signals.copies": "denoising_fractional: conformations",
    "signals.weight": "n2n, a2a, hessian: weight",
    "signals.hessian_rows": "hessian: rows of a frame",
    "teacher_tuning.steps": "gradient steps of the teacher",
    "teacher_tuning.batch_size": "frames per step of the teacher",
    "teacher_tuning.learning_rate": "learning rate of the teacher",
    "stability.runs": "test simulations",
    "stability.steps": "steps of a test simulation",
    "stability.temperature": "temperature of the test",
    "stability.models": "students that are tested",
    "stability.relax_steps": "relaxation steps before",
    "stability.track": "element whose clusters are counted",
    "reaction.runs": "simulations that follow species",
    "reaction.steps": "steps of such a simulation",
    "reaction.temperature": "temperature, species followed",
    "reaction.ensemble": "thermostat, species followed",
    "reaction.models": "students whose species are followed",
    "reaction.relax_steps": "relaxation steps before",
    "reaction.track": "element whose changes are followed",
    "reaction.lifetime": "a change must last",
    "pretrain": "pretrain at all",
    "reuse": "take equal stages from",
    "accept_teacher": "the teacher may have changed",
    "threads": "CPU threads",
    "python": "another Python",
}

TASKS = {
    "taip.enabled": "learn self-supervised tasks",
    "taip.noise": "weight of noise recognition",
    "taip.types": "weight of hidden types",
    "taip.pseudo_forces": "weight of hidden forces",
    "taip.levels": "noise levels",
    "taip.sigma_max": "largest noise",
    "taip.sigma_min": "smallest noise",
    "taip.edges": "neighbours of displaced structures",
    "taip.pooling": "noise recognition: over atoms",
    "taip.type_rate": "share of hidden types",
    "taip.gamma": "power of the loss of types",
    "taip.force_rate": "share of hidden forces",
    "taip.mf_mode": "hidden forces as in",
    "taip.decoder": "decoder of hidden forces",
}
ADAPTATION = {
    "adaptation.strategy": "adapt at test time",
    "adaptation.rate": "adaptation step",
    "adaptation.optimiser": "optimiser of a step",
    "adaptation.hold": "nonsaving: steps that adapted weights last",
    "adaptation.every": "save_every_k: steps between two",
    "adaptation.threshold": "threshold: self-supervised loss above",
    "adaptation.direction": "direction of a step",
    "adaptation.seed": "seed of noise and hidden atoms",
}
TAIP = {
    "data": "frames to train on",
    "shifted": "test frames out of distribution",
    **TASKS,
    "adaptation.optimiser": "optimiser of a step",
    "adaptation.rates": "adaptation steps to try",
    "adaptation.together": "frames that share a step",
    "adaptation.seed": "seed of noise and hidden atoms",
    "adaptation.draws": "draws that a frame's loss is averaged over",
    "adaptation.repeats": "noise seeds for repeatability",
    "seeds": "seeds of the trainings",
    "noise_sigma": "control: displacements",
    "ablate": "also train without each task",
    "features": "measure how far features shift",
    "effect": "smallest gain of interest",
    "most": "frames of a test set at most",
    "max_epochs": "epochs at most",
    "batch_size": "frames per step",
}

FIELDS: dict[str, dict[str, str]] = {
    "md": ADAPTATION, "train": TASKS, "workflow": WORKFLOW, "finetune": TUNING, "dynamic": DYNAMIC, "taip": TAIP,
    "ipip": IPIP,
}  # fmt: skip
"""Kind of run -> path of a field -> its name on screen, without the unit."""
PARTS = {"taip": "self-supervised tasks (TAIP)", "adaptation": "test-time adaptation (TAIP)"}
"""Part of a specification -> its heading among further settings."""
FIXED: dict[str, dict[str, Any]] = {"taip": {"taip.enabled": True}}
"""Fields that a form says without offering them: an evaluation of the tasks has no other choice."""

FIRST = {
    "md": ("potential", "start", "temperature", "time_ps", "replicas", "ensemble", "timestep", "name"),
    "train": ("data", "n_train", "model.encoder", "model.features", "max_epochs", "time_limit_s", "name"),
    "label": ("data", "maker", "options", "timeout_s", "threads", "name"),
    "finetune": (
        "potential", "data", "recipe.train", "recipe.mix", "replay", "max_epochs", "optimiser.learning_rate",
        "time_limit_s", "name",
    ),
    "dynamic": (
        "data", "potential", "model.encoder", "model.features", "curriculum.n_structures", "curriculum.stage_epochs",
        "curriculum.evaluations_per_epoch", "rollout.bptt", "loss.kind", "rollout_validation.n_structures",
        "time_limit_s", "name",
    ),
    "taip": (
        "data", "shifted", "model.encoder", "model.features", "max_epochs", "seeds", "taip.sigma_max",
        "adaptation.rates", "ablate", "features", "most", "name",
    ),
    "ipip": ("teacher", "data", "n_train", "loop.iterations", "arm", "name"),
    "workflow": (
        "arm", "potential", "start.molecules", "start.density", "runs", "frames", "sampling.time_ps", "sampling.stride",
        "sampling.temperature", "label.maker", "tuning.max_epochs", "evaluation.independent", "evaluation.frames",
        "review", "seed", "name",
    ),
}  # fmt: skip
START: dict[str, dict[str, Any]] = {
    "md": {"time_ps": 10.0}, "train": {"data": "sample:ethanol_300K"}, "label": {"data": "sample:ethanol_300K@:8"},
    "finetune": {"data": "sample:ethanol_600K@:40", "max_epochs": 20},
    # Stages of known length: as published they end when the error stands still, which takes hours.
    "dynamic": {
        "data": "sample:ethanol_nve", "curriculum.converge": "fixed", "curriculum.stage_epochs": 20,
        "curriculum.evaluations_per_epoch": 512, "optimiser.schedule_patience": 3, "rollout_validation.n_points": 32,
    },
    # Noise that tears molecules apart teaches little of them; as published it is 10 Å.
    "taip": {
        "data": "sample:ethanol_300K@:400", "shifted": "sample:ethanol_600K", "model.features": 32, "model.layers": 2,
        "max_epochs": 40, "taip.sigma_max": 1.0, "most": 100,
    },
    # Minutes; the published scale is 100 starts of 50,000 steps. 40 frames to train on and 10 to choose by.
    "ipip": {
        "data": "sample:ethanol_300K", "n_train": 40, "split.validation": 10, "split.test": 100, "sampling.starts": 10,
        "sampling.steps": 400, "sampling.stride": 10, "sampling.temperature": 600.0, "model.features": 32,
        "model.layers": 2, "pretraining.steps": 250, "finetuning.steps": 250, "stability.runs": 10,
        "stability.steps": 1000, "stability.relax_steps": 0,
    },
    # The published scale is five runs of a nanosecond: nobody's first click.
    "workflow": {
        "start.molecules": {"water": 8}, "runs": 3, "frames": 5, "sampling.time_ps": 1.0, "sampling.stride": 20,
        "tuning.max_epochs": 40, "evaluation.independent": 5, "evaluation.frames": 5,
    },
}  # fmt: skip
WORDS = {
    "md": "Run MD", "train": "Train a potential", "label": "Label frames", "finetune": "Fine-tune",
    "dynamic": "Dynamic training", "taip": "Test-time adaptation", "ipip": "Iterative pretraining",
    "workflow": "Workflow",
}  # fmt: skip
UNITS = {"label": "a frame", "workflow": "one unit of each step", "ipip": "one unit of each step"}
"""What is measured before the start, where it is not three steps."""
