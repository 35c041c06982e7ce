"""Foreign values and files of every hostile kind, and a machine that fails: one line each, in bounded time."""

import argparse
import errno
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cache import INDEX, PIXELS, PictureCache, fill_cache
from dataset.pictures import load_picture
from dataset.shards import read_index
from dataset.tokenizer import load_tokenizer
from models.backbones import bert_like, timm_backbone
from models.start_files import load_vision_start, resolve_start
from study.results import _read_arrays as read_arrays
from study.results import read_result
from tests.tiny import FILES, SIZES, TEXT, VISION
from utils import checkpoint
from utils.arguments import seed
from utils.config import config_from_dict, config_from_file
from utils.errors import InputError, printable, shown
from utils.files import YAML_BYTES, file_checksum, read_bytes, read_json, read_text, write_whole
from utils.logs import append_line
from utils.machine_failures import way_out
from utils.resumed_log import truncate_log
from utils.typed import apply_override, read_yaml

ROOT = Path(__file__).parents[1]
SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


def line_of(call, *arguments):
    """The one line of an InputError, which it must be."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    line = printable(str(caught.value))
    assert len(line) < 700, line
    return line


def aliases(level, first):
    """YAML of a few lines whose aliases stand for 9 ** 9 values."""
    names = "abcdefghij"
    return first + "".join(f"{b}: &{b} {level.format(','.join([f'*{a}'] * 9))}\n" for a, b in itertools.pairwise(names))


# ---- YAML and overrides ----

VALUES = {
    "5,000 digits": ("9" * 5000, "4300 digits"),
    "month 13": ("2024-13-01", "month must be in 1..12"),
    "an int that is none": ("!!int foo", "invalid literal for int"),
    "a float that is none": ("!!float foo", "could not convert"),
    "a date that is none": ("!!timestamp foo", "is not YAML"),
    "a bool that is none": ("!!bool foo", "is not YAML"),
    "an object": ("!!python/object:os.system x", "could not determine a constructor"),
    "5,000 lists": ("[" * 5000 + "]" * 5000, "nested too deep"),
    "900 lists": ("[" * 900 + "]" * 900, "nested too deep"),
    "5,000 mappings": ("{a: " * 5000 + "}" * 5000, "nested too deep"),
    "a list in itself": ("&a [*a]", "aliases"),
    "an unknown alias": ("*a", "undefined alias"),
    "a zero character": ("a\0", "unacceptable character"),
}


@pytest.mark.parametrize(("text", "told"), VALUES.values(), ids=VALUES)
def test_a_yaml_value_that_is_none_is_one_line(tmp_path, text, told):
    (tmp_path / "a.yaml").write_text(f"head: {text}\n")
    assert told in line_of(read_yaml, tmp_path / "a.yaml")
    line = line_of(apply_override, {}, f"head={text}")
    assert told in line and line.startswith("--override 'head=")


@pytest.mark.parametrize("text", [aliases("[{}]", "a: &a [x]\n"), aliases("{{<<: [{}]}}", "a: &a {x: 1}\n")])
def test_aliases_of_aliases_end_at_once(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert "aliases stand for over 100,000 values" in line_of(read_yaml, tmp_path / "a.yaml")


def test_a_few_aliases_are_read_as_ever(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


NUMBERS = {
    "head": (10**30, "'head' is 1000000000000000000000000000000, must be at most 1000"),
    "batch_size_train": (10**30, "must be at most 2147483647"),
    "dropout_r": (10**400, "expected a number"),
    "temp1": (float("inf"), "expected a number"),
    "image_res": (10**9, "must be at most 65536"),
    "num_workers": (10**6, "must be at most 1000"),
    "randaugment_ops": (10**9, "must be at most 1000"),
    "embed_dim": (2**16 + 1, "must be at most 65536"),
    "k_test": (16**5000, "'k_test' is a int too long to show"),
    "image_id": ("x" * 5000, f"'image_id' is '{'x' * 39}..., expected one of as_given, by_path"),
    "\x1b[31m": (1, "unknown key '\\x1b[31m'"),
    "k" * 5000: (1, f"unknown key '{'k' * 40}'"),
}


@pytest.mark.parametrize(("key", "value", "told"), [(k, *v) for k, v in NUMBERS.items()], ids=[k[:20] for k in NUMBERS])
def test_a_value_past_its_bounds_is_one_line(key, value, told):
    assert told in line_of(config_from_dict, FILES | {key: value})


# ---- sizes of encoders ----

DEEP = {"a": {}}
for _ in range(500):
    DEEP = {"a": DEEP}
SIZES_OF_ENCODERS = [
    ("vision_config", "embed_dim", 10**9, "must be at most 65536"),
    ("vision_config", "vision_width", 10**30, "must be at most 65536"),
    ("vision_config", "depths", [2, 10**9, 2], "must be at most 1000"),
    ("vision_config", "depths", "x", "expected a list"),
    ("vision_config", "num_heads", [1, 2, 0], "must be at least 1"),
    ("text_config", "vocab_size", 10**12, "must be at most 10000000"),
    ("text_config", "hidden_size", 10**9, "must be at most 65536"),
    ("text_config", "hidden_size", -1, "expected a whole number of at least 1"),
    ("text_config", "hidden_size", "a" * 99, "..., expected a whole number"),
    ("text_config", "num_hidden_layers", 10**6, "must be at most 1000"),
    ("text_config", "intermediate_size", "x", "expected a whole number"),
    ("text_config", "max_position_embeddings", 10**12, "must be at most 1000000"),
    ("text_config", "hidden_dropout_prob", 3, "below 1"),
    ("text_config", "layer_norm_eps", "x", "expected a number"),
    ("text_config", "nested", DEEP, "nested too deep"),
    ("text_config", "large", 10**30, "does not fit 64 bits"),
]


@pytest.mark.parametrize(("config", "key", "value", "told"), SIZES_OF_ENCODERS)
def test_an_encoders_size_past_its_bounds_is_one_line(config, key, value, told):
    sizes = {"vision_config": VISION, "text_config": TEXT}
    sizes[config] = sizes[config] | {key: value}
    assert told in line_of(config_from_dict, FILES | SIZES | sizes)


def test_encoders_that_no_memory_holds_are_refused_before_they_are_built():
    text = TEXT | {"hidden_size": 65_536, "num_hidden_layers": 1000, "num_attention_heads": 4}
    assert "text_config describes over" in line_of(config_from_dict, FILES | SIZES | {"text_config": text})
    vision = {"embed_dim": 65_536, "depths": [2, 2, 2], "num_heads": [1, 1, 1], "vision_width": 2**18}
    with pytest.raises(InputError, match="must be at most 65536"):
        config_from_dict(FILES | SIZES | {"vision_config": vision, "text_config": TEXT})
    vision |= {"vision_width": 2**16, "embed_dim": 2**14, "depths": [2, 2, 90]}
    assert "vision_config describes over" in line_of(
        config_from_dict, FILES | SIZES | {"vision_config": vision, "text_config": TEXT}
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "none_such"),
        ("pad_token_id", 10**6),
        ("model_type", "none_such"),
        ("model_type", 5),
        ("model_type", "clip"),
        ("dtype", "none_such"),
        ("attn_implementation", "none_such"),
        ("id2label", [1]),
        ("initializer_range", "x"),
        ("num_attention_heads", 0),
        ("hidden_size", 30),
        ("hidden_size", -1),
    ],
)
def test_what_transformers_or_torch_refuses_is_one_line(key, value):
    assert line_of(bert_like, TEXT | {key: value}).startswith("text_config: ")


def test_an_unknown_weights_tag_names_those_there_are():
    line = line_of(lambda: timm_backbone("resnet50.nonsense", image_res=64, pooled=True))
    assert "Invalid pretrained tag (nonsense)" in line and "resnet50.a1_in1k" in line
    assert "timm has no model" in line_of(lambda: timm_backbone("x" * 5000, image_res=64, pooled=True))
    assert "timm:resnet50.nonsense" in line_of(resolve_start, "timm:resnet50.nonsense")


def test_seeds_past_what_torch_takes_are_one_line():
    for text in ("-1", str(2**32), "9" * 5000, "1.5", "", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no seed"):
            seed(text)
    assert seed("0") == 0 and seed(str(2**32 - 1)) == 2**32 - 1


# ---- names, kinds and sizes of files ----

READERS = {
    "a text": read_text,
    "JSON": read_json,
    "YAML": read_yaml,
    "a checksum": file_checksum,
    "weights": checkpoint.read_torch_file,
    "weights of safetensors": checkpoint.read_checkpoint,
    "a picture": load_picture,
    "a result": lambda file: read_result(Path(file)),
    "arrays": lambda file: read_arrays(Path(file)),
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing"])
def test_only_regular_files_are_read(reader, tmp_path, kind):
    file = tmp_path / "file.safetensors"
    if kind == "pipe":
        os.mkfifo(file)
    if kind == "device":
        file.symlink_to("/dev/zero")
    if kind == "folder":
        file.mkdir()
    assert "file.safetensors" in one_line_of_any(reader, file)


def one_line_of_any(call, *arguments):
    """The line that a script would end with: of an InputError, or of an error that it explains."""
    try:
        call(*arguments)
    except InputError as error:
        return printable(str(error))
    except Exception as error:
        line = way_out(error)
        assert line is not None, repr(error)
        return printable(line)
    pytest.fail("nothing was wrong")


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a\ud800b", os.fsdecode(b"a\xffb"), "a\nb\x1b[31m"])
def test_a_name_that_no_file_has_is_one_printable_line(reader, tmp_path, name):
    line = one_line_of_any(reader, tmp_path / name)
    assert line.isprintable() and str(tmp_path) in line


def test_a_file_that_may_not_be_read_is_one_line(reader, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("{}")

    def refused(file, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    for target in ("builtins.open", "pathlib.Path.open", "io.open"):
        monkeypatch.setattr(target, refused)
    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(Path, "stat", refused)
    line = one_line_of_any(reader, tmp_path / "file")
    assert "ermission" in line and "file" in line


def test_a_file_past_its_limit_is_not_read(tmp_path):
    with (tmp_path / "large.yaml").open("wb") as stream:
        stream.truncate(2**40)  # of holes
    assert f"it is larger than {YAML_BYTES:,} bytes" in line_of(read_yaml, tmp_path / "large.yaml")
    assert "it is larger than 2,147,483,648 bytes" in line_of(read_json, tmp_path / "large.yaml")
    with pytest.raises(OSError, match="larger than 9 bytes"):
        read_bytes(tmp_path / "large.yaml", 9)
    (tmp_path / "ten").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "ten", 10) == b"0123456789"


def test_a_file_that_grows_without_end_is_read_to_its_limit(monkeypatch, tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    monkeypatch.setattr("utils.files.stat.S_ISREG", lambda mode: True)  # as files of /proc say of themselves
    assert len(read_bytes(ROOT / "README.md", 10**6)) == (ROOT / "README.md").stat().st_size
    assert read_bytes("/proc/self/stat", 10**6)  # of size 0
    monkeypatch.setattr(os, "stat", lambda file: os.stat_result((0,) * 10))
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read_bytes(tmp_path / "zero", 1000)


# ---- JSON, results, arrays ----


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"", b"{", b'{"seed": NaN}', b'{"seed": 1e999}', b"[]"]
)
def test_a_damaged_result_is_one_line(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    assert "remove it and run its row again" in line_of(read_result, tmp_path / "result.json")


def test_arrays_that_unpack_to_more_than_memory_are_refused(tmp_path):
    file = tmp_path / "ranks.npz"
    np.savez_compressed(file, a=np.zeros(10))
    assert list(read_arrays(file)) == ["a"]
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as members:
        for number in range(5):
            members.writestr(f"{number}.npy", b"")
        for member in members.infolist():
            member.file_size = 2**32
    assert "its arrays are larger than" in line_of(read_arrays, tmp_path / "large.npz")


@pytest.mark.parametrize(
    "line", [b"[1]", b"nonsense", b'{"epoch": "x"}', b"\xff\xfe", b"[" * 100_000, b'{"epoch": ' + b"9" * 5000 + b"}"]
)
def test_a_damaged_log_is_one_line_with_its_number(tmp_path, line):
    log = tmp_path / "log.txt"
    log.write_bytes(b'{"epoch": 0}\n' + line + b'\n{"epoch": 1}\n')
    assert "log.txt line 2 is no JSON line with an epoch" in line_of(truncate_log, log, 2)
    log.unlink()
    os.mkfifo(log)
    assert "no regular file" in line_of(truncate_log, log, 2)


# ---- vocabularies ----


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Missing [UNK]"),
        (SPECIAL.encode() + b"caf\xe9\n", "valid UTF-8"),
        (b"a\nb\nc\n", "Missing [UNK]"),
        (b"[PAD]\n[UNK]\na\n", "it lacks [SEP], [CLS], [MASK]"),
        (b"\0" * 99, "Missing [UNK]"),
    ],
)
def test_a_vocabulary_that_is_none_is_one_line(tmp_path, content, told):
    (tmp_path / "vocab.txt").write_bytes(content)
    line = line_of(load_tokenizer, tmp_path, 100)
    assert told.split("[SEP]")[0] in line and line.startswith("tokenizer in ")


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "tokenizer_config.json"])
def test_a_vocabulary_that_is_a_pipe_is_not_waited_for(tmp_path, name):
    (tmp_path / "vocab.txt").write_text(SPECIAL)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert f"{name}: it is no regular file" in line_of(load_tokenizer, tmp_path, 100)


# ---- shards and the cache ----


@pytest.mark.parametrize("key", ["pictures", "captions", "bytes"])
@pytest.mark.parametrize("value", [10**30, -1, "x", 1.5, None])
def test_a_shard_index_with_impossible_numbers_is_one_line(tmp_path, key, value):
    shard = {"file": "a-0.tar", "pictures": 1, "captions": 1, "bytes": 1} | {key: value}
    (tmp_path / "a.json").write_text(json.dumps({"format": 1, "labels": True, "shards": [shard]}))
    assert "is no index of shards that this program wrote" in line_of(read_index, tmp_path / "a.json")


@pytest.fixture
def cache(tmp_path):
    """A folder `cache` of two pictures, and their paths."""
    files = [str(tmp_path / f"{number}.png") for number in range(2)]
    for number, file in enumerate(files):
        Image.new("RGB", (8, 4), (number, 2, 3)).save(file)
    fill_cache(tmp_path / "cache", tmp_path, files)
    return tmp_path / "cache", files


CHANGES = {
    "height": 0,
    "width": 10**30,
    "offset": -1,
    "crc": "x",
    "image": 5,
    "file_bytes": None,
    "unknown": 1,
}


@pytest.mark.parametrize(("key", "value"), CHANGES.items(), ids=CHANGES)
def test_a_damaged_cache_index_is_one_line(cache, key, value):
    folder, files = cache
    header, first, *others = (folder / INDEX).read_text().splitlines()
    changed = json.dumps(json.loads(first) | {key: value})
    (folder / INDEX).write_text("\n".join([header, changed, *others, ""]))
    assert "remove" in line_of(PictureCache(folder, folder.parent).open, files)


@pytest.mark.parametrize("content", [b"\xff\n", b"[" * 100_000 + b"\n", b"{}\n", b"9" * 5000 + b"\n"])
def test_a_cache_index_of_something_else_is_one_line(cache, content):
    (cache[0] / INDEX).write_bytes(content)
    assert "is no index of this program's" in line_of(PictureCache(cache[0], cache[0].parent).open, cache[1])


@pytest.mark.parametrize("name", [INDEX, PIXELS])
def test_a_cache_of_pipes_is_not_waited_for(cache, name):
    (cache[0] / name).unlink()
    os.mkfifo(cache[0] / name)
    assert "it is no regular file" in line_of(PictureCache(cache[0], cache[0].parent).open, cache[1])


def test_a_cache_cut_short_while_it_is_read_is_one_line(cache):
    folder, files = cache
    opened = PictureCache(folder, folder.parent)
    opened.open(files)
    assert opened.load(files[1]).tolist() == [[[1, 2, 3]] * 8] * 4
    os.truncate(folder / PIXELS, 0)  # a look at its pixels would now end the process (SIGBUS)
    assert "was cut short while it was read" in line_of(opened.load, files[1])


# ---- a machine that fails ----

# Faults that need a process of their own; one script imports torch once for all of them and forks.
FAULTS = """
import os, resource, sys, torch
from pathlib import Path
from dataset.loaders import PictureLoader
from utils import checkpoint
from utils.errors import run_cli
from utils.files import write_whole

