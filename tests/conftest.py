"""What several test files share."""

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_config as config_in

PARITY = Path(__file__).parents[2] / "shared" / "parity"

# Small models gain nothing from more, and on a busy machine threads wait for each other: seven times the time.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parity():
    """The folder of numbers recorded from the released code."""
    if not PARITY.exists():
        pytest.skip("the numbers recorded from the released code are not here")
    return PARITY


@pytest.fixture(scope="session")
def released_weights(parity):
    """The module that makes the weights and inputs those numbers were recorded with."""
    spec = importlib.util.spec_from_file_location("released_weights", parity / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """A config of small sizes: `tiny_config(key=value, ...)`."""
    folder = tmp_path_factory.mktemp("sizes")
    return lambda **changes: config_in(folder, **changes)
