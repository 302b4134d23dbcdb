"""A genreflow encoder for transformers: its encoder's own code under the head in head.py.

Published beside the weights (`export.py`), run with `trust_remote_code=True`; imports torch and transformers.
"""

from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from genreflow.backbones.transformers.pooling import states_of

from .head import Head, of_window


class GenreflowConfig(PreTrainedConfig):
    """The fields of `config.json` besides the labels."""

    model_type = "genreflow"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        prefix: str = "",
        summary_tokens: int = 0,
        head: dict[str, Any] | None = None,
        temperature: float = 1.0,
        **others: Any,
    ) -> None:
        """A configuration.

        Args:
            encoder: the configuration of the encoder, with its `model_type`.
            prefix: under which transformers' audio classifiers of that type have their encoder.
            summary_tokens: before the frames that sum a window up.
            head: the head's settings.
            temperature: by which logits are divided, so that their softmax is calibrated.
        """
        super().__init__(**others)
        self.encoder = encoder
        self.prefix = prefix
        self.summary_tokens = summary_tokens
        self.head = head
        self.temperature = temperature


class GenreflowForAudioClassification(PreTrainedModel):
    """One window of a fixed length to logits; attention masks are not needed and ignored."""

    config_class = GenreflowConfig
    config: GenreflowConfig

    def __init__(self, config: GenreflowConfig) -> None:
        super().__init__(config)
        inner = AutoConfig.for_model(**config.encoder or {})
        whole = AutoModelForAudioClassification.from_config(
            inner, dtype=torch.float32, trust_remote_code=False
        )
        self.encoder = getattr(whole, config.prefix)
        self.settings = SimpleNamespace(**config.head or {})
        self.head = Head(inner, config.summary_tokens, self.settings, len(config.id2label or ()))
        self.post_init()

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """What the feature extractor gives, (batch, …), to logits (batch, genres)."""
        inputs = input_features if input_values is None else input_values
        outputs = self.encoder(inputs, output_hidden_states=True)
        logits = of_window(self.head(states_of(outputs, self.settings)))
        return SequenceClassifierOutput(logits=logits / self.config.temperature)
