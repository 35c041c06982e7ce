"""A retrieval model as the training loop sees it, and what an evaluation measures of it.

An evaluation set is a `dataset.annotations.EvaluationSet`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dataset.loaders import TrainBatch
from models.embedder import Embedder
from models.encoders import normalise
from models.released import checkpoint_state
from models.retrieval import RetrievalModel
from optim import create_optimizer
from scheduler import create_scheduler
from utils import checkpoint, output, processes
from utils.config import Config
from utils.errors import InputError
from utils.metrics import Measured, recall, retrieval_ranks
from utils.train_state import TrainState, averaged, gradient_scaler
from utils.training import Run


class RetrievalTask:
    """What is trained, as the loop sees it."""

    figure, kept = "r_mean", output.BEST

    def __init__(self, run: Run[Config], embedder: Embedder, evaluation_set: Any) -> None:
        self.run, self.embedder, self.evaluation_set = run, embedder, evaluation_set
        self.split: str = run.config.select_on
        self.model = embedder.model if run.config.shard else processes.in_parallel(embedder.model)

    def step(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch to minimise, and the losses it is made of."""
        device = self.run.device
        images = normalise(batch.images.to(device, non_blocking=True))  # [B, 3, H, W]
        ids, mask = (x.to(device, non_blocking=True) for x in (batch.ids, batch.attention_mask))
        idx, sentence = (x.to(device, non_blocking=True) for x in (batch.idx, batch.sentence))
        label = None if batch.label is None else batch.label.to(device, non_blocking=True)
        with processes.autocast(self.run.autocast, device):
            losses = self.model(images, ids, mask, idx=idx, label=label, sentence=sentence)
        return losses.pop("loss"), losses

    def describe(self, batch: TrainBatch) -> str:
        """How many captions a batch has, and its first."""
        first = zip(batch.idx.tolist()[:5], batch.captions[:5], strict=True)
        return f"{len(batch.captions)} captions, first " + "; ".join(f"picture {i}: {c!r}" for i, c in first)

    def evaluate(self, model: RetrievalModel) -> dict[str, float]:
        """The seven figures on the split that epochs are compared on."""
        return evaluate(replace(self.embedder, model=model), self.evaluation_set).figures

    def write(self, model: RetrievalModel, file: Path) -> None:
        """Write a checkpoint in the released layout, or an adapter alone."""
        state = checkpoint_state(model, self.run.config)
        if processes.is_main():
            checkpoint.save_checkpoint(file, state, self.run.config.to_dict())


def evaluate(embedder: Embedder, evaluation_set: Any, *, average_orientations: bool = False) -> Measured:
    """Embed the pictures and captions, each process its share once, and count ranks (docs/behaviour.md, 6)."""
    image_embeds = embedder.image_embeddings(
        evaluation_set.images, average_orientations=average_orientations, label="embedding pictures"
    )
    text_embeds = embedder.text_embeddings(evaluation_set.captions, label="embedding captions")
    try:
        ranks = retrieval_ranks(image_embeds, text_embeds, evaluation_set.own_image_of_text)
    except ValueError as error:
        raise InputError(f"{error}: the weights are damaged or training diverged") from None
    return Measured(recall(*ranks), *ranks, image_embeds, text_embeds)


def start_training(
    run: Run[Config], embedder: Embedder, steps_per_epoch: int, evaluation_set: Any
) -> tuple[RetrievalTask, TrainState[RetrievalModel]]:
    """What the training loop takes for the embedder's model, before the first step."""
    c, model = run.config, embedder.model
    optimizer = create_optimizer(c.optimizer, model, fused=not c.shard)
    if c.shard:
        from models.sharding import keep_files_whole

        keep_files_whole(optimizer)
    scheduler = create_scheduler(c.schedular, optimizer, steps_per_epoch=steps_per_epoch)
    scaler = gradient_scaler(run.device, run.autocast)
    average, longest = averaged(model, c.average_decay), c.optimizer.clip_grad_norm
    state = TrainState(model, average, optimizer, scheduler, scaler=scaler, clip_grad_norm=longest)
    return RetrievalTask(run, embedder, evaluation_set), state
