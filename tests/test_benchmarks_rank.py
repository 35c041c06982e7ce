"""The benchmark of ranks: both ways find the same, and what it prints is what it writes."""

import json

import numpy as np
import pytest

from benchmarks import rank
from utils.errors import InputError
from utils.metrics import retrieval_ranks


def test_sorting_and_counting_find_the_same_ranks():
    images, texts, own = rank.embeddings(40, 16)
    by_sorting = rank.sorted_ranks((images @ texts.T).numpy(), np.array(own))
    by_counting = retrieval_ranks(images, texts, own)
    for one, other in zip(by_sorting, by_counting, strict=True):
        assert one.tolist() == other.tolist() and one.max() > 0


@pytest.mark.parametrize("sorting", [True, False])
def test_the_figures_are_printed_and_written(tmp_path, capsys, sorting):
    output = tmp_path / "rank.json"
    sizes = ["--pictures", "30", "--dim", "8", "--repeats", "1", "--sorted_up_to", "30" if sorting else "29"]
    rank.main([*sizes, "--output", str(output)])
    figures, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert figures["pictures"] == 30 and figures["captions"] == 150 and figures["peak_mb"] > 50
    assert figures["over_product"] > 0
    assert figures["seconds"].keys() >= {"product", "ranks"} and output.with_suffix(".png").exists()
    assert ("ratio" in figures) == sorting == ("sorting" in printed)


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--pictures", "0"], "give 1 or more"), (["--output", "no/such/folder.json"], "there is no folder no/such")],
)
def test_mistakes_are_one_line(given, said):
    with pytest.raises(InputError, match=said):
        rank.main(given)
