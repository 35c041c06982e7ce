"""run.py: task + machines -> one torch.distributed.launch command, run to its end."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

import run
from utils import launch
from utils.errors import InputError

# What Retrieval.py's place holds in these tests: it says who it is, then does as the test wants.
STAND_IN = """
import json, os, signal, subprocess, sys, time
folder = sys.argv[sys.argv.index("--output_dir") + 1]
os.makedirs(folder, exist_ok=True)
helper = subprocess.Popen(["sleep", "60"]) if {helper} else None
names = ("RANK", "WORLD_SIZE", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
report = dict(pids=[os.getpid(), os.getppid()] + ([helper.pid] if helper else []), cwd=os.getcwd(),
              arguments=sys.argv[1:], environment={{name: os.environ.get(name) for name in names}})
if {deaf}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
file = os.path.join(folder, os.environ["RANK"] + ".json")
with open(file + ".part", "w") as stream:
    json.dump(report, stream)
os.replace(file + ".part", file)
{then}
"""
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import run
from utils.errors import run_cli
run.RETRIEVAL = Path({stand_in!r})
run.preflight = lambda *given: None
run_cli(run.main)
"""


PREFLIGHT = run.preflight


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """No outputs of earlier runs, four cards, no variable of the user's own, nothing for preflight to find wrong."""
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "count_cards", lambda: 4)
    monkeypatch.setattr(run, "preflight", lambda *given: None)


@pytest.fixture
def config(tmp_path):
    """A config file that exists; nothing here reads it."""
    file = tmp_path / "some config.yaml"
    file.write_text("")
    return file


def dry_run(capsys, *arguments: str) -> tuple[dict[str, str], list[str]]:
    """The environment and the command that `run.py ARGUMENTS --dry_run` prints, as a shell would read them."""
    assert run.main([*arguments, "--dry_run"]) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    words = shlex.split(output)
    start = next(number for number, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in words[:start]), words[start:]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def error_of(*arguments: str) -> str:
    """The one line that `run.py ARGUMENTS` ends with."""
    with pytest.raises(InputError) as caught:
        run.main(list(arguments))
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- tasks and their configs


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("itr_rsitmd", "Retrieval_rsitmd.yaml"),
        ("itr_rsicd", "Retrieval_rsicd.yaml"),
        ("itr_demo", "Retrieval_demo.yaml"),
        ("itr_rsicd_lite", "Retrieval_rsicd_lite.yaml"),
        ("prior_rsicd_lite", "Prior_rsicd_lite.yaml"),
        ("prior_aid", "Prior_aid.yaml"),
    ],
)
def test_a_task_brings_its_config_and_output_folder(capsys, monkeypatch, tmp_path, task, file):
    monkeypatch.chdir(tmp_path)
    _, command = dry_run(capsys, "--task", task, "--dist", "cpu")
    assert option(command, "--config") == str(run.ROOT / "configs" / file)
    assert Path(option(command, "--config")).is_file()
    program = run.ROOT / ("Prior.py" if task.startswith("prior") else "Retrieval.py")
    assert command[command.index("--config") - 1] == str(program) and program.is_file()
    assert option(command, "--output_dir") == f"outputs/{task}"
    assert option(command, "--seed") == "42"
    assert "--bs" not in command


def test_a_config_given_wins_over_the_tasks(capsys):
    _, command = dry_run(capsys, "--task", "itr_rsicd", "--dist", "cpu", "--config", "mine/my config.yaml")
    assert option(command, "--config") == "mine/my config.yaml"
    assert command.count("--config") == 1


def test_an_unknown_task_is_told_with_the_tasks_and_the_nearest():
    message = error_of("--task", "itr_rsitm", "--dist", "cpu")
    assert all(task in message for task in run.TASKS)
    assert message.endswith("did you mean itr_rsitmd?")


def test_a_missing_task_and_an_unknown_argument_are_one_line():
    assert "--task" in error_of("--dist", "cpu")
    assert "--overide" in error_of("--task", "itr_demo", "--overide", "a=1")
    assert "--bs" in error_of("--task", "itr_demo", "--bs", "many")


# --- presets


