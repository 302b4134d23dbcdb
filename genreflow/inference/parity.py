"""How far a precision may be from fp32 and still be served."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["f32", "bf16", "int8"]


@dataclass(frozen=True)
class Parity:
    """How far a precision may be from fp32 over real windows."""

    probability_difference: float
    """Largest absolute difference of any probability."""
    decision_agreement: float
    """Smallest share of windows with the same predicted genre."""


PARITY: dict[str, Parity] = {
    "f32": Parity(1e-3, 1.0),
    "bf16": Parity(0.05, 0.99),  # of a trained Whisper: 0.033 over 300 windows, every decision the same
    "int8": Parity(0.1, 0.99),
}
