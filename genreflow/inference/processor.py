"""The processor that this code runs on: its name, and the instructions that decide how it rounds."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
X86 = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
ARM = ("asimd", "sve", "bf16", "i8mm")
"""Flags of processors for which oneDNN, which OpenVINO and PyTorch compute with, has kernels of their own."""
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables with which oneDNN is kept from using what the processor has."""


def processor() -> str:
    """This machine's processor by name."""
    return next(iter(_values("model name")), "unknown processor")


def instruction_set() -> str:
    """The architecture and the vector instructions that inference uses here, such as `x86_64 avx2 avx512f`.

    Predictions of one model in one precision are equal where it is equal, but for the order of sums.
    """
    flags = {flag for name in ("flags", "Features") for line in _values(name)[:1] for flag in line.split()}
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return " ".join([platform.machine(), *(flag for flag in (*X86, *ARM) if flag in flags), *limits])


def _values(name: str) -> list[str]:
    """What `/proc/cpuinfo` says under a name, once a core; nothing where there is no such file."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name]
