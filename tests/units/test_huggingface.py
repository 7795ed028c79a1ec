"""The Hugging Face predictor without torch: model folders and what is refused of them, requests, outputs, the cache."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from units.huggingface_lab import UNIT, run_unit, text_request

from glowplug.errors import ConfigError, GlowplugError, InferenceError, StorageError
from glowplug.wire import InferRequest, RequestedOutput, Tensor

pytest.importorskip("tokenizers")
sys.path.insert(0, str(UNIT / "src"))
from glowplug_huggingface import outputs, parity
from glowplug_huggingface.cache import (
    MANIFEST,
    MAX_AGE_S,
    MODEL,
    Export,
    export_key,
    find_export,
    new_export,
    write_manifest,
)
from glowplug_huggingface.example import letter_tokenizer
from glowplug_huggingface.folder import ModelFolder, read_folder
from glowplug_huggingface.payload import checked
from glowplug_huggingface.pooling import Pooling, read_pooling
from glowplug_huggingface.settings import TextConfig, default_cache_dir
from glowplug_huggingface.tokens import Tokenizer, padded

BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 200}
TAKES = ("input_ids", "attention_mask", "token_type_ids")


def safetensors(path: Path, name: str = "w", values: Any = (1.0, 2.0)) -> Path:
    data = np.asarray(values, dtype="<f4").tobytes()
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def model_folder(place: Path, **config: Any) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps({**BERT, **config}))
    safetensors(place / "model.safetensors")
    letter_tokenizer(place / "tokenizer.json")
    return place


def refused(place: Path, **more: Any) -> GlowplugError:
    with pytest.raises(StorageError) as caught:
        read_folder(str(place), **more)
    assert "\n" not in caught.value.message
    return caught.value


def test_what_a_folder_says_of_itself(tmp_path: Path) -> None:
    found = read_folder(
        str(
            model_folder(
                tmp_path, id2label={"0": "bad", "1": "good"}, max_position_embeddings=512, pad_token_id=0
            )
        )
    )
    assert (found.task, found.labels, found.problem) == (
        "sequence-classification", ("bad", "good"), outputs.SINGLE_LABEL,
    )  # fmt: skip
    assert (found.max_positions, found.vocab_size, found.type_vocab_size) == (512, 200, 1)
    assert found.tokenizer == tmp_path / "tokenizer.json"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    assert read_folder(str(tmp_path)).max_positions == 64
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": int(1e30)}))
    assert read_folder(str(tmp_path)).max_positions == 512
    model_folder(
        tmp_path,
        architectures=["RobertaModel"],
        model_type="roberta",
        max_position_embeddings=514,
        pad_token_id=1,
    )
    found = read_folder(str(tmp_path))
    assert (found.task, found.max_positions, found.pad_id, found.labels) == ("embedding", 512, 1, ())
    assert read_folder(str(tmp_path), "sequence-classification").labels == ("LABEL_0", "LABEL_1")
    model_folder(tmp_path, num_labels=1)
    assert read_folder(str(tmp_path)).problem == "regression"


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere").message
    (tmp_path / "notes.txt").touch()
    assert "holds no config.json; it holds notes.txt" in refused(tmp_path).message
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in refused(tmp_path).message
    (tmp_path / "config.json").write_text("[]")
    assert "is no JSON object" in refused(tmp_path).message
    for architectures in (["GPT2LMHeadModel"], ["BertForTokenClassification"], [], None, [7]):
        model_folder(tmp_path, architectures=architectures)
        assert "--task=embedding" in refused(tmp_path).hint
    model_folder(tmp_path, vocab_size=None)
    assert "vocab_size is None" in refused(tmp_path).message
    model_folder(tmp_path, id2label={"0": "a", "2": "b"})
    assert "id2label has no label for '1'" in refused(tmp_path).message


def test_pickles_are_never_read(tmp_path: Path) -> None:
    place = model_folder(tmp_path)
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    found = refused(place)
    assert "in a pickle (pytorch_model.bin), which is not read" in found.message
    assert "safe_serialization" in found.hint
    (place / "pytorch_model.bin").unlink()
    assert "holds no model.safetensors" in refused(place).message


def test_weights_that_are_not_whole(tmp_path: Path) -> None:
    path = model_folder(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "cut off" in refused(tmp_path).message
    path.write_bytes(whole + b"x")
    assert f"has {len(whole) + 1} bytes, its header says {len(whole)}" in refused(tmp_path).message
    path.write_bytes(struct.pack("<Q", 2**62) + whole[8:])
    assert "is no safetensors file" in refused(tmp_path).message
    for header in (b"[]", b'{"w": 3}', b'{"w": {"data_offsets": ["a", "b"]}}', b"\xff"):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        assert "has a header that is not safetensors'" in refused(tmp_path).message


def test_weights_in_several_files(tmp_path: Path) -> None:
    place = model_folder(tmp_path)
    (place / "model.safetensors").unlink()
    index = place / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    safetensors(place / "one.safetensors")
    assert "two.safetensors is missing" in refused(place).message
    safetensors(place / "two.safetensors")
    assert len(read_folder(str(place)).weights) == 2
    for name in ("../one.safetensors", "/etc/passwd", "one.bin"):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        assert "expected safetensors files beside it" in refused(place).message
    index.write_text(json.dumps({"weight_map": {"a": 3}}))
    assert "no weight_map" in refused(place).message


@settings(max_examples=150, deadline=None)
@given(
    cut=st.integers(0, 200), changes=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4)
)
def test_damaged_weights_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, changes: list[tuple[int, int]]
) -> None:
    place = tmp_path_factory.getbasetemp() / "damaged"
    data = bytearray(model_folder(place).joinpath("model.safetensors").read_bytes()[: 200 - cut])
    for index, value in changes:
        if index < len(data):
            data[index] = value
    (place / "model.safetensors").write_bytes(data)
    try:
        read_folder(str(place))
    except StorageError as error:
        assert "\n" not in error.message


def sentence_transformer(
    place: Path, pooling: Any, steps: tuple[str, ...] = ("Transformer", "Pooling")
) -> Path:
    modules = [
        {"idx": i, "path": "1_Pooling" if step == "Pooling" else "", "type": f"sentence_transformers.models.{step}"}
        for i, step in enumerate(steps)
    ]  # fmt: skip
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "1_Pooling").mkdir(exist_ok=True)
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return place


def test_pooling_as_sentence_transformers_say_it(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) == Pooling("mean", True)
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    assert read_pooling(sentence_transformer(tmp_path, old)) == Pooling("cls", False)
    steps = ("Transformer", "Pooling", "Normalize")
    assert read_pooling(sentence_transformer(tmp_path, {"pooling_mode": "max"}, steps)) == Pooling(
        "max", True
    )
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert read_pooling(tmp_path) == Pooling("max", True, True, "query: ")
    for wrong, said in (
        ({"pooling_mode": ["mean", "max"]}, "pools by mean, max"),
        ({"pooling_mode": "lasttoken"}, "pools by lasttoken"),
        ({"pooling_mode_weightedmean_tokens": True}, "pools by weightedmean"),
        ({"include_prompt": False}, "pools without the prompt"),
    ):
        with pytest.raises(StorageError, match=said):
            read_pooling(sentence_transformer(tmp_path, wrong))
    with pytest.raises(StorageError, match="has the steps Transformer, Pooling, Dense"):
        read_pooling(sentence_transformer(tmp_path, {}, ("Transformer", "Pooling", "Dense")))
    (tmp_path / "modules.json").write_text('[{"path": ""}]')
    with pytest.raises(StorageError, match="no list of sentence-transformers' modules"):
        read_pooling(tmp_path)


def test_tokens_are_cut_off_and_padded(tmp_path: Path) -> None:
    folder = read_folder(str(model_folder(tmp_path)))
    rows = Tokenizer(folder, 8)(["ab c", "", "z" * 50, "é東"])
    assert [len(row.ids) for row in rows] == [5, 2, 8, 4]
    assert rows[1].ids == [2, 3]
    assert (rows[2].ids[0], rows[2].ids[-1]) == (2, 3)
    arrays = padded(rows, 0)
    assert {array.shape for array in arrays.values()} == {(4, 8)}
    assert arrays["attention_mask"].sum(axis=1).tolist() == [5, 2, 8, 4]
    assert not arrays["input_ids"][arrays["attention_mask"] == 0].any()
    prompted = ModelFolder(**{**vars(folder), "pooling": Pooling(prompt="ab ", is_lower_cased=True)})
    assert Tokenizer(prompted, 8)(["C"])[0].ids == rows[0].ids
    small = ModelFolder(**{**vars(folder), "vocab_size": 20})
    with pytest.raises(StorageError, match="the model's vocab_size is 20"):
        Tokenizer(small, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StorageError, match="is no tokenizer"):
        Tokenizer(folder, 8)


def ids(values: Any, name: str = "input_ids", dtype: Any = np.int64) -> Tensor:
    return Tensor.from_numpy(name, np.array(values, dtype=dtype))


def ask(*tensors: Tensor) -> InferRequest:
    return InferRequest("m", tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return read_folder(str(model_folder(tmp_path_factory.mktemp("model"), type_vocab_size=2)))


CONFIG = TextConfig(max_length=4, max_rows=3, max_text_bytes=10)


def test_requests_become_what_is_predicted(folder: ModelFolder) -> None:
    found = checked(ask(Tensor.from_strings("anything", ["a", "b"], (2, 1))), folder, TAKES, CONFIG)
    assert (found.inputs[0].name, found.inputs[0].shape, found.inputs[0].data) == ("text", (2,), [b"a", b"b"])
    found = checked(ask(ids([[5, 6]], dtype=np.int32)), folder, TAKES, CONFIG)
    assert {tensor.name: (tensor.datatype, tensor.data.tolist()) for tensor in found.inputs} == {
        "input_ids": ("INT64", [[5, 6]]),
        "attention_mask": ("INT64", [[1, 1]]),
        "token_type_ids": ("INT64", [[0, 0]]),
    }
    assert len(checked(ask(ids([[5]])), folder, TAKES[:2], CONFIG).inputs) == 2


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ask(), "no input, expected one BYTES tensor 'text' [n]"),
        (ask(ids([[1]], "text")), "tensor 'text': datatype is INT64, expected BYTES"),
        (ask(Tensor.from_strings("t", ["a"] * 2, (1, 2))), "tensor 't': shape is [1, 2], expected [n]"),
        (text_request(*["a"] * 4), "tensor 'text': 4 rows, at most 3 are allowed"),
        (text_request("a", "b" * 11), "tensor 'text': text 1 has 11 bytes, at most 10 are allowed"),
        (text_request("a", b"\xe9a"), "tensor 'text': text 1 is not UTF-8 (byte 0)"),
        (ask(ids([[1]]), Tensor.from_strings("text", ["a"])), "the inputs are 'input_ids', 'text', expected"),
        (ask(ids([[1]], "ids"), ids([[1]], "attention_mask")), "expected 'text' (BYTES [n]), or 'input_ids'"),
        (ask(ids([1, 2])), "tensor 'input_ids': shape is [2], expected [n, tokens]"),
        (ask(ids([[1]] * 4)), "tensor 'input_ids': 4 rows, at most 3"),
        (ask(ids([[1] * 5])), "tensor 'input_ids': shape is [1, 5], expected [n, 1 to 4]"),
        (ask(ids([[]])), "tensor 'input_ids': shape is [1, 0], expected [n, 1 to 4]"),
        (ask(ids([[1, 200]])), "tensor 'input_ids': element [0, 1] is 200, expected 0 to 199"),
        (ask(ids([[1, -1]])), "tensor 'input_ids': element [0, 1] is -1"),
        (ask(ids([[1.0]], dtype=np.float32)), "tensor 'input_ids': datatype is FP32, expected INT64"),
        (ask(ids([[1]]), ids([[1, 1]], "attention_mask")), "'attention_mask': shape is [1, 2], expected [1, 1]"),
        (ask(ids([[1]]), ids([[2]], "attention_mask")), "'attention_mask': element [0, 0] is 2, expected 0 to 1"),
        (ask(ids([[1], [1]]), ids([[1], [0]], "attention_mask")), "'attention_mask': row 1 is all zeros"),
        (ask(ids([[1]]), ids([[2]], "token_type_ids")), "'token_type_ids': element [0, 0] is 2, expected 0 to 1"),
        (ask(ids([[1]]), ids([[2]], "position_ids")), "the inputs are 'input_ids', 'position_ids', expected"),
    ],
)  # fmt: skip
def test_wrong_requests_name_the_tensor(folder: ModelFolder, request_: InferRequest, said: str) -> None:
    with pytest.raises(InferenceError) as caught:
        checked(request_, folder, TAKES, CONFIG)
    assert said in caught.value.message
    assert caught.value.code == 400


def test_outputs_of_every_problem(folder: ModelFolder) -> None:
    values = np.array([[1, 3], [900, -900], [-2, -2]], dtype=np.float32)

    def made(problem: str, *asked: str) -> dict[str, Tensor]:
        its = ModelFolder(**{**vars(folder), "problem": problem, "labels": ("no", "yes")})
        there = outputs.specs(its, 2)
        request = InferRequest("m", (), outputs=tuple(map(RequestedOutput, asked)))
        outputs.check_asked(request, there)
        return {tensor.name: tensor for tensor in outputs.tensors(its, values, request, there)}

    one = made("single_label_classification")
    assert list(one) == ["logits", "probabilities", "label"]
    expected = np.exp(values - values.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        one["probabilities"].data, expected / expected.sum(axis=1, keepdims=True), rtol=1e-6
    )
    assert one["label"].as_strings() == ["yes", "no", "no"]
    several = made("multi_label_classification")
    assert list(several) == ["logits", "probabilities"]
    np.testing.assert_allclose(several["probabilities"].data[0], 1 / (1 + np.exp([-1, -3])), rtol=1e-6)
    assert several["probabilities"].data[1].tolist() == [1, 0]
    assert {tensor.data.dtype for tensor in several.values()} == {np.dtype(np.float32)}
    assert list(made("regression")) == ["logits"]
    assert list(made("single_label_classification", "label")) == ["label"]
    with pytest.raises(InferenceError, match=r"no output 'label'; the outputs are: 'logits'$"):
        made("regression", "label")
    assert outputs.softmax(np.empty((0, 2), np.float32)).shape == (0, 2)


class Line:
    """A backend that gives a line of its inputs; `slope` and `shape` make it wrong."""

    name = "line"
    inputs = TAKES

    def __init__(self, slope: float = 1.0, drops_mask: bool = False) -> None:
        self._slope, self._drops_mask = slope, drops_mask

    def run(self, arrays: Any) -> Any:
        mask = np.ones_like(arrays["input_ids"]) if self._drops_mask else arrays["attention_mask"]
        mean = (arrays["input_ids"] * mask).sum(axis=1) / mask.sum(axis=1)
        return np.stack([mean * self._slope, -mean], axis=1).astype(np.float32) / 100


def test_parity_sees_what_is_off(folder: ModelFolder) -> None:
    batches = parity.probes(folder, Tokenizer(folder, 16), 16)
    assert {arrays["input_ids"].shape[0] for arrays in batches} >= {1, 3}
    assert max(arrays["input_ids"].shape[1] for arrays in batches) == 16

    def verdict(found: Line, dtype: str = "float32") -> parity.Verdict:
        return parity.compare(folder, batches, Line(), found, dtype)

    assert verdict(Line()).reason == ""
    assert verdict(Line(1 + 1e-6)).reason == ""
    assert "differs from torch by" in verdict(Line(1.001)).reason
    # An export that lost the mask is right as long as nothing is padded.
    assert "differs from torch by" in verdict(Line(drops_mask=True)).reason
    assert "not finite" in verdict(Line(float("nan"))).reason
    assert verdict(Line(1.01), "int8").reason == ""
    assert "at most 0.05 is allowed" in verdict(Line(2), "int8").reason
    maskless = Line()
    maskless.inputs = ("input_ids",)  # type: ignore[assignment]
    assert "does not take attention_mask" in verdict(maskless).reason


def put(root: Path, key: str, content: bytes = b"export") -> Path:
    with new_export(root, key) as place:
        (place / MODEL).write_bytes(content)
        write_manifest(place, Export(2, len(content), 1e-6, 1e-4, "2", "5"))
    return root / key


def exports(root: Path) -> set[str]:
    """What is in a cache, parts of exports included."""
    return {item.name for item in root.iterdir()} - {".lock"}


def test_the_cache_keeps_whole_exports_only(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert find_export((root,), "k") is None
    place = put(root, "k")
    assert find_export((tmp_path / "none", root), "k") == (place, Export(2, 6, 1e-6, 1e-4, "2", "5"))
    with pytest.raises(RuntimeError), new_export(root, "broken") as started:
        (started / MODEL).write_bytes(b"half")
        raise RuntimeError
    assert exports(root) == {"k"}
    (place / MODEL).write_bytes(b"ex")
    assert find_export((root,), "k") is None
    put(root, "k", b"another")
    assert (place / MODEL).read_bytes() == b"another"
    for text in ("{", "[]", '{"width": 2}'):
        (place / MANIFEST).write_text(text)
        assert find_export((root,), "k") is None
    if os.geteuid():
        root.chmod(0o500)
        with pytest.raises(StorageError, match="cannot be written"):
            put(root, "x")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        put(tmp_path / "file", "x")


def test_replicas_share_a_cache(tmp_path: Path) -> None:
    def start(index: int) -> bool:
        put(tmp_path, "k", b"export %d" % index)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(start, range(64)))
    assert find_export((tmp_path,), "k") is not None
    assert exports(tmp_path) == {"k"}


def test_the_cache_forgets_what_nobody_starts_any_more(tmp_path: Path) -> None:
    old, used = put(tmp_path, "old"), put(tmp_path, "used")
    long_ago = time.time() - 2 * MAX_AGE_S
    for place in (old, used):
        os.utime(place / MANIFEST, (long_ago, long_ago))
    assert find_export((tmp_path,), "used") is not None
    put(tmp_path, "new")
    assert exports(tmp_path) == {"used", "new"}


def test_the_key_follows_the_content(tmp_path: Path) -> None:
    place = model_folder(tmp_path / "a")
    key = export_key(read_folder(str(place)), "float32")
    copy = Path(shutil.copytree(place, tmp_path / "b"))
    assert export_key(read_folder(str(copy)), "float32") == key
    assert export_key(read_folder(str(place)), "int8") != key
    assert export_key(read_folder(str(place), "embedding"), "float32") != key
    before = (place / "model.safetensors").stat()
    safetensors(place / "model.safetensors", values=(1.0, 2.5))
    os.utime(place / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (place / "model.safetensors").stat().st_size == before.st_size
    assert export_key(read_folder(str(place)), "float32") != key


def test_settings() -> None:
    for wrong in ({"max_length": 0}, {"max_rows": 0}, {"backend": "torch", "dtype": "int8"}):
        with pytest.raises(ConfigError):
            TextConfig(**wrong)  # type: ignore[arg-type]
    assert default_cache_dir({"XDG_CACHE_HOME": "/c"}) == Path("/c/glowplug/huggingface")
    assert default_cache_dir({"XDG_CACHE_HOME": "c", "HOME": "/h"}) == Path("/h/.cache/glowplug/huggingface")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--max_length=0"], "--max_length=0, expected 1 or more"),
        (["--threads=0"], "--threads=0, expected 1 or more"),
        (["--task=translation"], "invalid choice: 'translation'"),
        (["--backend=torch", "--dtype=int8"], "--dtype=int8 is a form of the ONNX export"),
    ],
)
def test_wrong_flags(argv: list[str], said: str) -> None:
    done = run_unit(*argv, timeout_s=30)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_process_says_what_is_wrong_with_the_model(tmp_path: Path) -> None:
    (model_folder(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    done = run_unit(f"--model_dir={tmp_path}", "--http_port=0", "--grpc_port=0", timeout_s=30)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"error: {tmp_path} has its weights in a pickle")
    assert lines[1].startswith("hint: ")


def test_the_manifests_agree_with_the_unit() -> None:
    runtime = yaml.safe_load((UNIT / "runtime.yaml").read_text())
    assert runtime["spec"]["supportedModelFormats"][0]["name"] == "huggingface"
    container = runtime["spec"]["containers"][0]
    assert container["name"] == "kserve-container"
    # The file system of a container is read-only but for the volume, which the image's cache is in.
    assert container["volumeMounts"][0]["mountPath"] == "/cache"
    assert "XDG_CACHE_HOME=/cache" in (UNIT / "Dockerfile").read_text()
    service = yaml.safe_load((UNIT / "isvc.yaml").read_text())
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] == "huggingface"