class Pictures(torch.utils.data.Dataset):
    def __init__(self, fault=lambda: None):
        self.fault = fault
    def __len__(self):
        return 200
    def __getitem__(self, number):
        if number == 20:
            self.fault()
        return torch.zeros(3, 16, 16)

def load(fault=lambda: None):
    return list(PictureLoader(Pictures(fault), batch_size=4, num_workers=1))

def limited(kind, limit, action):
    resource.setrlimit(kind, (limit, limit))
    action()

def few_to_begin_with():
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 10**4))
    return len(load())

files, folder = resource.RLIMIT_FSIZE, Path(sys.argv[1])
faults = {
    "killed": lambda: load(lambda: os.kill(os.getpid(), 9)),
    "too few open files": lambda: limited(resource.RLIMIT_NOFILE, 60, load),
    "few open files to begin with": lambda: print(few_to_begin_with(), file=sys.stderr),
    "no shared memory": lambda: limited(files, 1000, load),
    "out of memory": lambda: load(lambda: torch.empty(2**60)),
    "no space for a file": lambda: limited(files, 10**5, lambda: write_whole(folder / "resume.pth", bytes(10**6))),
    "no space for a checkpoint": lambda: limited(
        files, 10**5, lambda: checkpoint.save(folder / "resume.pth", {"a": torch.zeros(10**6)})
    ),
    "no space for the last of a checkpoint": lambda: limited(
        files, 10**5, lambda: checkpoint.save(folder / "resume.pth", {str(n): torch.zeros(1000) for n in range(99)})
    ),
}
for name, fault in faults.items():
    if (child := os.fork()) == 0:
        said = os.open(folder / "said" / name, os.O_CREAT | os.O_WRONLY)
        os.dup2(said, 2)
        try:
            run_cli(fault)
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code or 0)  # without the seconds that torch takes to be taken down
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), name, flush=True)
"""
TOLD = {
    "killed": "a worker of the loader was ended from outside|ended first",  # as torch or the system tells of it
    "too few open files": "ulimit -n 65536",
    "no shared memory": "--shm-size=8g",
    "out of memory": "memory ran out: use a smaller batch_size_train",
    "no space for a file": "resume.pth cannot be written",
    "no space for a checkpoint": "go on \\(a training with --resume\\)",
    "no space for the last of a checkpoint": "go on \\(a training with --resume\\)",
}


def script(code, *arguments):
    """What a script of this project gives."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """The folder that the faults ran in, and the exit status of each."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "said").mkdir()
    (folder / "resume.pth").write_bytes(b"whole")
    done = script(FAULTS, folder)
    assert done.returncode == 0, done.stderr
    return folder, {name: int(status) for status, _, name in (line.partition(" ") for line in done.stdout.splitlines())}


