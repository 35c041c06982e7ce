"""The card of an exported folder: what is known of the model, and what its author is to fill in."""

import re
from pathlib import Path
from string import Template

from utils.config import Config
from utils.errors import InputError
from utils.files import read_text

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("card.md")
UNTOUCHED_BYTES = 2**16  # more than the template could become

USE = """With PIR's code, in its folder or with that on `PYTHONPATH`:

```python
from models import load

model = load("THIS/FOLDER")
print(model.score(["picture.jpg"], ["a stadium beside a river"]))
```"""
USE_ONNX = """Both encoders are ONNX graphs. `preprocessing.json` says what becomes of a picture and a sentence before
them. `docs/examples/onnx_search.py` of PIR's repository searches a folder of pictures with them, without torch:

```bash
pip install onnxruntime tokenizers numpy pillow
python onnx_search.py THIS/FOLDER PICTURE_FOLDER "a stadium beside a river"
```"""


def write_card(config: Config, folder: Path, *, onnx: bool = False) -> None:
    """Write `README.md`, unless a card is there; onnx: of a folder that `load` does not read."""
    if not (folder / CARD).exists():
        c = config
        card = _card(
            USE_ONNX if onnx else USE, ", ".join(c.train_file), c.test_file, str(c.image_res), str(c.embed_dim)
        )
        (folder / CARD).write_text(card, encoding="utf-8")


def is_untouched(card: Path) -> bool:
    """Whether a card is as `write_card` writes it, of any model."""
    try:
        text = read_text(card, at_most=UNTOUCHED_BYTES)
    except InputError:
        return False
    # A zero character stands for what is known of the model; no text of a card has one.
    patterns = (".*".join(map(re.escape, _card(use, *"\0\0\0\0").split("\0"))) for use in (USE, USE_ONNX))
    return any(re.fullmatch(pattern, text) for pattern in patterns)


def _card(use: str, train: str, test: str, size: str, dim: str) -> str:
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(use=use, train=train, test=test, size=size, dim=dim)
