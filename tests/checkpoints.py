"""Tiny pretrained checkpoints with random weights, one of each layout that the encoder family reads."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

LAYOUTS = ("hubert", "hubert_layer_norm", "wav2vec2", "wavlm", "whisper", "ast")
"""`hubert` is DistilHuBERT's layout: group norm, two transformer layers."""

WINDOW_SECONDS = {"whisper": 2.0, "ast": 1.28}
"""The window these checkpoints are made for; the others take any (1 s is quick)."""

_WAVEFORM: dict[str, Any] = {
    "conv_dim": (16,) * 7,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 12,
    "mask_time_length": 4,
    "layerdrop": 0.1,
}
_STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def tiny_model(layout: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A base model of that layout, in eval mode, as its authors publish it: without a classification head."""
    torch.manual_seed(seed)
    if layout == "hubert":
        model: PreTrainedModel = HubertModel(HubertConfig(**_WAVEFORM | changes))
    elif layout == "hubert_layer_norm":
        model = HubertModel(HubertConfig(**_WAVEFORM | _STABLE | changes))
    elif layout == "wav2vec2":
        model = Wav2Vec2Model(Wav2Vec2Config(**_WAVEFORM | _STABLE | changes))
    elif layout == "wavlm":
        model = WavLMModel(
            WavLMConfig(**_WAVEFORM | {"num_buckets": 32, "max_bucket_distance": 80} | changes)
        )
    elif layout == "whisper":
        whisper: dict[str, Any] = {
            "d_model": 24,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_source_positions": 100,
            "max_target_positions": 8,
            "num_mel_bins": 80,
            "vocab_size": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "classifier_proj_size": 12,
        }
        model = WhisperForConditionalGeneration(WhisperConfig(**whisper | changes))
    elif layout == "ast":
        ast: dict[str, Any] = {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_length": 128,
            "num_mel_bins": 32,
        }
        model = ASTModel(ASTConfig(**ast | changes))
    else:
        raise ValueError(f"There is no layout {layout!r}; there are {', '.join(LAYOUTS)}.")
    return model.eval()


def preprocessor(layout: str) -> dict[str, Any]:
    """What `preprocessor_config.json` of that layout says."""
    if layout == "whisper":
        return {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "chunk_length": 2,
            "feature_size": 80,
            "hop_length": 160,
            "n_fft": 400,
            "sampling_rate": 16_000,
        }
    if layout == "ast":
        return {
            "feature_extractor_type": "ASTFeatureExtractor",
            "num_mel_bins": 32,
            "max_length": 128,
            "mean": -4.2,
            "std": 4.5,
            "do_normalize": True,
            "sampling_rate": 16_000,
        }
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": True,
        "feature_size": 1,
        "padding_value": 0.0,
        "return_attention_mask": layout != "hubert",
        "sampling_rate": 16_000,
    }


def tiny_checkpoint(
    layout: str, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """Write such a model in Hugging Face layout into `folder`; `changes` go into its configuration."""
    tiny_model(layout, seed, **changes).to(dtype).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor(layout)))
    return folder


def window_seconds(layout: str) -> float:
    """A short window that this layout takes."""
    return WINDOW_SECONDS.get(layout, 1.0)
