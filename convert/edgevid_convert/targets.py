"""What a device asks of a TFLite file beyond its precision: ``--target``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
from tensorflow.lite.python import schema_py_generated as schema

from edgevid.bundle import sha256_file
from edgevid.errors import ModelError, first_line
from edgevid.manifest import EdgeTpu, Variant
from edgevid_convert.options import EDGE_TPU_VARIANT

__all__ = ["EDGE_TPU_COMPILER", "fit_to_target", "operator_versions"]

EDGE_TPU_COMPILER = "edgetpu_compiler"
MAPPED = re.compile(r"Number of operations that will run on (Edge TPU|CPU): (\d+)")

# The newest version of each operator that tflite-runtime 2.14, the last there is, loads: asked of it with a file for
# each operator and version.
NEWEST_IN_TFLITE_RUNTIME = {
    name: version
    for version, names in {
        1: """ADD_N ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CALL_ONCE CEIL COMPLEX_ABS
            CONV_3D CONV_3D_TRANSPOSE COS CUMSUM DENSIFY DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP_SPARSE
            EXPAND_DIMS FLOOR HARD_SWISH HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_LOOKUP HASHTABLE_SIZE
            IF IMAG L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LSH_PROJECTION
            MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL NEG NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 ONE_HOT POW
            PRELU RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK READ_VARIABLE REAL REDUCE_ALL REDUCE_ANY RELU_0_TO_1
            RELU_N1_TO_1 RESHAPE REVERSE_SEQUENCE RFFT2D RIGHT_SHIFT ROUND SCATTER_ND SEGMENT_SUM SHAPE SIN
            SKIP_GRAM SQRT SQUARE UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD
            UNSORTED_SEGMENT_SUM VAR_HANDLE WHILE ZEROS_LIKE""",
        2: """DEPTH_TO_SPACE DIV EXP FAKE_QUANT FLOOR_MOD GELU GREATER L2_NORMALIZATION LEAKY_RELU LESS_EQUAL
            LOG_SOFTMAX RANGE REDUCE_PROD RSQRT SELECT_V2 SIGN SPACE_TO_DEPTH SPLIT_V SQUARED_DIFFERENCE SQUEEZE SUM
            WHERE""",
        3: """ARG_MAX ARG_MIN AVERAGE_POOL_2D BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN BROADCAST_TO
            EMBEDDING_LOOKUP FLOOR_DIV GREATER_EQUAL LESS LOGISTIC MAX_POOL_2D MEAN MIRROR_PAD NOT_EQUAL QUANTIZE
            REDUCE_MAX REDUCE_MIN RELU RELU6 REVERSE_V2 RNN SOFTMAX SPARSE_TO_DENSE TANH TILE TOPK_V2
            UNIDIRECTIONAL_SEQUENCE_RNN""",
        4: """BATCH_MATMUL BATCH_TO_SPACE_ND CONCATENATION EQUAL FILL GATHER_ND LSTM MAXIMUM MINIMUM PACK PAD PADV2
            RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SELECT SPACE_TO_BATCH_ND SPLIT SVDF TRANSPOSE_CONV
            UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK""",
        5: "ABS ADD CAST DEQUANTIZE SUB",
        6: "GATHER SLICE TRANSPOSE",
        7: "CONV_2D DEPTHWISE_CONV_2D MUL",
        8: "STRIDED_SLICE",
        10: "FULLY_CONNECTED",
    }.items()
    for name in names.split()
}


def fit_to_target(variant: Variant, target: str | None, folder: Path) -> Variant:
    """Return the variant as the target takes it: checked for it, or compiled for it into the same folder.

    Args:
        variant: one that has just been made.
        target: ``tflite-runtime``, ``edgetpu``, or None, for which nothing is to be done.
        folder: where the variant's file is.

    Raises:
        ModelError: the target cannot load the file, or its compiler fails.
    """
    if target == "tflite-runtime" and variant.format == "tflite":
        _check_for_tflite_runtime(folder / variant.file)
    if target == "edgetpu" and variant.id == EDGE_TPU_VARIANT:
        return msgspec.structs.replace(variant, edgetpu=_compiled_for_edge_tpu(folder / variant.file))
    return variant


def operator_versions(path: Path) -> dict[str, int]:
    """Return the operators of a ``.tflite`` file, each with its version."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.Model.GetRootAs(path.read_bytes())
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    # Codes above 127 stand in a field of their own, which old writers leave at 0.
    return {names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]: code.Version() for code in codes}


def _check_for_tflite_runtime(path: Path) -> None:
    too_new = [
        f"{name} version {version} (it knows {NEWEST_IN_TFLITE_RUNTIME.get(name, 'none')})"
        for name, version in operator_versions(path).items()
        if version > NEWEST_IN_TFLITE_RUNTIME.get(name, 0)
    ]
    if too_new:
        raise ModelError(f"{path.stem}: tflite-runtime 2.14 does not load {', '.join(too_new)}")


def _compiled_for_edge_tpu(path: Path) -> EdgeTpu | None:
    """Run the Edge TPU's compiler, where there is one, and return what it made; else None."""
    compiler = shutil.which(EDGE_TPU_COMPILER)
    if compiler is None:
        return None
    command = [compiler, "-s", "-o", str(path.parent), str(path)]
    process = subprocess.run(command, capture_output=True, text=True, errors="replace")  # noqa: S603 - found above
    compiled, log = path.with_name(f"{path.stem}_edgetpu.tflite"), path.with_name(f"{path.stem}_edgetpu.log")
    said = process.stdout + process.stderr + (log.read_text(errors="replace") if log.exists() else "")
    log.unlink(missing_ok=True)
    counts = {where: int(count) for where, count in MAPPED.findall(said)}
    if process.returncode or not compiled.exists() or "Edge TPU" not in counts:
        compiled.unlink(missing_ok=True)
        complaints = [
            line for line in said.splitlines() if re.search("error|invalid|not quantized", line, re.IGNORECASE)
        ]
        cause = first_line(ModelError("\n".join(complaints) or f"it ended with status {process.returncode}"))
        raise ModelError(f"{path.stem}: {EDGE_TPU_COMPILER} cannot compile it: {cause}")
    return EdgeTpu(
        file=compiled.name,
        sha256=sha256_file(compiled),
        mapped_operators=counts["Edge TPU"],
        cpu_operators=counts.get("CPU", 0),
    )
