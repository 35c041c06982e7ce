"""One experiment on one machine or several: task + machines -> one torch.distributed.launch command line."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dataset.annotations import read_evaluation
from dataset.share import check_share, entries_of_a_process
from utils.announced import slurm_tasks
from utils.arguments import OneLineParser, add_precision, add_speed, name, seed, weights
from utils.config import config_from_file, process_batch
from utils.errors import InputError, listed, run_cli
from utils.launch import (
    LAUNCHER,
    TASKS,
    Processes,
    choices,
    ignore_stopping,
    launcher_environment,
    option,
    port_is_free,
    pretrains,
    processes_for,
    run_to_end,
    shell_line,
    steering_variables,
    trains_prior,
    unused_port,
)
from utils.output import RESUME, check_output, check_unlocked, config_in, open_output, weights_in
from utils.prior_config import prior_config_from_file
from utils.shard_rule import check_shard
from utils.start_names import HUB, local_start, weight_file

ROOT = Path(__file__).resolve().parent
RETRIEVAL = ROOT / "Retrieval.py"
PRIOR = ROOT / "Prior.py"
PRETRAIN = ROOT / "Pretrain.py"
MULTI_MACHINE_PORT = 29500

PRESETS_HELP = """\
presets of --dist, one process a card:
  f2 f3 f4        cards 0,1   0,1,2   0,1,2,3
  f12 f02 f03 l2  cards 1,2   0,2   0,3   2,3
  gpuN            card N alone
  auto            every visible card; without one, cpu
  cpu             one process on the CPU
  cpuN            N processes on the CPU (gloo)
Where CUDA_VISIBLE_DEVICES is set, card 0 is the first it names, card 1 the second, and so on.

