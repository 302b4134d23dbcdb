"""musicnn, a small convolutional network pretrained on the Million Song Dataset (Pons and Serra 2019).

Input: the log-mel spectrogram of `genreflow.features.musicnn_mel`. Output: 200 values a window.
"""
