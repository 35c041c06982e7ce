"""Whole sets to embeddings: a picture in one orientation or in all eight."""

import pytest
import torch
import torch.nn.functional as F

from models.embedder import embed_picture_batches, orientations
from models.encoders import normalise
from tests.tiny import tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_config):
    return tiny_model(tiny_config())


@pytest.fixture(scope="module")
def images():
    return torch.randint(256, (3, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def embedded(model, images, **options):
    """The embeddings of pictures that arrive in two batches, the last one first."""
    positions = torch.arange(len(images))
    batches = [(positions[2:], images[2:]), (positions[:2], images[:2])]
    return embed_picture_batches(model, batches, len(images), CPU, **options)


def test_a_picture_has_eight_different_orientations(images):
    views = orientations(images)
    assert len(views) == 8 and torch.equal(views[0], images)
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


def test_pictures_are_embedded_in_order_as_they_are(model, images):
    with torch.no_grad():
        torch.testing.assert_close(embedded(model, images), model.encode_image(normalise(images)))


def test_averaged_over_orientations_an_embedding_is_the_unit_mean_of_all_eight(model, images):
    with torch.no_grad():
        views = [model.encode_image(normalise(view)) for view in orientations(images)]
    averaged = embedded(model, images, average_orientations=True)
    torch.testing.assert_close(averaged, F.normalize(sum(views), dim=1))
    assert not torch.allclose(averaged, views[0], atol=1e-3)


@pytest.mark.parametrize("view", range(1, 8))
def test_averaged_over_orientations_a_turned_picture_has_the_same_embedding(model, images, view):
    same = embedded(model, orientations(images)[view], average_orientations=True)
    torch.testing.assert_close(same, embedded(model, images, average_orientations=True), atol=1e-5, rtol=0)
