"""TensorFlow and Keras, imported in one place, quietly, when a conversion begins."""

from __future__ import annotations

import os
import warnings

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's keras.json says: TFLite comes from TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    import tensorflow as tf

__all__ = ["keras", "tf"]