@pytest.mark.parametrize(
    ("preset", "unset", "chosen_by_user"),
    [
        ("f2", "0,1", "7,5"),
        ("f3", "0,1,2", "7,5,GPU-ab12"),
        ("f4", "0,1,2,3", "7,5,GPU-ab12,1"),
        ("f12", "1,2", "5,GPU-ab12"),
        ("f02", "0,2", "7,GPU-ab12"),
        ("f03", "0,3", "7,1"),
        ("l2", "2,3", "GPU-ab12,1"),
        ("gpu0", "0", "7"),
        ("gpu3", "3", "1"),
        ("auto", "0,1,2,3", "7,5,GPU-ab12,1"),
    ],
)
def test_a_preset_takes_its_cards_of_those_visible(monkeypatch, preset, unset, chosen_by_user):
    processes = launch.processes_for(preset)
    assert processes.environment == {"CUDA_VISIBLE_DEVICES": unset, "OMP_NUM_THREADS": "1"}
    assert (processes.count, processes.device) == (unset.count(",") + 1, "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, 5,GPU-ab12,1")
    assert launch.processes_for(preset).environment["CUDA_VISIBLE_DEVICES"] == chosen_by_user


@pytest.mark.parametrize(("preset", "count"), [("cpu", 1), ("cpu1", 1), ("cpu2", 2), ("cpu12", 12)])
def test_cpu_presets_hide_the_cards_and_share_the_cores(monkeypatch, preset, count):
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    processes = launch.processes_for(preset)
    threads = {1: "8", 2: "4", 12: "1"}[count]
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads} | launch.CPU_SETTINGS
    assert processes == launch.Processes(count, "cpu", environment)


@pytest.mark.parametrize("preset", ["f2", "cpu2", "auto"])
def test_the_users_own_thread_count_stays(monkeypatch, preset):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch.processes_for(preset).environment["OMP_NUM_THREADS"] == "3"


def test_auto_without_a_card_is_one_cpu_process(monkeypatch):
    monkeypatch.setattr(launch, "count_cards", lambda: 0)
    assert launch.processes_for("auto") == launch.processes_for("cpu")


