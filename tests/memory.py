"""How much memory a process took at most."""

PEAK = """
from pathlib import Path
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
"""
"""Code that a measured process begins with: `peak()` is its largest resident set so far, in MiB.

Not `ru_maxrss`, which begins with what the process held that started this one: pytest's two gigabytes.
"""