Relative paths, those inside a config too, are relative to the current folder; only a task's
script and its own config are found beside run.py, wherever it is started.
"""


def main(arguments: list[str] | None = None) -> int:
    """Launch what the arguments ask for, or print its command; return its exit code."""
    args = parse(arguments)
    config = config_file(args)
    processes = processes_for(args.dist, check_cards=not args.dry_run)
    check_arguments(args)
    process_batch(1, args.bs, processes.count * args.nnodes)
    if not args.dry_run:
        check_experiment(args, config, processes.count * args.nnodes)
    command = launch_command(args, config, processes)
    environment = processes.environment | launcher_environment()
    if args.dry_run:
        print(shell_line(command, environment, without=steering_variables()))
        return 0
    if args.nnodes > 1:
        meeting = f"{args.master_addr}:{args.master_port}"
        others = f"machine 0 at {meeting}" if args.node_rank else f"the {args.nnodes - 1} others at {meeting}"
        print(f"machine {args.node_rank} of {args.nnodes}: waiting for {others}", file=sys.stderr, flush=True)
    code = run_to_end(command, environment)
    if 0 < code < 128:
        # torch.distributed.launch reports at length that a process failed, after that process has said why.
        print(
            f"the run failed (exit code {code}): the reason stands above the launcher's report, or, where a process "
            "was killed (Signal 9: mostly for want of memory), in it",
            file=sys.stderr,
        )
    if code > 128:
        ignore_stopping()
    return code


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; defaults that depend on other arguments are filled in."""
    parser = OneLineParser(
        prog="run.py",
        description=__doc__,
        epilog=PRESETS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--task", required=True, help=f"the experiment: {', '.join(TASKS)}")
    add("--dist", default="auto", help="the cards of this machine to use, a preset below (default: auto)")
    add("--config", type=name, help="config file (default: that of a folder to evaluate, else the task's)")
    add("--output_dir", type=name, help="folder of the results (default: outputs/TASK)")
    add(
        "--bs",
        type=int,
        help="global batch, over all processes (default, and -1: the config's, per process)",
    )
    add("--seed", type=seed, default=42, help="seed of the random numbers (default: 42)")
    add(
        "--checkpoint",
        type=weights,
        help="trained weights to evaluate (a folder: its best, by its own config), or to start from",
    )
    add("--load_ckpt_from", type=weights, help="pre-trained weights to start from")
    add("--strict", action="store_true", help="start only from weights that are of this very model")
    add("--evaluate", action="store_true", help="evaluate --checkpoint, without training")
    add(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a config value; repeatable",
    )
    add("--cache", type=name, metavar="DIR", help="keep the pictures decoded there, where every process can read them")
    add("--resume", action="store_true", help="go on with the run in --output_dir")
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
    add("--download", action="store_true", help="allow missing start files to be downloaded")
    add(
        "--dry_run",
        action="store_true",
        help="print the command; files and the cards of a preset are not looked for",
    )
    add_precision(add)
    add_speed(add)
    add("--nnodes", type=int, default=1, help="number of machines (default: 1)")
    add("--node_rank", type=int, default=0, help="this machine's number, 0 to nnodes - 1 (default: 0)")
    add("--master_addr", type=name, help="address of machine 0 (default with one machine: 127.0.0.1)")
    port = f"default: an unused one; with several machines {MULTI_MACHINE_PORT}"
    add("--master_port", type=int, help=f"port of machine 0 ({port})")
    args = parser.parse_args(arguments)

    args.output_dir = args.output_dir or f"outputs/{args.task}"
    args.bs = None if args.bs == -1 else args.bs
    if not trains_prior(args.task):
        if args.evaluate:
            args.config = args.config or config_in(args.checkpoint)
        args.checkpoint, args.load_ckpt_from = weights_in(args.checkpoint), weights_in(args.load_ckpt_from)
    if args.master_port is None:
        args.master_port = unused_port() if args.nnodes == 1 else MULTI_MACHINE_PORT
    return args


def config_file(args: argparse.Namespace) -> Path:
    """The config asked for or brought by a folder to evaluate, or else the task's own, beside this file."""
    if args.task not in TASKS:
        raise InputError(f"unknown --task {args.task!r}: {choices(args.task, tuple(TASKS))}")
    return Path(args.config) if args.config else ROOT / TASKS[args.task]


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError for arguments that contradict each other."""
    if args.nnodes < 1:
        raise InputError(f"--nnodes {args.nnodes}: at least one machine is needed")
    if not 0 <= args.node_rank < args.nnodes:
        raise InputError(
            f"--node_rank {args.node_rank} is not a machine of --nnodes {args.nnodes}: give 0 to nnodes - 1"
        )
    if args.nnodes > 1 and not args.master_addr:
        raise InputError(f"--nnodes {args.nnodes} needs --master_addr, the address of machine 0")
    if not 0 < args.master_port < 65536:
        raise InputError(f"--master_port {args.master_port} is not a port: give 1 to 65535")
    if args.node_rank == 0 and not args.dry_run and not port_is_free(args.master_port):
        raise InputError(f"--master_port {args.master_port} is in use on this machine: give another, or leave it out")
    if (tasks := slurm_tasks(("SLURM_STEP_NUM_TASKS",))) > 1 and args.nnodes == 1:
        raise InputError(
            f"srun started {tasks} launchers, each with a run of its own in {args.output_dir}: use "
            "srun --ntasks-per-node=1, with --nnodes and --node_rank for several machines (docs/launching.md)"
        )
    if args.evaluate and not args.checkpoint:
        raise InputError("--evaluate needs weights: give --checkpoint FILE or FOLDER")
    if args.checkpoint and args.load_ckpt_from:
        raise InputError("--checkpoint and --load_ckpt_from both name weights to start from; give one")
    if trains_prior(args.task) and (args.load_ckpt_from or (args.checkpoint and not args.evaluate)):
        raise InputError(f"--task {args.task} starts from what its config's 'start' names: give --override start=FILE")
    if trains_prior(args.task) and args.strict:
        raise InputError(f"--strict is for retrieval, --task {args.task} has no use for it; leave it out")
    if trains_prior(args.task) and args.cache:
        raise InputError(f"--cache is for retrieval, --task {args.task} has no use for it; leave it out")
    if pretrains(args.task) and (args.checkpoint or args.strict or args.cache):
        raise InputError(f"--task {args.task} has no use for --checkpoint, --evaluate, --strict and --cache")


def check_experiment(args: argparse.Namespace, config: Path, count: int) -> None:
    """Tell in one line, before any process starts, what each of them would stumble over."""
    if not config.is_file():
        there = ", ".join(f"configs/{file.name}" for file in sorted(ROOT.glob("configs/*.yaml")))
        raise InputError(f"no config file {config}: beside run.py there are {there or 'none'}")
    for of_weights in ("checkpoint", "load_ckpt_from"):
        file = getattr(args, of_weights)
        if file and not Path(file).is_file():
            raise InputError(f"--{of_weights}: no file {file} (looked in {Path.cwd()})")
    check_unlocked(Path(args.output_dir))
    asked = {"resume": args.resume, "overwrite": args.overwrite, "evaluate": args.evaluate}
    check_output(Path(args.output_dir), **asked)
    preflight(config, args, count)
    if args.node_rank == 0:  # the other machines see by this folder whether they share the disk
        open_output(Path(args.output_dir))


def preflight(file: Path, args: argparse.Namespace, count: int = 1) -> None:
    """Read the config and what it says of the data; the launcher's own report would bury what is wrong there.

    The demonstration's pictures are drawn here, once for all processes, where they are not there yet.
    count: of the processes, to each of which a batch must be left.
    """
    resuming = args.resume and (Path(args.output_dir) / RESUME).exists()
    if trains_prior(args.task):
        prior = prior_config_from_file(file, args.override)
        starts = [] if args.evaluate or resuming or not prior.start else [prior.start]
        problems = missing_inputs(starts, prior.annotation_files, args.download)
        from dataset.classification import read_scenes  # brings torch, which takes seconds

        try:
            scenes = read_scenes(prior)
        except InputError as error:
            raise InputError(listed([*problems, str(error)]) if problems else str(error)) from None
        if problems:
            raise InputError(listed(problems))
        if not args.evaluate:
            check_share(math.ceil(len(scenes.train) / count), process_batch(prior.batch_size_train, args.bs, count))
        return
    if pretrains(args.task):
        from utils.pretrain_config import pretrain_config_from_file

        pretraining, config = pretrain_config_from_file(file, args.override)
        if pretraining.scenes:
            from dataset.drawn.shards import draw_shards

            draw_shards(pretraining.scenes)
    else:
        config = config_from_file(file, args.override)
    if config.shard and (count > 1 or not args.evaluate):
        check_shard(config, count)
    if config.scenes:
        from dataset.drawn.scenes import draw_scenes  # which only the demonstration needs

        sizes = asdict(config.scenes)
        draw_scenes(sizes.pop("folder"), **sizes)
    starts = [] if args.checkpoint or args.load_ckpt_from or resuming else config.encoder_starts
    training = [] if args.evaluate else [config.val_file]
    if not args.evaluate and not config.trains_from_shards and not pretrains(args.task):
        training += config.train_file
    files = [*training, *([] if pretrains(args.task) else [config.test_file])]
    if problems := missing_inputs(starts, files, args.download, config.tokenizer_folder, config.image_root):
        raise InputError(f"{listed(problems, shown=10)} (looked in {Path.cwd()})")
    if not args.evaluate:
        batch = process_batch(config.batch_size_train, args.bs, count)
        if not pretrains(args.task):  # whose shards are drawn without end
            check_share(entries_of_a_process(config, count), batch)
        read_evaluation(config.val_file, config.image_root)
    if not pretrains(args.task):
        read_evaluation(config.test_file, config.image_root)


def missing_inputs(
    starts: Sequence[str], files: Sequence[str], download: bool, tokenizer: str | None = None, root: str | None = None
) -> list[str]:
    """What is wrong with every start, annotation file and folder that is not there; nothing is read.

    download: whether starts of a hub may be fetched, which each process then does.
    """
    problems = []
    named = [(start, True) for start in starts] + ([(tokenizer, False)] if tokenizer else [])
    for start, of_weights in named:
        try:
            if not start.startswith(HUB):
                place = local_start(start)
            elif download:
                continue
            else:
                from models.start_files import resolve_start  # brings torch, which only a start of a hub needs

                place = resolve_start(start)
            if of_weights:
                weight_file(place)
        except InputError as error:
            problems.append(str(error))
    problems += [f"no annotation file {file}" for file in files if not Path(file).exists()]
    if root and not Path(root).is_dir():
        problems.append(f"image_root {root} is no folder")
    return list(dict.fromkeys(problems))


def launch_command(args: argparse.Namespace, config: Path, processes: Processes) -> list[str]:
    """The one command: torch.distributed.launch around the task's script, and the program's own arguments."""
    command = [sys.executable, "-m", LAUNCHER, "--use_env"]
    command += ["--nproc_per_node", str(processes.count), "--nnodes", str(args.nnodes)]
    command += ["--node_rank", str(args.node_rank)]
    command += option("master_addr", args.master_addr or "127.0.0.1") + option("master_port", args.master_port)
    command += [str(PRIOR if trains_prior(args.task) else PRETRAIN if pretrains(args.task) else RETRIEVAL)]
    command += option("config", config) + option("output_dir", args.output_dir)
    command += option("seed", args.seed) + option("device", processes.device)
    for of_program in ("bs", "checkpoint", "load_ckpt_from", "cache"):
        if (value := getattr(args, of_program)) is not None:
            command += option(of_program, value)
    for override in args.override:
        command += option("override", override)
    flags = ("strict", "evaluate", "resume", "overwrite", "download")
    command += [f"--{flag}" for flag in flags if getattr(args, flag)]
    return command


if __name__ == "__main__":
    run_cli(main)
