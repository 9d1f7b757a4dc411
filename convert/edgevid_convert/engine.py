"""TensorFlow and Keras, imported in one place, quietly, when a conversion begins."""

from __future__ import annotations

import os
import warnings
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's keras.json says: TFLite comes from TensorFlow
# Without it TensorFlow computes channels-first and some grouped convolutions only on CPUs of the last years.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    import tensorflow as tf

__all__ = ["keras", "opened_graph", "tf"]


def opened_graph(graph_def: Any) -> Any:
    """Return a session in which any tensor of a GraphDef can be asked for, and any be given, as it stands."""
    with tf.Graph().as_default() as graph:  # of its own: its functions may have the names of others
        tf.import_graph_def(graph_def, name="")
    config = tf.compat.v1.ConfigProto()
    # It would fuse grouped convolutions with what follows, which TensorFlow cannot compute on every CPU.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=graph, config=config)
