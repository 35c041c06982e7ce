"""Where runs are at work: one place, or several side by side, each with its preset and environment."""

import re
from dataclasses import dataclass, field

from utils.errors import InputError
from utils.launch import cpu_processes, named_cards, visible_cards


@dataclass(frozen=True)
class Place:
    """One run at a time works here: run.py's --dist, and environment variables."""

    dist: str
    environment: dict[str, str] = field(default_factory=dict)


def places_for(parallel: str, check_cards: bool = True) -> list[Place]:
    """The groups of `--parallel`, cards (`0,1;2,3`) or the CPU (`cpu;cpu`, the cores shared out among the groups).

    Card i is the i-th that CUDA_VISIBLE_DEVICES names where it is set. check_cards: look whether the cards are there.
    Raises InputError for what is no group, a card in two groups and a card that is not there.
    """
    groups = [group.strip() for group in parallel.split(";")]
    cpu_groups = groups.count("cpu")
    named = named_cards()
    used: set[int] = set()
    places = []
    for group in groups:
        if group == "cpu":
            places.append(Place("cpu", cpu_processes(cpu_groups).environment))
            continue
        if not re.fullmatch(r"\d+(\s*,\s*\d+)*", group):
            raise InputError(f"--parallel {parallel!r}: {group!r} is no group of cards; write '0,1;2,3' or 'cpu;cpu'")
        cards = [int(card) for card in group.split(",")]
        if used & set(cards) or len(set(cards)) < len(cards):
            raise InputError(f"--parallel {parallel!r} names a card twice; a card is of one group")
        used |= set(cards)
        known = visible_cards() if check_cards else named
        if known is not None and max(cards) >= len(known):
            raise InputError(f"--parallel {parallel!r} names card {max(cards)}, but there are {len(known)} here")
        visible = ",".join(str(card) if known is None else known[card] for card in cards)
        places.append(Place("auto", {"CUDA_VISIBLE_DEVICES": visible}))
    return places
