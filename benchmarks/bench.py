"""How fast mlipkit is beside its peers: the same jobs, in turns, in one run; against the counted floor.

    make bench-peers                       # once: the peers' own environments, under build/peers
    make bench                             # everything that is not yet in results/bench.jsonl, then the table
    python benchmarks/bench.py --table     # the table of what is recorded
    python benchmarks/bench.py --jobs painn.train schnet.ef --threads 1 --settings tuned --again
    python benchmarks/bench.py --quick     # seconds per job, into build/bench/quick.jsonl: to see that it runs

Every engine is a process in its own environment (`peers/serve_*.py`) that repeats a job for a turn when asked; turns
go round. Figures are CPU times of the process, medians with quartiles, with wall times beside them; on a GPU
(`--device cuda`) synchronised wall times. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench import jobs as catalogue
from bench.engines import BUILT, ROOT, SERVERS, missing
from bench.measure import Bench, Settings, wait_hint
from bench.table import OURS, figure, force_errors, render
from records import read_lines

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "bench.jsonl"
QUICK = ROOT / "build" / "bench" / "quick.jsonl"
STRUCTURES = ROOT / "build" / "bench" / "structures.npz"
DEFAULT = ((1, "tuned"), (1, "installed"), (2, "tuned"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", metavar="NAME", help="jobs whose name holds one of these")
    parser.add_argument("--engines", nargs="+", choices=SERVERS, help="these only; default: all that are installed")
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and 2")
    parser.add_argument("--settings", nargs="+", choices=["tuned", "installed"], help="default: both; 2 threads: tuned")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one short turn each")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    parser.add_argument("--list", action="store_true", help="print the jobs and end")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS.relative_to(ROOT)}")
    parser.add_argument(
        "--python", action="append", default=[], metavar="ENGINE=PATH",
        help=f"interpreter of an engine; default: {BUILT.relative_to(ROOT)}/ENGINE, or this one",
    )  # fmt: skip
    parser.add_argument("--turn", type=float, default=0.6, help="seconds of a turn")
    return parser.parse_args()


def plan(args: argparse.Namespace) -> list[Settings]:
    """The settings to go through, one after the other."""
    if args.threads is None and args.settings is None:
        pairs = DEFAULT if args.device == "cpu" else DEFAULT[:2]
    else:
        pairs = [(n, s) for n in args.threads or (1, 2) for s in args.settings or ("tuned", "installed")]
    return [Settings(n, s == "tuned", args.device) for n, s in pairs]


def main() -> int:
    args = arguments()
    out = args.out or (QUICK if args.quick else RESULTS)
    accuracy = force_errors(read_lines(HERE / "results" / "accuracy.jsonl"))
    wanted = catalogue.chosen(args.jobs)
    if args.list:
        print("\n".join(f"{job.name:28s} {', '.join((OURS, *job.peers))}" for job in wanted))
        return 0
    if args.table:
        print(render(read_lines(out), accuracy))
        return 0
    if not wanted:
        print(f"no job fits {args.jobs}; --list shows them", file=sys.stderr)
        return 2

    from bench.structures import write

    write(STRUCTURES)
    pythons = dict(item.split("=", 1) for item in args.python)
    engines = {OURS, *(peer for job in wanted for peer in job.peers)} & set(args.engines or SERVERS)
    reasons = {name: missing(name, pythons) for name in sorted(engines)}
    for reason in filter(None, reasons.values()):
        print(f"left out: {reason}", flush=True)
    usable = {name for name, reason in reasons.items() if reason is None}

    lines = [] if args.again else read_lines(out)
    done = {(x["job"], x["engine"], x["threads"], x["settings"], x["device"]) for x in lines}
    todo = []
    for settings in plan(args):
        for job in wanted:
            names = [name for name in (OURS, *job.peers) if name in usable]
            where = (settings.threads, settings.name, settings.device)
            if any((job.name, name, *where) not in done for name in names):
                todo.append((settings, job, names))
    begin = time.monotonic()
    bench: Bench | None = None
    out.parent.mkdir(parents=True, exist_ok=True)
    command = "python benchmarks/bench.py " + " ".join(a for a in sys.argv[1:] if "=" not in a and a != "--python")
    try:
        for count, (settings, job, names) in enumerate(todo):
            if bench is None or bench.settings != settings:
                bench = Bench(
                    settings, pythons, STRUCTURES, 0.05 if args.quick else args.turn, 1 if args.quick else None,
                    command.strip(),
                )  # fmt: skip
            measured, trouble = bench.measure(job, names)
            with out.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in measured)
            said = ", ".join(f"{x['engine']} {figure(x):.4g}" for x in measured)
            print(
                f"{settings.threads}t {settings.name:9s} {job.name:26s} {said or 'skipped'}  "
                f"[{wait_hint(begin, count + 1, len(todo))}]",
                flush=True,
            )
            for line in trouble:
                print(f"    {line}", flush=True)
    finally:
        if bench:
            bench.end()
    print(render(read_lines(out), accuracy))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
