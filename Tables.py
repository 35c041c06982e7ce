"""A study -> its runs -> tables and figures: `python Tables.py --study configs/studies/NAME.yaml --output_dir DIR`.

Runs each row by each seed through run.py, skips what is done, goes on with what was cut, keeps going when one fails;
then writes table.md, .tex, .csv and .html and the figures to DIR. The same command again goes on where it stopped.
"""

import argparse
import shlex
from collections.abc import Mapping, Sequence

from study.collect import collect, read_finished
from study.places import Place, places_for
from study.plan import MOST_SEED, PlannedRow, Study, check_rows, plan_rows, possible_seeds, read_study
from study.queue import run_queue
from study.results import Finished, finished_seeds
from study.runs import State, override_arguments, runs_of, states_of
from study.test_sets import check_test_files
from utils.arguments import OneLineParser, name, named_path
from utils.errors import InputError, run_cli
from utils.launch import TASKS, processes_for, shell_line, trains_prior
from utils.output import open_output


def main(arguments: list[str] | None = None) -> int:
    """Run and collect a study, or evaluate released checkpoints; return the exit code."""
    args = parse(arguments)
    if args.released:
        from study.released import evaluate_released

        return evaluate_released(args.released, args.output_dir, args.dist or "auto", args.override, args.dry_run)

    study = read_study(args.study, [task for task in TASKS if not trains_prior(task)])
    names = args.rows or list(study.rows)
    check_rows(study, names)
    found = finished_seeds(args.output_dir, study.rows) if args.collect else []
    seeds = args.seeds or found or list(study.seeds)
    planned = plan_rows(study, args.override)
    runs = runs_of([planned[name] for name in names], seeds, study.task, args.output_dir, download=args.download)
    places = places_of(args)
    if args.dry_run:
        for number, run in enumerate(runs):
            place = places[number % len(places)]
            print(shell_line(run.command(place.dist), place.environment))
        return 0

    if args.collect and not args.output_dir.is_dir():
        raise InputError(f"--collect: there is no folder {args.output_dir}")
    open_output(args.output_dir)  # collect does so too, but after hours of runs
    code = 0
    if not args.collect:
        states = states_of(runs)
        before = read_finished(study, planned, args.output_dir)  # what is damaged is an error before hours of runs
        check_test_files(row for name, row in planned.items() if name in names or before[name])
        todo = [run for run, state in zip(runs, states, strict=True) if state != State.DONE]
        print(f"{len(runs)} runs: {len(runs) - len(todo)} done, {len(todo)} to do", flush=True)
        code = run_queue(todo, places)
    if code < 128:
        finished = read_finished(study, planned, args.output_dir)
        if args.collect and not any(finished.values()):
            raise InputError(f"--collect: {args.output_dir} holds no finished run of {args.study}")
        summaries = collect(study, finished, seeds, args.output_dir, commands_of(args, study, planned, seeds, finished))
        rows = sum(bool(summary.runs) for summary in summaries)
        print(f"{rows} of {len(summaries)} rows in {args.output_dir / 'table.md'}, .tex, .csv and .html")
    return code


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="Tables.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", type=named_path, help="study file, configs/studies/NAME.yaml")
    released = "evaluate every checkpoint folder in it instead"
    what.add_argument("--released", type=named_path, metavar="FOLDER", help=released)
    add = parser.add_argument
    add("--output_dir", type=named_path, required=True, help="folder of the runs (ROW/seed_S), tables and figures")
    add("--dist", type=name, help="the cards of a run, as for run.py (default: auto)")
    add("--rows", type=_names, metavar="A,B", help="run these rows alone (the tables show all)")
    add("--seeds", type=_seeds, metavar="1,2,3", help="run with these (default: the study's; the tables show all)")
    add("--parallel", metavar="GROUPS", help="runs side by side, each on a group of cards: '0,1;2,3', or 'cpu;cpu'")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value of every row")
    add("--collect", action="store_true", help="run nothing: tables and figures of what is finished")
    add("--download", action="store_true", help="allow missing start files to be downloaded")
    add("--dry_run", action="store_true", help="print the command of every run; nothing is started or opened")
    args = parser.parse_args(arguments)
    if args.parallel is not None and args.dist:
        raise InputError("--parallel says what each run gets, and so does --dist; give one")
    if args.released:
        given = [name for name in ("rows", "seeds", "parallel", "collect", "download") if getattr(args, name)]
        if given:
            raise InputError(f"--{given[0]} is for a study, --released has no use for it; leave it out")
    return args


def places_of(args: argparse.Namespace) -> list[Place]:
    """Where runs are at work; cards are looked for unless nothing runs."""
    look = not (args.dry_run or args.collect)
    if args.parallel is not None:
        return places_for(args.parallel, check_cards=look)
    if args.dist and args.dist != "auto":
        processes_for(args.dist, check_cards=look)  # an unknown preset is an error before the first run
    return [Place(args.dist or "auto")]


def commands_of(
    args: argparse.Namespace,
    study: Study,
    planned: Mapping[str, PlannedRow],
    seeds: Sequence[int],
    finished: Mapping[str, Sequence[Finished]],
) -> list[str]:
    """What a reader types to make these tables: the study's command, then each run's, as it was run."""
    runs_done = {run.folder: run for of_row in finished.values() for run in of_row}
    shown = sorted({*seeds, *(run.seed for run in runs_done.values())})  # the tables hold all that are finished
    given = ["--study", str(args.study), "--output_dir", str(args.output_dir), "--seeds", ",".join(map(str, shown))]
    given += override_arguments(args.override)
    dist = ["--dist", args.dist] if args.dist else []  # side by side, a run's cards are those that were free
    commands = [["Tables.py", *given, *(["--parallel", args.parallel] if args.parallel else dist)]]
    for run in runs_of(planned.values(), shown, study.task, args.output_dir, download=args.download):
        own = runs_done[run.folder].own_overrides() if run.folder in runs_done else []
        commands.append(["run.py", *run.arguments(), *override_arguments(own), *dist])
    table, *each = (shlex.join(["python", *command]) for command in commands)
    return [table, *(f"#   {line}" for line in each)]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _seeds(text: str) -> list[int]:
    seeds = [int(seed) if seed.strip().isdecimal() else -1 for seed in text.split(",")]
    if not possible_seeds(seeds):
        raise argparse.ArgumentTypeError(f"{text!r}: give different numbers from 0 to {MOST_SEED}, as 1,2,3")
    return seeds


if __name__ == "__main__":
    run_cli(main)
