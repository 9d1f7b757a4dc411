"""Converts random small classifiers of ordinary layers, of Keras 3 and of Keras 2, and holds each against its Keras.

    python -m edgevid_bench.studies.fuzz [--count 300] [--library keras,tf_keras] [--seed 0] [--calibrate]
        [--output fuzz.md]

Each model is built from a seed, saved in one of its library's containers, and converted by the package's own front door
into both formats, in float32 or, with ``--calibrate``, into every variant. Then the engines are asked about pictures
by a loop of this file alone: LiteRT's interpreter and ONNX Runtime, not edgevid's runtime. A model counts as

    same       every variant that was made answers as Keras does, to 1e-4 of a probability (int8: it runs)
    refused    the conversion ended with one of edgevid's own errors
    differs    a variant answers otherwise: a silent error
    crashed    the process of the conversion died, or ended with an error that is not edgevid's
    rubble     something was left behind beside the bundle
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError
from edgevid_convert.converter import convert_model, kept_worker
from edgevid_convert.options import ConvertOptions

__all__ = ["Verdict", "build", "compared", "judge", "save_model"]

LIBRARIES = ("keras", "tf_keras")
CONTAINERS = {"keras": ("keras", "h5", "saved"), "tf_keras": ("h5", "keras", "saved")}
SIZES = (24, 32, 33, 48)
ALLOWED_ERROR = 1e-4
PICTURES = 4
FRESH_AFTER = 20  # models: TensorFlow keeps something of each, and grows slow


class Verdict(NamedTuple):
    """What became of one model: one word of the list above, what it was, and what was said."""

    word: str
    model: str
    said: str


def build(library: Any, seed: int) -> tuple[Any, str]:
    """Return a random classifier of a Keras library, and its layers in words."""
    generator = np.random.default_rng(seed)
    library.utils.set_random_seed(seed)
    layers = library.layers
    side, channels = int(generator.choice(SIZES)), int(generator.choice([1, 3, 3]))
    image = library.Input((side, side, channels))
    hidden, words = layers.Rescaling(1 / 255)(image), []
    for _ in range(int(generator.integers(1, 5))):
        name = str(generator.choice(list(PARTS)))
        hidden = PARTS[name](layers, hidden, generator)
        words.append(name)
    if generator.random() < 0.2:  # transfer learning: a model in a model
        base = library.Model(image, hidden)
        image = library.Input((side, side, channels))
        hidden = base(image, training=False)
        words.append("nested")
    end = str(generator.choice(list(ENDS)))
    head = str(generator.choice(list(HEADS)))
    answer = HEADS[head](layers, ENDS[end](layers, hidden), int(generator.integers(2, 9)))
    return library.Model(image, answer), f"{side}×{side}×{channels}: {', '.join(words)}, {end}, {head}"


def _conv(layers: Any, x: Any, generator: Any) -> Any:
    activation = generator.choice(["relu", "relu6", "swish", "elu", "tanh", "gelu", "linear", "selu", "softplus"])
    if activation == "relu6":
        return layers.ReLU(6.0)(layers.Conv2D(8, 3, padding="same")(x))
    strides = int(generator.choice([1, 2]))
    return layers.Conv2D(
        int(generator.choice([4, 8])),
        int(generator.choice([1, 3, 5])),
        strides=strides,
        padding=str(generator.choice(["same", "valid"])) if x.shape[1] > 6 else "same",
        activation=str(activation),
        use_bias=bool(generator.random() < 0.7),
    )(x)


def _residual(layers: Any, x: Any, generator: Any) -> Any:
    other = layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)
    merge = generator.choice(["Add", "Multiply", "Average", "Maximum", "Concatenate", "Subtract"])
    return getattr(layers, str(merge))()([x, other])


def _squeeze(layers: Any, x: Any, generator: Any) -> Any:
    channels = x.shape[-1]
    small = layers.Dense(max(2, channels // 4), activation="relu")(layers.GlobalAveragePooling2D()(x))
    gate = layers.Reshape((1, 1, channels))(layers.Dense(channels, activation="sigmoid")(small))
    return layers.Multiply()([x, gate])


def _pool(layers: Any, x: Any, generator: Any) -> Any:
    kind = layers.MaxPooling2D if generator.random() < 0.5 else layers.AveragePooling2D
    return kind(2, padding=str(generator.choice(["same", "valid"])))(x) if x.shape[1] > 2 else x


Part = Callable[[Any, Any, Any], Any]
PARTS: dict[str, Part] = {
    "conv": _conv,
    "conv again": _conv,
    "depthwise": lambda layers, x, g: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(g.choice([1, 2])))(
        x
    ),
    "separable": lambda layers, x, g: layers.SeparableConv2D(6, 3, padding="same", activation="relu")(x),
    "dilated": lambda layers, x, g: layers.Conv2D(6, 3, padding="same", dilation_rate=2)(x),
    "transposed": lambda layers, x, g: layers.Conv2DTranspose(
        4, int(g.choice([1, 2, 3, 4])), strides=int(g.choice([1, 2, 3])), padding=str(g.choice(["same", "valid"]))
    )(x),
    "batch norm": lambda layers, x, g: layers.BatchNormalization()(x),
    "layer norm": lambda layers, x, g: layers.LayerNormalization()(x),
    "pool": _pool,
    "pad": lambda layers, x, g: layers.ZeroPadding2D(((1, 0), (0, 2)))(x),
    "crop": lambda layers, x, g: layers.Cropping2D(1)(x) if x.shape[1] > 4 else x,
    "upsample": lambda layers, x, g: layers.UpSampling2D(2, interpolation=str(g.choice(["nearest", "bilinear"])))(x),
    "resize": lambda layers, x, g: layers.Resizing(
        13, 17, interpolation=str(g.choice(["bilinear", "nearest", "bicubic"]))
    )(x),
    "residual": _residual,
    "squeeze": _squeeze,
    "dropout": lambda layers, x, g: layers.SpatialDropout2D(0.3)(layers.Dropout(0.3)(x)),
    "augment": lambda layers, x, g: layers.RandomFlip()(layers.RandomRotation(0.1)(x)),
    "prelu": lambda layers, x, g: layers.PReLU(shared_axes=[1, 2])(x),
    "leaky": lambda layers, x, g: layers.LeakyReLU()(x),
    "permute": lambda layers, x, g: layers.Permute((2, 1, 3))(x),
}
ENDS: dict[str, Callable[[Any, Any], Any]] = {
    "mean": lambda layers, x: layers.GlobalAveragePooling2D()(x),
    "max": lambda layers, x: layers.GlobalMaxPooling2D()(x),
    "flat": lambda layers, x: layers.Flatten()(layers.AveragePooling2D(2, padding="same")(x)),
    "dense": lambda layers, x: layers.Dense(8, activation="relu")(layers.GlobalAveragePooling2D()(x)),
    "rows": lambda layers, x: layers.GRU(6)(layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)),
}
HEADS: dict[str, Callable[[Any, Any, int], Any]] = {
    "softmax": lambda layers, x, n: layers.Dense(n, activation="softmax")(x),
    "softmax layer": lambda layers, x, n: layers.Softmax()(layers.Dense(n)(x)),
    "logits": lambda layers, x, n: layers.Dense(n)(x),
    "sigmoids": lambda layers, x, n: layers.Dense(n, activation="sigmoid")(x),
    "one sigmoid": lambda layers, x, n: layers.Dense(1, activation="sigmoid")(x),
    "one logit": lambda layers, x, n: layers.Dense(1)(x),
}


def judge(library_name: str, seed: int, folder: Path, calibrate: bool) -> Verdict:
    """Build, save, convert and compare one model in an empty folder."""
    library = import_module(library_name)
    model, words = build(library, seed)
    container = CONTAINERS[library_name][seed % 3]
    path = save_model(library_name, model, folder, container)
    words = f"{library_name} {container} {seed}: {words}"
    shape = model.input_shape[1:]
    pictures = np.random.default_rng(seed).integers(0, 256, (PICTURES, *shape)).astype(np.uint8)
    calib = _calib(folder, shape, seed) if calibrate else ()
    precisions = () if calibrate else ("fp32",)
    options = ConvertOptions(model=path, output=folder / "m.edgevid", precisions=precisions, calib=calib, search=False)
    before = {entry.name for entry in folder.iterdir()}
    try:
        bundle = convert_model(options)
    except EdgevidError as error:
        said = str(error).replace(str(folder), "")
        left = {entry.name for entry in folder.iterdir()} - before
        word = "rubble" if left else "crashed" if "crashed" in said or "process" in said else "refused"
        return Verdict(word, words, said)
    except RuntimeError as error:
        return Verdict("crashed", words, str(error))
    if {entry.name for entry in folder.iterdir()} != before | {"m.edgevid"}:
        return Verdict("rubble", words, ", ".join(sorted(entry.name for entry in folder.iterdir())))
    crashed = [f"{each}: {why}" for each, why in bundle.manifest.left_out.items() if "crashed" in why]
    if crashed:
        return Verdict("crashed", words, "; ".join(crashed))
    return compared(bundle, model, pictures.astype(np.float32), words)


def save_model(library_name: str, model: Any, folder: Path, container: str) -> Path:
    """Save a model of a Keras library in a container, and return the file or folder."""
    path = folder / ("saved" if container == "saved" else f"model.{container}")
    if container != "saved":
        model.save(path)
    elif library_name == "keras":
        model.export(path, verbose=False)
    else:
        model.save(path, save_format="tf")
    return path


def _calib(folder: Path, shape: Sequence[int], seed: int) -> tuple[str, ...]:
    """Write pictures to calibrate on: smooth ones, as no noise is."""
    generator = np.random.default_rng(seed)
    (folder / "pictures").mkdir()
    for index in range(40):
        small = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"{index}.png"), cv2.resize(small, (shape[1], shape[0])))
    return (str(folder / "pictures"),)


def compared(bundle: Bundle, model: Any, tensors: npt.NDArray[np.float32], words: str) -> Verdict:
    """Return how far the variants of a bundle are from its model on tensors, float32 (n, height, width, channels)."""
    expected = _probabilities(bundle, np.asarray(model(tensors, training=False)).reshape(len(tensors), -1))
    errors = {}
    for variant in bundle.manifest.variants:
        asked = ask_litert if variant.format == "tflite" else ask_onnxruntime
        raw = np.concatenate([asked(bundle.path / variant.file, tensor[np.newaxis]) for tensor in tensors])
        errors[variant.id] = float(np.abs(_probabilities(bundle, raw) - expected).max())
    said = ", ".join(f"{each} {error:.1e}" for each, error in errors.items())
    left_out = "; ".join(f"{each} left out: {why}" for each, why in bundle.manifest.left_out.items())
    worst = max((error for each, error in errors.items() if each.endswith("fp32")), default=0.0)
    word = "same" if worst <= ALLOWED_ERROR and all(map(np.isfinite, errors.values())) else "differs"
    return Verdict(word, words, "; ".join(filter(None, (said, left_out))))


def _probabilities(bundle: Bundle, scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return class probabilities by this file's own reading of the manifest."""
    output, values = bundle.manifest.output, scores.astype(np.float64)
    if output.activation == "logits" and output.classes == 2 and values.shape[1] == 1:
        values = 1 / (1 + np.exp(-values))
    elif output.activation == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    return values


