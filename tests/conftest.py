"""What several test files share."""

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_config as config_in

PARITY = Path(__file__).parent / "parity"

# Small models gain nothing from more, and on a busy machine threads wait for each other: seven times the time.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parity():
    """The folder of numbers recorded from the released code."""
    return PARITY


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """A config of small sizes: `tiny_config(key=value, ...)`."""
    folder = tmp_path_factory.mktemp("sizes")
    return lambda **changes: config_in(folder, **changes)
