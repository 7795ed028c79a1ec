"""ResNet's and BERT's architecture with few, random weights, written without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from units.onnx_models import FLOAT, INT64, node, save, value


class Graph:
    """Nodes and weights that are added one after another; `add` returns the name of the node's output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[Any] = []
        self.weights: list[tuple[str, Any]] = []
        self._random = np.random.default_rng(seed)

    def weight(self, *shape: int) -> str:
        """Random, so that sums over all but the first axis keep their size."""
        array = self._random.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant(array.astype(np.float32))

    def constant(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append((name, np.asarray(array)))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(kind, list(inputs), [name], **attributes))
        return name

    def save(self, path: Path, inputs: list[Any], last: str, labels: int) -> Path:
        self.nodes.append(node("Identity", [last], ["logits"]))
        return save(path, self.nodes, inputs, [value("logits", FLOAT, ["n", labels])], *self.weights)


def small_resnet(path: Path, *, size: int = 32, width: int = 8, blocks: int = 2, labels: int = 10) -> Path:
    """pixel_values [n, 3, size, size] to logits: a stem, bottlenecks with shortcuts, the mean, a dense layer."""
    graph = Graph(1)

    def convolved(x: str, wide: int, out: int, kernel: int, stride: int = 1) -> str:
        pads = [kernel // 2] * 4
        x = graph.add("Conv", x, graph.weight(out, wide, kernel, kernel), strides=[stride] * 2, pads=pads)
        ones, zeros = (np.full(out, number, np.float32) for number in (1, 0))
        scale, shift, mean, variance = map(graph.constant, (ones * 0.9, zeros + 0.1, zeros, ones * 1.1))
        return graph.add("BatchNormalization", x, scale, shift, mean, variance)

    x = graph.add("Relu", convolved("pixel_values", 3, width, 7, 2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    wide = width
    for block in range(blocks):
        out, stride = width * 4 * 2**block, 1 + (block > 0)
        inner = graph.add("Relu", convolved(x, wide, out // 4, 1))
        inner = graph.add("Relu", convolved(inner, out // 4, out // 4, 3, stride))
        inner = convolved(inner, out // 4, out, 1)
        x = graph.add("Relu", graph.add("Add", inner, convolved(x, wide, out, 1, stride)))
        wide = out
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.add("Gemm", x, graph.weight(labels, wide), graph.weight(labels), transB=1)
    return graph.save(path, [value("pixel_values", FLOAT, ["n", 3, size, size])], x, labels)


def small_bert(
    path: Path,
    *,
    words: int = 50,
    length: int = 16,
    width: int = 32,
    heads: int = 4,
    layers: int = 2,
    labels: int = 2,
) -> Path:
    """input_ids, attention_mask [n, length] to logits: embeddings, encoder layers, the first token's dense layer."""
    graph = Graph(2)
    each = width // heads

    def dense(x: str, wide: int, out: int) -> str:
        return graph.add("Add", graph.add("MatMul", x, graph.weight(wide, out)), graph.weight(out))

    def normalized(x: str) -> str:
        scale, shift = graph.constant(np.ones(width, np.float32)), graph.constant(np.zeros(width, np.float32))
        return graph.add("LayerNormalization", x, scale, shift, axis=-1)

    split = graph.constant(np.array([0, length, heads, each]))
    whole = graph.constant(np.array([0, length, width]))

    def by_head(x: str) -> str:
        return graph.add("Transpose", graph.add("Reshape", x, split), perm=[0, 2, 1, 3])

    mask = graph.add("Cast", "attention_mask", to=FLOAT)
    mask = graph.add("Unsqueeze", mask, graph.constant(np.array([1, 2])))
    one, low = graph.constant(np.float32(1)), graph.constant(np.float32(-1e9))
    masked = graph.add("Mul", graph.add("Sub", one, mask), low)
    x = graph.add("Gather", graph.weight(words, width), "input_ids")
    x = normalized(graph.add("Add", x, graph.weight(length, width)))
    for _ in range(layers):
        query, key, content = (by_head(dense(x, width, width)) for _ in range(3))
        scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        scores = graph.add("Div", scores, graph.constant(np.float32(np.sqrt(each))))
        seen = graph.add("MatMul", graph.add("Softmax", graph.add("Add", scores, masked), axis=-1), content)
        seen = graph.add("Reshape", graph.add("Transpose", seen, perm=[0, 2, 1, 3]), whole)
        x = normalized(graph.add("Add", x, dense(seen, width, width)))
        wide = dense(x, width, 4 * width)
        half = graph.add("Mul", wide, graph.constant(np.float32(0.5)))
        inner = graph.add("Erf", graph.add("Div", wide, graph.constant(np.float32(np.sqrt(2)))))
        gelu = graph.add("Mul", half, graph.add("Add", inner, one))
        x = normalized(graph.add("Add", x, dense(gelu, 4 * width, width)))
    first = graph.add("Gather", x, graph.constant(np.int64(0)), axis=1)
    x = dense(graph.add("Tanh", dense(first, width, width)), width, labels)
    inputs = [value(name, INT64, ["n", length]) for name in ("input_ids", "attention_mask")]
    return graph.save(path, inputs, x, labels)