def test_cards_named_after_a_negative_or_absent_one_do_not_count(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,-1,2")
    assert launch.named_cards() == ["3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,9")
    monkeypatch.setattr(launch, "count_cards", lambda: 2)  # as PyTorch counts where there is no card 9
    assert launch.visible_cards() == ["0", "1"]


@pytest.mark.parametrize(
    ("preset", "cards", "there"),
    [("f2", 0, "no card is there"), ("l2", 1, "only card 0 is"), ("f4", 3, "0 to 2"), ("gpu9", 4, "0 to 3")],
)
def test_a_missing_card_is_told_with_those_there(monkeypatch, preset, cards, there):
    monkeypatch.setattr(launch, "count_cards", lambda: cards)
    message = error_of("--task", "itr_demo", "--dist", preset)
    assert f"--dist {preset} takes card" in message and there in message


def test_a_card_missing_from_the_users_own_list_names_the_list(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert "CUDA_VISIBLE_DEVICES=4,6" in error_of("--task", "itr_demo", "--dist", "f3")


@pytest.mark.parametrize("preset", ["f5", "gpu", "gpu-1", "cpux", "", "F2", "xf2"])
def test_an_unknown_preset_is_told_with_the_presets(preset):
    message = error_of("--task", "itr_demo", "--dist", preset)
    assert all(known in message for known in launch.PRESETS)


def test_no_process_at_all_is_an_error():
    assert "cpu0" in error_of("--task", "itr_demo", "--dist", "cpu0")


def test_a_dry_run_does_not_look_for_the_cards_of_a_preset(capsys, monkeypatch):
    monkeypatch.setattr(launch, "count_cards", lambda: pytest.fail("looked for cards"))
    environment, command = dry_run(capsys, "--task", "itr_rsitmd", "--dist", "l2")
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert option(command, "--nproc_per_node") == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert "CUDA_VISIBLE_DEVICES=5" in error_of("--task", "itr_rsitmd", "--dist", "l2", "--dry_run")


# --- the command


def test_every_argument_reaches_the_program(capsys):
    awkward = 'model.note=it\'s $HOME; a "b" *'
    environment, command = dry_run(
        capsys,
        *("--task", "itr_rsitmd", "--dist", "f2", "--config", "c.yaml", "--output_dir", "out dir"),
        *("--bs", "256", "--seed", "7", "--checkpoint", "a.pth"),
        *("--override", "optimizer.lr=1e-5", "--override", awkward),
        *("--evaluate", "--resume", "--overwrite", "--download", "--master_port", "12345"),
    )
    assert command == [
        *(sys.executable, "-m", "torch.distributed.launch", "--use_env", "--nproc_per_node", "2"),
        *("--nnodes", "1", "--node_rank", "0", "--master_addr", "127.0.0.1", "--master_port", "12345"),
        *(str(run.ROOT / "Retrieval.py"), "--config", "c.yaml", "--output_dir", "out dir", "--seed", "7"),
        *("--device", "cuda", "--bs", "256", "--checkpoint", "a.pth"),
        *("--override", "optimizer.lr=1e-5", "--override", awkward),
        *("--evaluate", "--resume", "--overwrite", "--download"),
    ]
    assert list(environment)[:2] == ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"]


def test_what_makes_a_step_fast_or_small_is_short_for_overrides(capsys):
    short = ("--accumulate", "4", "--checkpoint_activations", "--precision", "bf16", "--compile", "--shard")
    _, command = dry_run(capsys, "--task", "itr_rsicd", "--dist", "cpu2", *short)
    given = [after for before, after in pairwise(command) if before == "--override"]
    assert given == ["accumulate=4", "checkpoint_activations=True", "precision=bf16", "compile=True", "shard=True"]


def test_a_prior_s_arguments_reach_its_program(capsys):
    _, command = dry_run(
        capsys,
        *("--task", "prior_rsicd_lite", "--dist", "cpu2", "--bs", "64", "--override", "image_root=pictures"),
        *("--resume", "--overwrite", "--download", "--evaluate", "--checkpoint", "prior.pth"),
    )
    assert command[command.index(str(run.ROOT / "Prior.py")) + 3 :] == [
        *("--output_dir", "outputs/prior_rsicd_lite", "--seed", "42", "--device", "cpu", "--bs", "64"),
        *("--checkpoint", "prior.pth", "--override", "image_root=pictures"),
        *("--evaluate", "--resume", "--overwrite", "--download"),
    ]


@pytest.mark.parametrize("option", ["--checkpoint", "--load_ckpt_from"])
def test_what_a_prior_starts_from_is_its_config_s(option):
    assert "--override start=FILE" in error_of("--task", "prior_aid", "--dist", "cpu", option, "a.pth", "--dry_run")


def test_domain_weights_reach_the_program_and_exclude_a_checkpoint(capsys):
    start = ("--task", "itr_rsitmd", "--dist", "f2", "--load_ckpt_from", "b.pth")
    assert option(dry_run(capsys, *start)[1], "--load_ckpt_from") == "b.pth"
    assert "give one" in error_of(*start, "--checkpoint", "a.pth", "--dry_run")


def test_the_line_printed_is_the_command_run(capsys, monkeypatch, config):
    ran = []
    monkeypatch.setattr(run, "run_to_end", lambda command, environment: ran.append((environment, command)) or 0)
    arguments = ("--task", "itr_demo", "--dist", "cpu2", "--config", str(config), "--master_port", "4567")
    assert run.main(list(arguments)) == 0
    assert ran == [dry_run(capsys, *arguments)]


def test_the_users_own_warning_filters_stay(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    filters = launch.launcher_environment()["PYTHONWARNINGS"].split(",")
    assert filters[0] == "error" and filters[1].startswith("ignore:The module torch.distributed.launch")


# --- batch, files, evaluation


@pytest.mark.parametrize("given", [(), ("--bs", "-1")])
def test_without_a_batch_size_the_configs_stays(capsys, given):
    _, command = dry_run(capsys, "--task", "itr_demo", "--dist", "f3", *given)
    assert "--bs" not in command


def test_a_global_batch_that_does_not_divide_is_an_error(capsys):
    assert "99 or 102" in error_of("--task", "itr_demo", "--dist", "f3", "--bs", "100", "--dry_run")
    assert "try 4" in error_of("--task", "itr_demo", "--dist", "f4", "--bs", "3", "--dry_run")
    machines = ("--nnodes", "4", "--master_addr", "head")
    assert "8 processes" in error_of("--task", "itr_demo", "--dist", "f2", "--bs", "100", *machines, "--dry_run")
    _, command = dry_run(capsys, "--task", "itr_demo", "--dist", "f2", "--bs", "96", *machines)
    assert option(command, "--bs") == "96"


@pytest.mark.parametrize("size", ["0", "-2"])
def test_a_batch_of_nothing_is_an_error(size):
    assert f"--bs {size}" in error_of("--task", "itr_demo", "--dist", "cpu", "--bs", size)


def test_missing_files_are_told_before_anything_runs(monkeypatch, config):
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    start = ("--task", "itr_demo", "--dist", "cpu")
    assert "nowhere.yaml" in error_of(*start, "--config", "nowhere.yaml")
    for given in ("--checkpoint", "--load_ckpt_from"):
        message = error_of(*start, "--config", str(config), given, "nowhere.pth")
        assert given in message and "nowhere.pth" in message


@pytest.mark.parametrize("option", ["--output_dir", "--config", "--checkpoint", "--load_ckpt_from", "--cache"])
def test_an_empty_name_is_an_error_and_not_the_default(option):
    assert f"argument {option}: the name is empty" in error_of("--task", "itr_demo", "--dist", "cpu", option, "")


@pytest.mark.parametrize("script", ["Retrieval.py", "Prior.py"])
def test_an_empty_name_is_an_error_in_the_programs_too(script, tmp_path):
    given = ("--config", "", "--output_dir", str(tmp_path))
    done = subprocess.run([sys.executable, script, *given], cwd=run.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "the name is empty" in done.stderr


def test_the_published_launchers_ways_to_name_no_weights_are_understood(capsys):
    _, command = dry_run(capsys, "--task", "itr_rsicd", "--dist", "f2", "--checkpoint", "-1", "--load_ckpt_from", " ")
    assert "--checkpoint" not in command and "--load_ckpt_from" not in command


def test_an_evaluation_needs_weights():
    assert "--checkpoint" in error_of("--task", "itr_demo", "--dist", "cpu", "--evaluate")


@pytest.fixture
def published(tmp_path):
    """A folder as published, of files that nothing here reads."""
    folder = tmp_path / "PIR/full_rsitmd"
    folder.mkdir(parents=True)
    for name in ("checkpoint_best.pth", "config.yaml", "log.txt"):
        (folder / name).write_text("")
    return folder


def test_a_folder_to_evaluate_stands_for_its_best_checkpoint_and_brings_its_config(capsys, published):
    given = ("--task", "itr_rsicd", "--dist", "cpu", "--evaluate", "--checkpoint", str(published))
    _, command = dry_run(capsys, *given, "--override", "image_root=pictures")
    assert option(command, "--checkpoint") == str(published / "checkpoint_best.pth")
    assert option(command, "--config") == str(published / "config.yaml")
    assert option(command, "--override") == "image_root=pictures"
    _, command = dry_run(capsys, *given, "--config", "mine.yaml")
    assert option(command, "--config") == "mine.yaml"
    _, command = dry_run(capsys, *given[:-1], str(published / "checkpoint_best.pth"))
    assert option(command, "--config") == str(run.ROOT / "configs/Retrieval_rsicd.yaml")


@pytest.mark.parametrize("given", ["--checkpoint", "--load_ckpt_from"])
def test_training_from_a_folder_takes_its_weights_and_the_tasks_config(capsys, published, given):
    _, command = dry_run(capsys, "--task", "itr_rsicd", "--dist", "cpu", given, str(published))
    assert option(command, given) == str(published / "checkpoint_best.pth")
    assert option(command, "--config") == str(run.ROOT / "configs/Retrieval_rsicd.yaml")


@pytest.mark.parametrize("missing", ["checkpoint_best.pth", "config.yaml"])
def test_a_folder_that_lacks_a_file_is_told_with_it(monkeypatch, published, missing):
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    (published / missing).unlink()
    given = ("--task", "itr_rsitmd", "--dist", "cpu", "--evaluate", "--checkpoint", str(published))
    assert str(published / missing) in error_of(*given)


def test_the_experiment_is_checked_before_it_is_launched(monkeypatch, config):
    def refuse(*given):
        assert (given[0], given[1].override) == (config, ["a=1", "b=2"])
        raise InputError("the config is wrong")

    monkeypatch.setattr(run, "preflight", refuse)
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    message = error_of(
        *("--task", "itr_demo", "--dist", "cpu3", "--config", str(config), "--bs", "12"),
        *("--nnodes", "2", "--master_addr", "head", "--override", "a=1", "--override", "b=2"),
    )
    assert message == "the config is wrong"


def test_a_mistake_in_the_config_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr(run, "preflight", PREFLIGHT)
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    monkeypatch.chdir(run.ROOT)  # where the config finds its size files
    message = error_of("--task", "itr_rsicd", "--dist", "cpu", "--override", "filter_sise=3")
    assert "filter_sise" in message and "filter_size" in message


def test_missing_annotations_are_told_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "preflight", PREFLIGHT)
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    monkeypatch.chdir(run.ROOT)
    data = ("--override", f"train_file={tmp_path}/none.json", "--override", f"image_root={tmp_path}")
    message = error_of("--task", "itr_rsicd", "--dist", "cpu", *data)
    assert "none.json" in message


def test_a_prior_s_mistakes_are_told_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "preflight", PREFLIGHT)
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    start = ("--task", "prior_aid", "--dist", "cpu", "--override")
    assert "nearest is 'fixed_bn'" in error_of(*start, "fixed_bm=True")
    assert f"{tmp_path} holds no class folders" in error_of(*start, f"class_folders={tmp_path}")


def test_a_folder_that_holds_a_run_is_refused_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))
    (tmp_path / "log.txt").write_text("{}")
    message = error_of("--task", "itr_demo", "--dist", "cpu", "--output_dir", str(tmp_path))
    assert "--resume" in message and "--overwrite" in message


