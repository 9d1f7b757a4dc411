"""From a TensorFlow function to one plain graph: image in, class scores out, constants and operators, no more."""

from __future__ import annotations

from typing import Any

from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

from edgevid_convert.engine import tf

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "frozen_graph", "plain_graph"]

INPUT_NAME = "image"
OUTPUT_NAME = "output"
# Each keeps a function from being inlined. The first: Keras has XLA compile grouped convolutions, and
# tf2onnx does not look into such a function.
KEEP_FROM_INLINING = ("_XlaMustCompile", "_noinline", "api_implements")
# In this order: constants fold only where functions are inlined, and identities fall away last.
GRAPPLER_PASSES = ("function", "constfold", "dependency", "pruning")


def plain_graph(function: Any) -> Any:
    """Return the function as a GraphDef with constants for variables.

    It has one Placeholder named ``image``, float32 (1, height, width, channels), and ends in one Identity named
    ``output``, float32 (1, classes).

    Args:
        function: a ConcreteFunction of one image with one output.
    """
    frozen = convert_variables_to_constants_v2(function)
    inlinable = frozen.graph.as_graph_def()
    for holder in (*inlinable.library.function, *inlinable.node):
        for name in KEEP_FROM_INLINING:
            holder.attr.pop(name, None)
    return _renamed(inlinable, frozen.inputs[0], frozen.outputs[0])


def frozen_graph(plain: Any) -> Any:
    """Return a graph of :func:`plain_graph` in as few and as common operators as it can be had.

    Function calls are inlined, constants are folded, convolutions of one group a channel are depthwise ones, and
    nothing is negated only to be added. A batch normalization's own statistics cannot be told from it any more.
    """
    graph = _with_depthwise(_optimized(plain))
    _subtract_instead_of_negating(graph)
    for node in graph.node:  # nothing here has an effect that another operator would have to wait for
        data = [name for name in node.input if not name.startswith("^")]
        if len(data) < len(node.input):
            node.input[:] = data
    return graph


def _renamed(graph_def: Any, image: Any, output: Any) -> Any:
    """Return the graph with the contract's names for its input and its output."""
    with tf.Graph().as_default() as graph:
        placeholder = tf.compat.v1.placeholder(tf.float32, image.shape, name=INPUT_NAME)
        (result,) = tf.import_graph_def(
            graph_def, input_map={image.name: placeholder}, return_elements=[output.name], name="model"
        )
        tf.identity(result, name=OUTPUT_NAME)
    return graph.as_graph_def()


def _optimized(graph_def: Any) -> Any:
    """Return the graph after TensorFlow's own simplifications; those for speed on this machine are left out."""
    meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph_def, graph=_imported(graph_def))
    fetched = meta_graph.collection_def["train_op"].node_list
    fetched.value.extend([f"{INPUT_NAME}:0", f"{OUTPUT_NAME}:0"])
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1  # small graphs too
    rewriting.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.TWO
    rewriting.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    rewriting.experimental_disable_folding_quantization_emulation = True
    rewriting.optimizers.extend(GRAPPLER_PASSES)
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _with_depthwise(graph_def: Any) -> Any:
    """Return the graph with each Conv2D of one group a channel as the depthwise convolution that it is.

    Every engine has a fast kernel for that. A kernel of (height, width, 1, channels × multiplier) has the same
    numbers in the same order as the depthwise one of (height, width, channels, multiplier).
    """
    shapes = {operation.name: operation for operation in _imported(graph_def).get_operations()}
    kernels = {node.name: node for node in graph_def.node if node.op == "Const"}
    result = type(graph_def)(versions=graph_def.versions)
    for node in graph_def.node:
        if node.op == "Placeholder" and node.name != INPUT_NAME:
            continue  # the function's own, which INPUT_NAME took the place of
        added = result.node.add()
        added.CopyFrom(node)
        if node.op != "Conv2D" or node.input[1] not in kernels or node.attr["data_format"].s != b"NHWC":
            continue
        channels, (_, _, per_group, outputs) = (tensor.shape for tensor in shapes[node.name].inputs)
        channels = channels[-1]
        _, down, across, _ = node.attr["strides"].list.i
        if channels == 1 or per_group != 1 or down != across:
            continue
        kernel = result.node.add()
        kernel.CopyFrom(kernels[node.input[1]])
        kernel.name = f"{node.name}/depthwise_kernel"
        kernel.attr["value"].tensor.tensor_shape.dim[2].size = channels
        kernel.attr["value"].tensor.tensor_shape.dim[3].size = outputs // channels
        added.op = "DepthwiseConv2dNative"
        added.input[1] = kernel.name
        added.attr.pop("use_cudnn_on_gpu", None)
    return result


def _subtract_instead_of_negating(graph_def: Any) -> None:
    """Turn c + (−a) × b, as Keras writes layer normalization, into c − a × b: TFLite negates no integers."""
    nodes = {node.name: node for node in graph_def.node}
    readers: dict[str, list[Any]] = {}
    for node in graph_def.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def only_reader(node: Any, *kinds: str) -> Any:
        found = readers.get(node.name, [])
        return found[0] if len(found) == 1 and found[0].op in kinds else None

    for negation in [node for node in graph_def.node if node.op == "Neg"]:
        product = only_reader(negation, "Mul")
        addition = product and only_reader(product, "AddV2", "Add")
        if not addition:
            continue
        product.input[:] = [negation.input[0] if name == negation.name else name for name in product.input]
        (kept,) = (name for name in addition.input if name != product.name)
        addition.op = "Sub"
        addition.input[:] = [kept, product.name]
        graph_def.node.remove(nodes[negation.name])


def _imported(graph_def: Any) -> Any:
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return graph
