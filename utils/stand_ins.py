"""Stand-ins for the objects that old checkpoints hold beside their tensors: a config as ruamel.yaml read it.

ruamel's reader keeps comments, in classes of its own; figures may be numpy's. A pickle names the classes of its
objects, and to make one is to run that class's code. torch.load is given these in their place: they keep what a config
is made of (keys, items, numbers, text) and run nothing, neither from the file nor of ruamel or numpy.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Self


class PlainList(list):
    """A list without the comments and lines in its state."""

    def __setstate__(self, state: object) -> None: ...


class PlainFloat(float):
    """A number without how it was written."""

    def __setstate__(self, state: object) -> None: ...


class PlainInt(int):
    """A whole number without how it was written; ruamel's True and False with an anchor are such, too."""

    def __setstate__(self, state: object) -> None: ...


class PlainText(str):
    """Text without its quotes."""

    def __setstate__(self, state: object) -> None: ...


class Unread:
    """What is no part of a config's values (comments, marks of lines, a numpy number): its content is dropped."""

    def __new__(cls, *content: object) -> Self:
        """An object of nothing, whatever the file would make it from."""
        return super().__new__(cls)

    def __init__(self, *content: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# Of the three mappings that torch.load fills, Counter alone also takes the state (attributes, slots) of a CommentedMap.
_OF_MODULES: dict[type, dict[str, str]] = {
    Counter: {
        "ruamel.yaml.comments": "CommentedMap CommentedOrderedMap",
        "ruamel.yaml.compat": "ordereddict",
    },
    PlainList: {"ruamel.yaml.comments": "CommentedSeq"},
    PlainFloat: {"ruamel.yaml.scalarfloat": "ScalarFloat ExponentialFloat ExponentialCapsFloat"},
    PlainInt: {
        "ruamel.yaml.scalarint": "ScalarInt BinaryInt OctalInt HexInt HexCapsInt DecimalInt",
        "ruamel.yaml.scalarbool": "ScalarBoolean",
    },
    PlainText: {
        "ruamel.yaml.scalarstring": "DoubleQuotedScalarString SingleQuotedScalarString PlainScalarString "
        "LiteralScalarString FoldedScalarString PreservedScalarString ScalarString JSONScalarString"
    },
    Unread: {
        "ruamel.yaml.comments": "Comment Format LineCol Anchor Tag",
        "ruamel.yaml.anchor": "Anchor",
        "ruamel.yaml.tag": "Tag",
        "ruamel.yaml.tokens": "CommentToken",
        "ruamel.yaml.error": "StringMark FileMark CommentMark",
        "numpy": "dtype",
        "numpy.core.multiarray": "scalar",
        "numpy._core.multiarray": "scalar",
    },
}


def stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """(stand-in, full name of the class or function it stands for), as torch.serialization.safe_globals takes them."""
    return [
        (kind, f"{module}.{name}")
        for kind, modules in _OF_MODULES.items()
        for module, names in modules.items()
        for name in names.split()
    ]