# --- machines and ports


def test_a_command_for_one_of_several_machines(capsys):
    machines = ("--nnodes", "3", "--node_rank", "2", "--master_addr", "10.0.0.1")
    _, command = dry_run(capsys, "--task", "itr_rsicd", "--dist", "f4", *machines)
    assert (option(command, "--nnodes"), option(command, "--node_rank")) == ("3", "2")
    assert (option(command, "--master_addr"), option(command, "--master_port")) == ("10.0.0.1", "29500")
    _, command = dry_run(capsys, "--task", "itr_rsicd", "--dist", "f4", *machines, "--master_port", "31000")
    assert option(command, "--master_port") == "31000"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--nnodes", "2"), "--master_addr"),
        (("--nnodes", "0"), "--nnodes 0"),
        (("--nnodes", "2", "--master_addr", "a", "--node_rank", "2"), "--node_rank 2"),
        (("--nnodes", "2", "--master_addr", "a", "--node_rank", "-1"), "--node_rank -1"),
        (("--node_rank", "1"), "--node_rank 1"),
        (("--master_port", "0"), "--master_port 0"),
        (("--master_port", "65536"), "--master_port 65536"),
    ],
)
def test_machines_that_do_not_fit_together_are_an_error(arguments, named):
    assert named in error_of("--task", "itr_demo", "--dist", "cpu", *arguments)


