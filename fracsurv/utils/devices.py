"""A device's name, precision and determinism; a process's memory."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keep freed memory for this process's next arrays, and return whether that is so; it takes glibc.

    Otherwise the kernel hands out every large array anew, zeroed, which takes much of a training step on a CPU. The
    memory stays with the process until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def device_name(device: torch.device) -> str:
    """'cpu', or the GPU's name."""
    import torch

    return device.type if device.type == "cpu" else torch.cuda.get_device_name(device)


def peak_memory(device: torch.device) -> float:
    """Peak memory in MiB: since it was last reset on a GPU, of this process so far on a CPU."""
    if device.type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage, below, gives the parent's, if that is larger
        return round(int(re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)[1]) / 2**10, 1)
    import resource  # not on every platform

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def precision_of(device: torch.device, wanted: str) -> torch.dtype:
    """The encoder's precision: bfloat16 where asked for, or where 'auto' and the device computes in it."""
    import torch

    if wanted == "float32":
        return torch.float32
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        abilities = torch.cpu.get_capabilities()
        has_it = abilities.get("avx512_bf16", False) or abilities.get("amx_bf16", False)
    return torch.bfloat16 if wanted == "bfloat16" or has_it else torch.float32


@contextmanager
def reproducible() -> Iterator[None]:
    """A context in which a GPU's convolutions are deterministic, and float32 is float32 (no TF32)."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
