"""A model's two encoders as ONNX graphs, with all that a program without torch needs to use them."""

import json
import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.captions import MOST_WORDS, REMOVED, SPACES
from export.card import write_card
from export.folder import IMAGE, TEXT
from models.embedder import Embedder
from models.encoders import normalise
from models.retrieval import RetrievalModel
from utils.errors import InputError, reason
from utils.output import PREPROCESSING

OPSET = 18


class ImageGraph(nn.Module):
    """uint8 pictures `[B, 3, S, S]` -> unit embeddings `[B, D]`, normalisation and orientations within."""

    def __init__(self, model: RetrievalModel, *, average_orientations: bool) -> None:
        super().__init__()
        self.model, self.average_orientations = model, average_orientations

    def forward(self, images: Tensor) -> Tensor:
        """As `Embedder.embed_images`, of pictures that have their size already."""
        images = normalise(images)
        if not self.average_orientations:
            return self.model.encode_image(images)
        # The eight of `orientations`, by what ONNX has an operation for.
        turned = [view for x in (images, images.transpose(2, 3)) for view in (x, x.flip(2), x.flip(3), x.flip(2, 3))]
        embeds = self.model.encode_image(torch.cat(turned))  # [8 * B, D]
        return F.normalize(embeds.unflatten(0, (8, -1)).mean(dim=0), dim=-1)


class TextGraph(nn.Module):
    """Token ids and attention mask `[B, L]` -> unit embeddings `[B, D]`."""

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As `Embedder.embed_texts`, of token ids."""
        return self.model.encode_text(ids, attention_mask)


def write_onnx(model: Embedder, folder: Path, *, int8: bool) -> None:
    """Write both graphs, the tokenizer's files, `preprocessing.json` and a card; int8: see `_to_int8`.

    Raises InputError where the exporter or the quantisation knows no form of the model.
    """
    c = model.config
    if c.clip_model:  # the exporter writes the shapes of one batch into torch's own attention, which the pair has
        raise InputError("a CLIP pair has no ONNX form here yet; --format folder and compact keep it whole")
    model.model.eval()
    ids = torch.ones(2, 7, dtype=torch.long)  # of no size that is a rule of the model
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    images = torch.zeros(2, 3, c.image_res, c.image_res, dtype=torch.uint8)
    image_graph = ImageGraph(model.model, average_orientations=c.average_orientations)
    _export(image_graph, (images,), folder / IMAGE, {"images": {0: "batch"}})
    both = {0: "batch", 1: "length"}
    _export(TextGraph(model.model), (ids, mask), folder / TEXT, {"ids": both, "attention_mask": both})
    if int8:
        for name in (IMAGE, TEXT):
            _to_int8(folder / name)
    (folder / PREPROCESSING).write_text(json.dumps(preprocessing(model), indent=2) + "\n", encoding="utf-8")
    model.tokenizer.save_pretrained(str(folder))
    write_card(model.config, folder, onnx=True)


def preprocessing(model: Embedder) -> dict[str, Any]:
    """What becomes of a picture and of a sentence before the graphs see them."""
    c = model.config
    return {
        "image": {
            "size": [c.image_res, c.image_res],
            "resampling": "bicubic, antialiased, the whole picture without a crop",
            "input": "uint8 [batch, 3, height, width], RGB, upright by EXIF",
            "orientations": 8 if c.average_orientations else 1,  # embedded within the graph
        },
        "text": {
            "lower_case": True,
            "to_space": SPACES,
            "removed": REMOVED,
            "max_words": MOST_WORDS,
            "max_tokens": c.max_tokens,
            "padding": {"id": model.tokenizer.pad_token_id, "side": model.tokenizer.padding_side},
        },
        "embedding": {"size": c.embed_dim, "norm": 1},
    }


def _export(graph: nn.Module, inputs: tuple[Tensor, ...], file: Path, axes: dict[str, dict[int, str]]) -> None:
    """Trace a graph to a file; axes: of each input by its name, those of any length."""
    names = list(axes)
    try:
        # The tracing exporter: it needs no package more. What it warns of (sizes that are fixed) is meant, and where it
        # fails it prints the whole graph.
        with torch.no_grad(), warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()):
            torch.onnx.export(
                graph,
                inputs,
                str(file),
                input_names=names,
                output_names=["embeddings"],
                dynamic_axes={**axes, "embeddings": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except OSError:
        raise
    except Exception as error:  # the exporter's own, of many kinds
        raise InputError(f"{file.name}: this model cannot be exported to ONNX: {reason(error):.200}") from None


def _to_int8(file: Path) -> None:
    """Store a graph's matrices as int8, a scale a column; what they are multiplied with is scaled as it comes.

    Convolutions stay in float32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # its advice, given twice, to run another step of its own before this one
    try:
        quantize_dynamic(
            file, file, op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True, weight_type=QuantType.QInt8
        )
    except OSError:
        raise
    except Exception as error:  # as above
        raise InputError(f"{file.name}: this model cannot be quantised: {reason(error):.200}") from None
    finally:
        logging.disable(disabled)
