"""The encoders through torch's compiler, where it works on this machine."""

import torch

from models.retrieval import RetrievalModel
from utils.errors import reason
from utils.logs import say


def compile_encoders(model: RetrievalModel, device: torch.device) -> None:
    """Have the encoders compiled when they are first called; names and values of the weights stay.

    Where there is no working compiler, as without a C++ compiler on a CPU, it says so and leaves them as they are.
    """
    try:
        torch.compile(torch.nn.Linear(1, 1).to(device))(torch.ones(1, 1, device=device))
    except Exception as error:  # of the compiler's many parts
        say(f"compile: torch's compiler does not work here ({reason(error):.100}); going on without it")
        return
    say("compiling the encoders: the first steps take minutes, and so does a caption length that is new")
    model.common_stages = None  # which are run one by one, past the compiled encoders
    for encoder in model.encoders():
        encoder.compile(dynamic=True)
