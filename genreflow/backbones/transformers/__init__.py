"""Pretrained encoders in Hugging Face layout: HuBERT, wav2vec2, WavLM, Whisper, AST."""
