"""Search a folder of pictures without torch: pip install onnxruntime tokenizers numpy pillow.

python onnx_search.py EXPORTED_FOLDER PICTURE_FOLDER "a stadium beside a river"
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer

model, folder, query = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
settings = json.loads((model / "preprocessing.json").read_text(encoding="utf-8"))


def pixels(file: Path) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    return np.asarray(image.resize(settings["image"]["size"][::-1], Image.Resampling.BICUBIC)).transpose(2, 0, 1)


text = settings["text"]
spaces = str.maketrans(text["to_space"], " " * len(text["to_space"]), text["removed"])
words = query.lower().translate(spaces).split()[: text["max_words"]]
if not words:
    sys.exit("error: the query has no word")
tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(text["max_tokens"])
ids = np.array([tokenizer.encode(" ".join(words)).ids], dtype=np.int64)
encode_text, encode_image = (
    onnxruntime.InferenceSession(model / f"{side}_encoder.onnx").run for side in ("text", "image")
)
wanted = encode_text(None, {"ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
files = sorted(file for file in folder.iterdir() if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".tif", ".webp"})
scores = [float((encode_image(None, {"images": pixels(file)[None]})[0] @ wanted)[0]) for file in files]
for score, file in sorted(zip(scores, files, strict=True), reverse=True)[:10]:
    print(f"{score:.4f}  {file}")
