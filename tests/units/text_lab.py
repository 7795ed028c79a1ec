"""A small text model in ONNX, and the same in numpy: what text → tokens → predictor must give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

UNIT = Path(__file__).parents[2] / "transformers" / "text"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "##s", "very", "東", "京")
CLASSES = 3
_RNG = np.random.default_rng(7)
TABLE = _RNG.normal(size=(len(WORDS), CLASSES)).astype(np.float32)
SEGMENTS = _RNG.normal(size=(2, CLASSES)).astype(np.float32)
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def write_tokenizer(path: Path) -> None:
    """WordPiece of BERT's form with eleven words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {word: index for index, word in enumerate(WORDS)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    made.save(str(path))


def write_net(
    path: Path, *, names: Sequence[str] = NAMES, length: int | str = "tokens", dtype: int = 7
) -> None:
    """[n, length] of ids, mask (and segments) to `scores` [n, 3]: the mean of the vectors that the mask leaves."""
    helper, kind = onnx.helper, onnx.TensorProto
    node = helper.make_node
    nodes = [
        node("Gather", ["table", names[0]], ["vectors"]),
        node("Cast", [names[1]], ["mask"], to=kind.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["wide"]),
        node("Mul", ["with_segments" if len(names) > 2 else "vectors", "wide"], ["left"]),
        node("ReduceSum", ["left", "middle"], ["sum"], keepdims=0),
        node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["scores"]),
    ]
    if len(names) > 2:
        nodes[1:1] = [
            node("Gather", ["segments", names[2]], ["shift"]),
            node("Add", ["vectors", "shift"], ["with_segments"]),
        ]
    constants = {"table": TABLE, "segments": SEGMENTS, "last": np.array([2]), "middle": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, dtype, ["n", length]) for name in names],
        [helper.make_tensor_value_info("scores", kind.FLOAT, ["n", CLASSES])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def scores_of(*sentences: Sequence[str], has_segments: bool = True) -> Any:
    """float32 [n, 3] of sentences as words of the tokenizer, those that it adds included."""
    rows = [TABLE[[WORDS.index(word) for word in words]].mean(axis=0) for words in sentences]
    return np.stack(rows) + (SEGMENTS[0] if has_segments else 0)
