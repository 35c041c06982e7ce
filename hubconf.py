"""PIR for `torch.hub`: `model = torch.hub.load("PATH/TO/THIS/FOLDER", "pir", source="local")`."""

from pathlib import Path

from models import load
from models.embedder import Embedder

dependencies = ["torch", "torchvision", "timm", "transformers", "safetensors", "numpy", "PIL", "cv2", "ruamel.yaml"]

SHIPPED = Path(__file__).resolve().parent / "checkpoints/PIR/lite_rsicd"


def pir(checkpoint: str | Path = SHIPPED, device: str = "auto") -> Embedder:
    """A trained model, as `models.load` gives it; without a checkpoint the one that comes with this repository."""
    return load(checkpoint, device=device)