def ask_litert(path: Path, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return LiteRT's answer, (1, n), to one tensor."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = given["quantization"]
    if scale:
        tensor = np.clip(np.round(tensor / scale + zero), -128, 127)
    interpreter.set_tensor(given["index"], tensor.astype(given["dtype"]))
    interpreter.invoke()
    values = interpreter.get_tensor(answer["index"]).astype(np.float64)
    scale, zero = answer["quantization"]
    real: npt.NDArray[np.float64] = (values - zero) * scale if scale else values
    return real


def ask_onnxruntime(path: Path, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return ONNX Runtime's answer, (1, n), to one tensor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answer: npt.NDArray[np.float64] = session.run(None, {session.get_inputs()[0].name: tensor})[0].astype(np.float64)
    return answer


def report(verdicts: Sequence[Verdict], seconds: float, arguments: argparse.Namespace) -> str:
    """Return the figures, and each model that did not answer the same, in Markdown."""
    calibrate = " --calibrate" if arguments.calibrate else ""
    command = f"--count {arguments.count} --library {arguments.library} --seed {arguments.seed}{calibrate}"
    lines = [
        "# Random small classifiers",
        "",
        f"`python -m edgevid_bench.studies.fuzz {command}`, {seconds / 60:.0f} minutes.",
        "",
        "| library | models | same | refused | differs | crashed | rubble |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for library in arguments.library.split(","):
        of_library = [each for each in verdicts if each.model.startswith(f"{library} ")]
        counts = Counter(each.word for each in of_library)
        cells = (str(counts[word]) for word in ("same", "refused", "differs", "crashed", "rubble"))
        lines.append(f"| {library} | {len(of_library)} | {' | '.join(cells)} |")
    lines += ["", *(f"- {each.word}: {each.model}: {each.said}" for each in verdicts if each.word != "same"), ""]
    return "\n".join(lines)


def main() -> None:
    """Build, convert, compare, print."""
    parser = argparse.ArgumentParser(prog="edgevid_bench.studies.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300, metavar="N", help="models of each library")
    parser.add_argument("--library", default=",".join(LIBRARIES), help="with commas between them")
    parser.add_argument("--seed", type=int, default=0, help="of the first model; the next have the numbers after it")
    parser.add_argument("--calibrate", action="store_true", help="make the int8 variants too")
    parser.add_argument("--output", type=Path, metavar="FILE.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.library.split(",")) - set(LIBRARIES):
        parser.error(f"--library {', '.join(unknown)}: expected some of {', '.join(LIBRARIES)}")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    warnings.simplefilter("ignore")
    import edgevid_convert.engine  # noqa: F401 - TensorFlow and both of Keras, set up as for a conversion

    started, verdicts = time.monotonic(), []
    last = arguments.seed + arguments.count
    for library in arguments.library.split(","):
        for first in range(arguments.seed, last, FRESH_AFTER):
            with kept_worker():
                for seed in range(first, min(first + FRESH_AFTER, last)):
                    with tempfile.TemporaryDirectory() as folder:
                        verdicts.append(judge(library, seed, Path(folder), arguments.calibrate))
                    counts = Counter(each.word for each in verdicts)
                    sys.stderr.write(f"{library} {seed}: {verdicts[-1].word}  {dict(counts)}\n")
                    if arguments.output:  # after each: the whole takes a while, and an interruption shall not cost it
                        arguments.output.write_text(report(verdicts, time.monotonic() - started, arguments))
            import_module(library).backend.clear_session()
    sys.stdout.write(report(verdicts, time.monotonic() - started, arguments))


if __name__ == "__main__":
    main()
