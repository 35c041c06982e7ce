"""Which precision a device computes in."""

import torch


def bf16_used(precision: str, device: torch.device) -> bool:
    """Whether to compute under bf16 autocast: as said, or with `auto` where the processor has bf16 arithmetic."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
