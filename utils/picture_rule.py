"""The config keys `deep_pictures` and `bands`, checked."""

import re


def impossible_rule(deep_pictures: str, bands: tuple[int, ...] | None) -> list[str]:
    """What is wrong with the rule that makes pictures of 16 bits or many bands three channels of 8 bits."""
    problems = []
    number = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
    found = re.fullmatch(rf"refuse|minmax|percentile ({number})-({number})|divide ({number})", deep_pictures)
    if not found:
        known = "refuse, minmax, 'percentile 2-98' or 'divide 40'"
        problems.append(f"'deep_pictures' is {deep_pictures[:40]!r}, expected {known}")
    elif found[1] and not float(found[1]) < float(found[2]) <= 100:
        problems.append(f"'deep_pictures' is {deep_pictures!r}: percentiles rise and end at 100 at most")
    elif found[3] and float(found[3]) == 0:
        problems.append(f"'deep_pictures' is {deep_pictures!r}: nothing is divided by 0")
    if bands is not None and len(bands) != 3:
        problems.append(f"'bands' names {len(bands)} bands: give three, red, green and blue, as [3, 2, 1]")
    return problems
