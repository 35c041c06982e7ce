"""What a launcher needs: the tasks, the machine's cards and processes, a free port, one child run to its end."""

import difflib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from utils.announced import named_cards
from utils.errors import InputError
from utils.marked import end_marked, ended_with_us, marked

TASKS = {
    "itr_rsitmd": "configs/Retrieval_rsitmd.yaml",
    "itr_rsicd": "configs/Retrieval_rsicd.yaml",
    "itr_demo": "configs/Retrieval_demo.yaml",
    "itr_rsicd_lite": "configs/Retrieval_rsicd_lite.yaml",
    "itr_clip_demo": "configs/Retrieval_clip_demo.yaml",
    "itr_rsicd_clip": "configs/Retrieval_rsicd_clip.yaml",
    "itr_rsicd_clip_pir": "configs/Retrieval_rsicd_clip_pir.yaml",
    "itr_rsicd_priorclip": "configs/Retrieval_rsicd_priorclip.yaml",
    "itr_rsitmd_clip": "configs/Retrieval_rsitmd_clip.yaml",
    "itr_rsitmd_clip_pir": "configs/Retrieval_rsitmd_clip_pir.yaml",
    "itr_rsitmd_priorclip": "configs/Retrieval_rsitmd_priorclip.yaml",
    "itr_ret2_clip": "configs/Retrieval_ret2_clip.yaml",
    "pretrain_demo": "configs/Pretrain_demo.yaml",
    "prior_rsicd_lite": "configs/Prior_rsicd_lite.yaml",
    "prior_aid": "configs/Prior_aid.yaml",
}

# What a training on a CPU wants of its libraries (others do not read these), unless the user has set it:
CPU_SETTINGS = {
    # glibc gives each large tensor back to the system when it is freed and faults its pages in again for the next,
    # near half of a training step's time. These two keep freed memory.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    # Threads that wait for each other spin some milliseconds before they sleep: where another program has taken a
    # core, a step is then tens of times slower. With this they sleep soon, at no loss where the cores are free.
    "GOMP_SPINCOUNT": "5000",
}
CARD_PRESETS: dict[str, tuple[int, ...]] = {
    "f2": (0, 1),
    "f3": (0, 1, 2),
    "f4": (0, 1, 2, 3),
    "f12": (1, 2),
    "f02": (0, 2),
    "f03": (0, 3),
    "l2": (2, 3),
}
PRESETS = (*CARD_PRESETS, "gpuN", "auto", "cpu", "cpuN")

STOPPING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
KILL_SECONDS = 5  # from asking a command to end to killing it
LAUNCHER = "torch.distributed.launch"
RUN_MARK = "PIR_RUN"  # begins the name of the environment variable by which what a command has started is known


@dataclass(frozen=True)
class Processes:
    """A preset on this machine: how many processes, on which device, with which environment variables."""

    count: int
    device: str
    environment: dict[str, str]


def trains_prior(task: str) -> bool:
    """Whether the task is Prior.py's, not Retrieval.py's."""
    return task.startswith("prior_")


def pretrains(task: str) -> bool:
    """Whether the task is Pretrain.py's."""
    return task.startswith("pretrain_")


def processes_for(preset: str, check_cards: bool = True) -> Processes:
    """The processes `preset` (one of `PRESETS`) means here.

    Card i is the i-th that CUDA_VISIBLE_DEVICES names where it is set, as for every CUDA program.
    check_cards: look whether the cards are there; `auto` looks in any case.
    Raises InputError for an unknown preset and for a card that is not there.
    """
    if preset == "auto":
        cards = visible_cards()
        if not cards and named_cards():
            raise InputError(
                f"--dist auto: CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} names cards, but PyTorch sees "
                "none (no driver, or a build without CUDA): give --dist cpu, or mend that"
            )
        return card_processes(cards) if cards else cpu_processes(1)
    if match := re.fullmatch(r"cpu(\d*)", preset):
        count = int(match[1] or 1)
        if count == 0:
            raise InputError("--dist cpu0 starts no process: give cpu1 or more")
        return cpu_processes(count)
    if match := re.fullmatch(r"gpu(\d+)", preset):
        wanted: tuple[int, ...] = (int(match[1]),)
    elif preset in CARD_PRESETS:
        wanted = CARD_PRESETS[preset]
    else:
        raise InputError(f"unknown --dist {preset!r}: {choices(preset, PRESETS)}")

    named = named_cards()
    if check_cards:
        cards = visible_cards()
    else:
        cards = named if named is not None else [str(card) for card in range(max(wanted) + 1)]
    if max(wanted) >= len(cards):
        cards_wanted = "card " + ", ".join(map(str, wanted))
        listed = "" if named is None else f" of CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}"
        there = {0: "no card is there", 1: "only card 0 is there"}.get(
            len(cards), f"only cards 0 to {len(cards) - 1} are there"
        )
        raise InputError(
            f"--dist {preset} takes {cards_wanted}, but {there}{listed}: take a preset that fits, auto or cpu"
        )
    return card_processes([cards[card] for card in wanted])