def test_the_default_port_is_one_nobody_listens_on(capsys):
    ports = {int(option(dry_run(capsys, "--task", "itr_demo", "--dist", "cpu")[1], "--master_port")) for _ in range(5)}
    assert len(ports) > 1
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("", port))


# --- the child: exit codes and signals


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("", 0),
        ("import sys; sys.exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_the_childs_exit_code_is_ours(program, code):
    assert launch.run_to_end([sys.executable, "-c", program], {}) == code


@pytest.fixture
def terminal_closes():
    """SIGHUP as under a terminal, also where the tests themselves run under nohup and inherit that it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal_closes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_even_a_child_deaf_to_it(monkeypatch, capsys, tmp_path, number):
    monkeypatch.setattr(launch, "KILL_SECONDS", 0.5)
    before = signal.getsignal(number)
    ready = tmp_path / "ready"
    ignore = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]"
    deaf = f"{ignore}; open({str(ready)!r}, 'w'); time.sleep(60)"

    def interrupt():
        wait_for(ready.exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    start = time.monotonic()
    assert launch.run_to_end([sys.executable, "-c", deaf], {}) == 128 + number
    assert time.monotonic() - start < 10
    assert number.name in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_a_run_under_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGHUP)).start()
        assert launch.run_to_end([sys.executable, "-c", "import time; time.sleep(1)"], {}) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="left-over processes are found through /proc")
@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_a_child_started_stays_behind_but_what_others_started_does(tmp_path, end):
    started = tmp_path / "started"
    program = f"""
import os, signal, subprocess
process = subprocess.Popen(["sleep", "60"], start_new_session=True)
open({str(started)!r}, "w").write(str(process.pid))
{end}
"""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        assert launch.run_to_end([sys.executable, "-c", program], {}) == (0 if end == "pass" else 137)
        wait_for(lambda: not is_running(int(started.read_text())), seconds=5)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


# --- the real launcher, around a stand-in for Retrieval.py


def start_run(tmp_path: Path, name: str, *arguments: str, deaf=False, helper=False, then="", cwd=None):
    """Start run.py's main on two CPU processes of a stand-in; its reports go to tmp_path/NAME."""
    stand_in = tmp_path / f"stand_in_{name}.py"
    stand_in.write_text(STAND_IN.format(deaf=deaf, helper=helper, then=then))
    config = tmp_path / "config.yaml"
    config.touch()
    driver = DRIVER.format(root=str(run.ROOT), stand_in=str(stand_in))
    command = ["--task", "itr_demo", "--dist", "cpu2", "--config", str(config)]
    return subprocess.Popen(
        [sys.executable, "-c", driver, *command, "--output_dir", str(tmp_path / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
    )


def reports(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def wait_for(condition, seconds: float = 60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_runs_side_by_side_do_not_clash_and_say_nothing_of_their_own(tmp_path):
    runs = [start_run(tmp_path, name, "--bs", "8", cwd=tmp_path) for name in ("one", "other")]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs
    assert outputs == ["", ""]
    ports = set()
    for name in ("one", "other"):
        ranks = reports(tmp_path / name)
        assert [rank["environment"]["RANK"] for rank in ranks] == ["0", "1"]
        for rank in ranks:
            assert rank["environment"]["WORLD_SIZE"] == "2"
            assert rank["environment"]["CUDA_VISIBLE_DEVICES"] == ""
            assert Path(rank["cwd"]) == tmp_path
            given = rank["arguments"]
            assert (option(given, "--bs"), option(given, "--device")) == ("8", "cpu")
            ports.add(rank["environment"]["MASTER_PORT"])
    assert len(ports) == 2


def test_two_machines_make_one_run(tmp_path):
    port = str(launch.unused_port())
    together = ("--nnodes", "2", "--master_addr", "127.0.0.1", "--master_port", port)
    runs = [start_run(tmp_path, "both", *together, "--node_rank", rank) for rank in ("0", "1")]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs
    environments = [rank["environment"] for rank in reports(tmp_path / "both")]
    assert [environment["RANK"] for environment in environments] == ["0", "1", "2", "3"]
    assert {environment["WORLD_SIZE"] for environment in environments} == {"4"}


def test_a_failed_process_ends_the_other_and_the_run(tmp_path):
    then = "print('the reason', flush=True) or sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)"
    process = start_run(tmp_path, "failing", then=then)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.startswith("the reason\n")
    assert output.splitlines()[-1].startswith("the run failed (exit code 1)")
    assert not any(is_running(pid) for rank in reports(tmp_path / "failing") for pid in rank["pids"])


@pytest.mark.parametrize(("number", "deaf"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)])
def test_a_signal_ends_every_process_within_ten_seconds(tmp_path, number, deaf):
    process = start_run(tmp_path, "sleeping", deaf=deaf, helper=True, then="time.sleep(60)")
    wait_for(lambda: len(reports(tmp_path / "sleeping")) == 2)
    pids = {pid for rank in reports(tmp_path / "sleeping") for pid in rank["pids"]}
    assert len(pids) == 5 and all(is_running(pid) for pid in pids)  # launcher, two ranks, a helper each
    start = time.monotonic()
    for _ in range(2):  # people press Ctrl-C again
        process.send_signal(number)
        time.sleep(0.1)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 128 + number
    assert output.startswith(f"{number.name}: ending all processes")
    wait_for(lambda: not any(is_running(pid) for pid in pids), seconds=2)
