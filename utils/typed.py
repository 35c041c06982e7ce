"""Values from YAML and JSON files -> fields of dataclasses, each of its declared type and within its bounds."""

import difflib
import io
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from utils.errors import InputError, shown
from utils.files import YAML_BYTES, decoded, read_bytes, write_whole

_MOST_VALUES = 100_000  # of a YAML file, those of an alias counted wherever it stands
_MOST_BRACKETS = 1_000  # of a YAML file: the time it takes to read them grows with their square
_DEEPEST = 20  # levels of a value whose type is open


@dataclass(frozen=True)
class Bounds:
    """What a number must be, declared on a field as `Annotated[int, Bounds(at_least=1)]`."""

    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    at_most: int | None = None  # far above what anyone needs, where more would only end in a lack of memory

    def broken_by(self, value: float) -> str:
        """What is wrong with a value, `must be at least 1`; empty where nothing is."""
        if self.at_most is not None and value > self.at_most:
            return f"must be at most {self.at_most}"
        demands = []
        if self.at_least is not None:
            demands.append((value >= self.at_least, f"at least {self.at_least:g}"))
        if self.above is not None:
            demands.append((value > self.above, f"above {self.above:g}"))
        if self.below is not None:
            demands.append((value < self.below, f"below {self.below:g}"))
        if all(met for met, _ in demands):
            return ""
        return "must be " + " and ".join(demand for _, demand in demands)


Count = Annotated[int, Bounds(at_least=1, at_most=2**31 - 1)]
Whole = Annotated[int, Bounds(at_least=-(2**63), at_most=2**63 - 1)]
WholeFromZero = Annotated[int, Bounds(at_least=0, at_most=2**63 - 1)]
Width = Annotated[int, Bounds(at_least=1, at_most=2**16)]  # of features, or pixels of a side
Repeats = Annotated[int, Bounds(at_least=1, at_most=1000)]  # layers, heads, draws
FewOrNone = Annotated[int, Bounds(at_least=0, at_most=1000)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(at_least=0)]
Share = Annotated[float, Bounds(at_least=0, below=1)]
Precision = Literal["float32", "fp32", "tf32", "bf16", "fp16", "auto"]


class _OutOfBounds(ValueError):
    """A value of the right kind that is too small or too large; the message says which."""


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping a YAML 1.2 file holds (there `6e-5` is a number)."""
    try:
        content = read_bytes(file, YAML_BYTES)
    except OSError as error:
        raise InputError(f"config {file} cannot be read ({error.strerror}); name an existing YAML file") from None
    values = _parsed(decoded(content, f"config {file}", "YAML"), f"config {file}")
    if not isinstance(values, dict):
        raise InputError(f"config {file} holds no keys; expected 'key: value' lines")
    return values


def _parsed(text: str, source: str) -> Any:
    """The value of a YAML text. Raises InputError, naming its source, for what is no YAML or would never end."""
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise InputError(f"{source} is nested too deep to be read, or has over {_MOST_BRACKETS:,} brackets")
    try:
        # Aliases of aliases make lists of billions out of a few lines; without one, a text holds what it shows.
        if "*" in text and _count(YAML(typ="safe", pure=True).compose(text), {}) > _MOST_VALUES:
            raise InputError(f"{source} is refused: its aliases stand for over {_MOST_VALUES:,} values")
        return YAML(typ="safe", pure=True).load(text)
    except InputError:
        raise
    except DuplicateKeyError as error:
        name = re.match(r"found duplicate key \"(.*?)\" with", error.problem or "")
        line = error.problem_mark.line + 1
        raise InputError(f"{source} names {name[1][:40] if name else 'a key'} twice, again in line {line}") from None
    except RecursionError:
        raise InputError(f"{source} is nested too deep to be read") from None
    except Exception as error:  # values that are none (5,000 digits, month 13, `!!int foo`) raise nearly anything
        raise InputError(f"{source} is not YAML: {' '.join(str(error).split())[:300]}") from None


def _count(node: Any, counted: dict[int, float]) -> float:
    """How many values a composed YAML node stands for; endless where it holds itself."""
    if node is None or isinstance(node, ScalarNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = math.inf
        pairs = isinstance(node, MappingNode)
        children = [child for pair in node.value for child in pair] if pairs else node.value
        counted[id(node)] = 1 + sum(_count(child, counted) for child in children)
    return counted[id(node)]


def read_based_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping of a YAML file over that of the file its `base` names, if it has one, relative to its own folder.

    Keys of mappings in both are merged, any other value is replaced; the result has no `base`.
    Raises InputError where a base cannot be read, and where bases lead round in a circle.
    """
    chain, files, following = [], [], Path(file)
    while True:
        files.append(following.resolve())
        if files[-1] in files[:-1]:
            raise InputError(f"config {file}: its base {following} leads back to itself")
        chain.append(read_yaml(following))
        if "base" not in chain[-1]:
            break
        base = chain[-1].pop("base")
        if not isinstance(base, str) or not base:
            raise InputError(f"config {following}: 'base' is {base!r}, expected the name of a YAML file")
        following = following.parent / base
    values: dict[str, Any] = {}
    for layer in reversed(chain):
        values = _merged(values, layer)
    return values


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key in over if isinstance(over[key], dict) and isinstance(under.get(key), dict)}
    return {**under, **{key: _merged(under[key], value) if key in both else value for key, value in over.items()}}