def card_processes(cards: list[str]) -> Processes:
    """One process a card."""
    # One thread is torch.distributed's own default; naming it spares the user its warning.
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return Processes(len(cards), "cuda", {"CUDA_VISIBLE_DEVICES": ",".join(cards), "OMP_NUM_THREADS": threads})


def cpu_processes(count: int) -> Processes:
    """`count` processes that see no card and share the cores out among them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))
    settings = {name: os.environ.get(name, value) for name, value in CPU_SETTINGS.items()}
    return Processes(count, "cpu", {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads} | settings)


def visible_cards() -> list[str]:
    """The cards PyTorch can use, written as CUDA_VISIBLE_DEVICES writes them."""
    count = count_cards()
    named = named_cards()
    return [str(card) for card in range(count)] if named is None else named[:count]


def count_cards() -> int:
    """The number of cards PyTorch can use; 0 where it is built without CUDA or there is no driver."""
    import torch  # takes seconds, and only this count needs it

    return torch.cuda.device_count()


def launcher_environment() -> dict[str, str]:
    """Keeps torch.distributed.launch from telling users, who did not choose it, that it is deprecated."""
    filters = [os.environ.get("PYTHONWARNINGS", ""), "ignore:The module torch.distributed.launch is deprecated"]
    return {"PYTHONWARNINGS": ",".join(filter(None, filters))}


def unused_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def port_is_free(port: int) -> bool:
    """Whether a TCP port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choices(given: str, known: Sequence[str]) -> str:
    """`there are a, b, c`, and the nearest to what was given."""
    return f"there are {', '.join(known)}{nearest(given, known)}"


def nearest(given: str, known: Sequence[str]) -> str:
    """`; did you mean a?`, or nothing where none of the known is near."""
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def shell_line(command: Sequence[str], environment: Mapping[str, str], without: Sequence[str] = ()) -> str:
    """The command on one line, its environment before it, to be pasted into a shell; `without` those variables."""
    unset = ["env", *(part for name in without for part in ("-u", name))] if without else []
    assignments = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*unset, *assignments, shlex.join(command)])


def option(name: str, value: object) -> list[str]:
    """`--name value` as arguments; in one, where the value begins with a dash and would pass for an argument."""
    text = str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def steering_variables() -> list[str]:
    """The user's variables that torch.distributed.launch would take settings from: elastic clusters set them."""
    return sorted(name for name in os.environ if name.startswith("PET_") or name == "PYTHON_EXEC")


def run_to_end(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` with `environment` added to ours and return its exit code, 128 + N if signal N ended it.

    SIGINT, SIGTERM or SIGHUP to this process ends the command, after `KILL_SECONDS` by force.
    However it ends, and however this process ends, nothing it started stays behind.
    """
    # A name of its own, so that what a command's command has started is known by the marks of both.
    name, value = f"{RUN_MARK}_{uuid.uuid4().hex}", "1"
    mark = f"{name}={value}"
    steering = steering_variables()
    kept = {variable: given for variable, given in os.environ.items() if variable not in steering}
    with stopping_signals() as received, ended_with_us(mark):
        # In a session of its own, the command hears of a Ctrl-C once, from us, however often it is pressed.
        child = subprocess.Popen(command, env={**kept, **environment, name: value}, start_new_session=True)
        while not received:
            try:
                return shell_code(child.wait(timeout=0.2))
            except subprocess.TimeoutExpired:
                continue
        print(f"{signal.Signals(received[0]).name}: ending all processes", file=sys.stderr, flush=True)
        if LAUNCHER in command and marked(mark):
            # Asked to end, it prints pages of traceback; its processes are asked without it.
            child.kill()
            end_marked(mark, KILL_SECONDS)
        else:
            child.terminate()
        try:
            code = child.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        return 0 if code == 0 else 128 + received[0]


@contextmanager
def stopping_signals() -> Iterator[list[int]]:
    """The signals that asked this program to end, in order, instead of ending it."""
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in STOPPING
        # nohup has a run outlive its terminal.
        if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_stopping() -> None:
    """From now on, a Ctrl-C pressed again changes nothing: this program is ending, with an exit code that says why."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def shell_code(returncode: int) -> int:
    """A subprocess's return code as a shell gives it: a signal's -N becomes 128 + N."""
    return 128 - returncode if returncode < 0 else returncode