@pytest.mark.parametrize("name", TOLD)
def test_a_machine_that_fails_ends_a_run_in_one_line_with_the_way_out(faults, name):
    folder, statuses = faults
    said = (folder / "said" / name).read_text()
    assert statuses[name] == 2, said
    assert "Traceback" not in said and re.search(f"error: .*({TOLD[name]})", said.splitlines()[-1]), said


def test_a_limit_of_open_files_that_may_be_raised_is(faults):
    folder, statuses = faults
    name = "few open files to begin with"
    assert statuses[name] == 0 and (folder / "said" / name).read_text() == "50\n"


def test_what_does_not_fit_the_disk_leaves_what_was_there_whole(faults):
    folder, _ = faults
    assert sorted(os.listdir(folder)) == ["resume.pth", "said"] and (folder / "resume.pth").read_bytes() == b"whole"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_write_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch, number):
    file = tmp_path / "result.json"
    write_whole(file, b"whole")

    def fails(path, content):
        with path.open("wb") as stream:
            stream.write(content[:1])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fails)
    line = line_of(write_whole, file, b"other")
    assert os.strerror(number) in line and ("free some space" in line) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert file.read_bytes() == b"whole" and os.listdir(tmp_path) == ["result.json"]


def test_a_log_that_does_not_fit_the_disk_is_named(tmp_path):
    line = one_line_of_any(append_line, Path("/dev/full"), {"epoch": 0})
    assert "free some space" in line and "/dev/full" in line