def write_yaml(values: Mapping[str, Any], file: Path) -> None:
    """Write plain values as YAML, whole or not at all."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.dump(dict(values), text)
    write_whole(file, text.getvalue().encode())


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set the value that `key=value` names, dotted for nested keys."""
    key, equals, text = override.partition("=")
    source = f"--override {shown(override)}"
    if not equals or not key:
        raise InputError(f"{source} is not of the form key=value")
    if not text.strip():  # to YAML, null: weights that were to be read would be random instead
        raise InputError(f"{source} gives no value; for none write {key}=null")
    value = _parsed(text, source)
    *parents, leaf = key.split(".")
    if len(parents) > _DEEPEST:
        raise InputError(f"{source} is nested too deep to be read")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{source}: '{parent}' has no keys of its own")
    values[leaf] = value


def read_overridden(file: str | Path, overrides: list[str] | None) -> dict[str, Any]:
    """The values of a YAML file, and of its `base`, under `key=value` overrides, dotted for nested keys."""
    values = read_based_yaml(file)
    for override in overrides or []:
        apply_override(values, override)
    return values


def read_fields(kind: type, values: Mapping[str, Any], prefix: str, problems: list[str]) -> dict[str, Any]:
    """The values of a dataclass's fields, each of its declared type; what is wrong goes to `problems`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in values:
        if key not in hints:
            name = str(key)[:40]
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            problems.append(f"unknown key '{prefix}{name}'" + (f", nearest is '{prefix}{near[0]}'" if near else ""))
    read = {}
    for f in fields(kind):
        if f.name in values:
            read[f.name] = read_value(values[f.name], hints[f.name], f"{prefix}{f.name}", problems)
        elif f.default is MISSING and f.default_factory is MISSING:
            problems.append(f"'{prefix}{f.name}' is missing")
    return read


def read_value(value: Any, hint: Any, name: str, problems: list[str]) -> Any:
    """`value` as the type `hint` says; what is wrong goes to `problems`, under `name`."""
    try:
        return _typed(value, hint, name, problems)
    except _OutOfBounds as error:
        problems.append(str(error))
    except (TypeError, ValueError, OverflowError):
        problems.append(f"'{name}' is {shown(value)}, expected {_describe(hint)}")
    return None


def _typed(value: Any, hint: Any, name: str, problems: list[str]) -> Any:
    """`value` as `hint` says, or TypeError or ValueError."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is Any:
        if not _plain(value, _DEEPEST):
            raise _OutOfBounds(f"'{name}' is nested too deep, or has a number that does not fit 64 bits")
        return value
    if typing.get_origin(hint) is Annotated:
        kind, bounds = typing.get_args(hint)
        number = _typed(value, kind, name, problems)
        if broken := bounds.broken_by(number):
            raise _OutOfBounds(f"'{name}' is {shown(number)}, {broken}")
        return number
    if typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        raise ValueError
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_typed(item, typing.get_args(hint)[0], name, problems) for item in value)
    if typing.get_origin(hint) is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError
        kind = typing.get_args(hint)[1]
        read = {key: read_value(item, kind, f"{name}.{key}", problems) for key, item in value.items()}
        return types.MappingProxyType(read)
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise TypeError
        before = len(problems)
        read = read_fields(hint, value, f"{name}.", problems)
        return hint(**read) if len(problems) == before else None
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = float(value)  # "6e-5" is text to a YAML 1.1 reader
        if not math.isfinite(number):
            raise ValueError
        return number
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not hint:
        raise TypeError
    if hint is str and not value.strip():
        raise _OutOfBounds(f"'{name}' is empty; for none write null, or leave it out")
    return value


def _fits_64_bits(number: int) -> bool:
    """Whether a whole number is one to torch and NumPy too."""
    return -(2**63) <= number < 2**63


def _plain(value: Any, levels: int) -> bool:
    """Whether lists and mappings are within each other for so many levels at most, and whole numbers fit 64 bits."""
    if not isinstance(value, Mapping | list):
        return not isinstance(value, int) or _fits_64_bits(value)
    children = value.values() if isinstance(value, Mapping) else value
    return levels > 0 and all(_plain(child, levels - 1) for child in children)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if typing.get_origin(hint) is Annotated:
        return _describe(typing.get_args(hint)[0])
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join("null" if kind is type(None) else _describe(kind) for kind in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list, each {_describe(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is Mapping:
        return "keys of its own, each text (a number in quotes)"
    return names.get(hint, "keys of its own")
