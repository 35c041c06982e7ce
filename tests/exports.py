"""A tiny trained model as a run leaves it, and what is exported of it."""

import Export
from tests.tiny_folder import SIZES, write_model

TEXT_SIZES = SIZES | {"hidden_size": 64, "intermediate_size": 128}


def tiny_run(folder, **changes):
    """A run's folder, of float32 and a small prior."""
    options = {"text_config": TEXT_SIZES, "precision": "float32", "prior_backbone": "resnet10t"}
    return write_model(folder, **options | changes)


def exported_to(place, run, *formats):
    """`place`, with a folder of the run in each format."""
    for kind in formats:
        Export.main(["--checkpoint", str(run), "--output_dir", str(place / kind), "--format", kind])
    return place