class OutOfMemoryError(RuntimeError):
    """As torch's of a card is named."""


SAID = [
    (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 ..."), "batch_size_train"),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        "batch_size_train",
    ),
    (MemoryError(), "batch_size_train"),
    (RuntimeError("The server socket has failed to listen. port: 29500, errno: 98 (EADDRINUSE)"), "--master_port"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"), "--shm-size"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "num_workers"),
    (RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left"), "--shm-size"),
    (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
    (OSError(errno.EMFILE, "Too many open files", "a"), "ulimit -n"),
    (OSError(errno.ENOSPC, "No space left on device", "a"), "--resume"),
    (
        RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4"),
        "its own error says why",
    ),
    (OSError(errno.ENAMETOOLONG, "File name too long", "b" * 9), "bbbbbbbbb: File name too long"),
]


@pytest.mark.parametrize(("error", "told"), SAID)
def test_what_a_failing_machine_raises_names_the_way_out(error, told):
    assert told in way_out(error)


def test_a_worker_that_ends_while_it_hands_over_a_batch_is_named():
    ours, workers = multiprocessing.Pipe()
    workers.close()
    with pytest.raises(EOFError) as raised:
        ours.recv_bytes()
    assert "a worker of the loader, ended first" in way_out(raised.value)


@pytest.mark.parametrize(
    "error", [EOFError(), RuntimeError("shapes do not fit"), ValueError("x"), KeyError("memory"), RecursionError()]
)
def test_a_fault_of_the_program_keeps_its_traceback(error):
    assert way_out(error) is None


def test_run_cli_ends_every_error_that_it_knows_in_one_printable_line():
    code = "from utils.errors import run_cli\ndef main():\n    {}\nrun_cli(main)"
    for body in ("open('a\\nb\\x1b[0m')", "raise MemoryError", "b'\\xff'.decode()", "'\\ud800'.encode()"):
        done = script(code.format(body))
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr[:-1].isprintable()
    done = script(code.format("raise KeyError('a bug')"))
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_values_in_messages_are_short_and_printable():
    assert shown("x" * 99) == f"'{'x' * 39}..." and shown(16**5000) == "a int too long to show"
    assert printable("a\nb\x1b\ud800é") == "a\\nb\\x1b\\ud800é"


@pytest.mark.parametrize("spec", ["", "a\0b", "a" * 300, "package:" + "a" * 300, "hf:\0", "timm:\0"])
def test_a_start_of_an_impossible_name_is_one_line(spec):
    assert one_line_of_any(load_vision_start, torch.nn.Linear(1, 1), spec).isprintable()


def test_a_config_file_of_an_impossible_name_in_a_base_is_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text(f"base: {'b' * 300}.yaml\n")
    assert "File name too long" in one_line_of_any(config_from_file, tmp_path / "a.yaml")
