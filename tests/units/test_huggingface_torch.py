"""The Hugging Face predictor with torch in this process: small models of random weights, exported, compared, refused.

transformers' own classes and formulas written out here are the reference.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units.huggingface_lab import NO_TORCH, UNIT, import_torch, is_installed, text_request

from glowplug.errors import InferenceError, StorageError
from glowplug.wire import InferRequest, Tensor

if not is_installed("torch", "transformers", "onnx", "tokenizers"):
    pytest.skip(NO_TORCH, allow_module_level=True)
pytest.importorskip("onnxruntime")
sys.path.insert(0, str(UNIT / "src"))
from glowplug_huggingface import backend as backends
from glowplug_huggingface import export as exporting
from glowplug_huggingface.cache import MODEL
from glowplug_huggingface.eager import TorchBackend
from glowplug_huggingface.example import letter_tokenizer, write_bert
from glowplug_huggingface.folder import ModelFolder, read_folder
from glowplug_huggingface.model import HuggingFaceModel
from glowplug_huggingface.settings import TextConfig
from glowplug_huggingface.tokens import Tokenizer

WIDTH = 32
SIZES = {"vocab_size": 160, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "initializer_range": 0.3}  # fmt: skip
TEXTS = ["a b c", "", "the longest of them all, by far", "naïve 東京 👍", "x" * 500]


@pytest.fixture(scope="module")
def libraries() -> Any:
    return import_torch()


@pytest.fixture(scope="module")
def bert(libraries: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BertForSequenceClassification of three labels."""
    place = tmp_path_factory.mktemp("bert")
    write_bert(
        place, layers=2, hidden=WIDTH, heads=4, labels=("bad", "fair", "good"), vocab_size=160, spread=0.3
    )
    return place


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are made here: importing torch once more takes seconds."""

    def export(folder: ModelFolder, config: TextConfig) -> None:
        exporting.make(
            exporting.Job(str(folder.path), folder.task, config.dtype, 16, 1, str(config.cache_dir))
        )

    monkeypatch.setattr(backends, "export_apart", export)


def loaded(place: Path, cache: Path, **more: Any) -> HuggingFaceModel:
    model = HuggingFaceModel("m", str(place), TextConfig(cache_dir=cache, **{"max_length": 16, **more}))
    asyncio.run(model.load())
    model.warmup()
    return model


def predicted(model: HuggingFaceModel, request: InferRequest) -> dict[str, Any]:
    response = model.predict(model.preprocess(request))
    return {tensor.name: tensor.as_numpy() for tensor in response.outputs}


def saved(libraries: Any, place: Path, name: str, **config: Any) -> Any:
    """A model of random weights, in `place` with a tokenizer; returned too."""
    torch, transformers = libraries
    torch.manual_seed(1)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**{**SIZES, **config})).eval()
    model.save_pretrained(str(place), safe_serialization=True)
    letter_tokenizer(place / "tokenizer.json")
    return model


def test_an_export_computes_what_transformers_does(
    libraries: Any, bert: Path, tmp_path: Path, in_this_process: None
) -> None:
    torch, transformers = libraries
    model = loaded(bert, tmp_path)
    assert model.platform == "huggingface_onnx"
    assert [(spec.name, spec.shape) for spec in model.outputs] == [
        ("logits", (-1, 3)), ("probabilities", (-1, 3)), ("label", (-1,)),
    ]  # fmt: skip
    reference = transformers.BertForSequenceClassification.from_pretrained(str(bert)).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(bert / "tokenizer.json"), pad_token="[PAD]"
    )
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        logits = reference(**encoded).logits.numpy()
    found = predicted(model, text_request(*TEXTS))
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], torch.softmax(torch.tensor(logits), 1), atol=1e-5)
    assert [word.decode() for word in found["label"]] == [
        ("bad", "fair", "good")[i] for i in logits.argmax(1)
    ]
    tensors = tuple(Tensor.from_numpy(name, encoded[name].numpy()) for name in encoded)
    np.testing.assert_allclose(predicted(model, InferRequest("m", tensors))["logits"], logits, atol=1e-5)


def test_rows_do_not_depend_on_their_batch(bert: Path, tmp_path: Path, in_this_process: None) -> None:
    model = loaded(bert, tmp_path, max_batch_size=3)
    texts = [f"{'abc ' * (index % 7)}{index}" for index in range(20)]
    together = predicted(model, text_request(*texts))["logits"]
    alone = np.concatenate([predicted(model, text_request(text))["logits"] for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(alone, axis=0).min() > 1e-3, "every text had the same answer"
    assert predicted(model, text_request())["logits"].shape == (0, 3)


def test_the_second_start_takes_what_is_there(
    bert: Path, tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    first = predicted(loaded(bert, tmp_path), text_request(*TEXTS))["logits"]

    def never(*_: Any) -> None:
        raise AssertionError("exported again")

    made = backends.export_apart
    monkeypatch.setattr(backends, "export_apart", never)
    np.testing.assert_array_equal(predicted(loaded(bert, tmp_path), text_request(*TEXTS))["logits"], first)
    assert "differs from torch by" in caplog.text
    # Damaged, but as long as it was: only onnxruntime can tell.
    (model_file,) = tmp_path.glob(f"*/{MODEL}")
    model_file.write_bytes(bytes(model_file.stat().st_size))
    monkeypatch.setattr(backends, "export_apart", made)
    np.testing.assert_array_equal(predicted(loaded(bert, tmp_path), text_request(*TEXTS))["logits"], first)
    assert "it is made again" in caplog.text


def spoiled(write: Callable[..., None]) -> Callable[..., None]:
    """An exporter that gets a weight slightly wrong."""

    def export(eager: TorchBackend, path: Path, max_length: int) -> None:
        *_, weight, _ = eager.module.parameters()
        weight.data *= 1.01
        write(eager, path, max_length)
        weight.data /= 1.01

    return export


def failing(_: Any) -> Callable[..., None]:
    def export(*_: Any) -> None:
        raise StorageError("torch cannot export it: an operator is missing")

    return export


@pytest.mark.parametrize(
    ("how", "said"), [(spoiled, "differs from torch by"), (failing, "an operator is missing")]
)
def test_an_export_that_fails_or_disagrees_is_not_served(
    bert: Path, tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch, caplog: Any,
    how: Any, said: str,
) -> None:  # fmt: skip
    exact = predicted(loaded(bert, tmp_path / "good"), text_request(*TEXTS))["logits"]
    monkeypatch.setattr(exporting, "write", how(exporting.write))
    cache = tmp_path / "cache"
    model = loaded(bert, cache)
    assert model.platform == "huggingface_torch"
    assert "served by eager torch, not by onnxruntime: " in caplog.text
    assert said in caplog.text
    assert not list(cache.glob("*/*")), "what failed was left behind"
    np.testing.assert_allclose(predicted(model, text_request(*TEXTS))["logits"], exact, atol=1e-5)
    with pytest.raises(StorageError, match=said):
        loaded(bert, cache, backend="onnx")


def test_eager_torch_where_it_is_asked_for(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(backends, "export_apart")
    model = loaded(bert, tmp_path, backend="torch")
    assert model.platform == "huggingface_torch"
    array = np.full((2, 3), 7)
    array.flags.writeable = False
    assert predicted(model, InferRequest("m", (Tensor.from_numpy("input_ids", array),)))["logits"].shape == (
        2,
        3,
    )


def test_int8_is_checked_too(
    bert: Path, tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = predicted(loaded(bert, tmp_path), text_request(*TEXTS))["probabilities"]
    model = loaded(bert, tmp_path, dtype="int8")
    found = predicted(model, text_request(*TEXTS))["probabilities"]
    # The bound of 0.05 is for the probes; these texts are others.
    assert 0 < np.abs(found - exact).max() < 0.15
    sizes = sorted(path.stat().st_size for path in tmp_path.glob(f"*/{MODEL}"))
    assert sizes[0] < 0.7 * sizes[1]
    monkeypatch.setattr("glowplug_huggingface.parity.INT8_PROBABILITY", 1e-9)
    with pytest.raises(StorageError, match="differs from torch by"):
        loaded(bert, tmp_path / "strict", dtype="int8")


MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "cls": lambda states, mask: states[:, 0],
    "mean": lambda states, mask: (states * mask).sum(1) / mask.sum(1),
    "max": lambda states, mask: np.where(mask > 0, states, -np.inf).max(1),
    "mean_sqrt_len_tokens": lambda states, mask: (states * mask).sum(1) / np.sqrt(mask.sum(1)),
}


@pytest.mark.parametrize("mode", list(MEANS))
def test_embeddings_of_every_pooling(
    libraries: Any, tmp_path: Path, in_this_process: None, mode: str
) -> None:
    torch, _ = libraries
    place = tmp_path / "model"
    reference = saved(libraries, place, "BertModel", add_pooling_layer=False)
    steps = ["Transformer", "Pooling", *(["Normalize"] if mode == "mean" else [])]
    modules = [{"path": "pool" if step == "Pooling" else "", "type": f"x.{step}"} for step in steps]
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "pool").mkdir()
    (place / "pool" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
    model = loaded(place, tmp_path / "cache")
    assert (model.platform, model.outputs[0].shape) == ("huggingface_onnx", (-1, WIDTH))
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 160, (4, 11))
    mask = np.ones((4, 11), dtype=np.int64)
    mask[1, 5:] = mask[2, 1:] = mask[3, 2:4] = 0
    with torch.no_grad():
        states = reference(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    expected = MEANS[mode](states, mask[..., None])
    if mode == "mean":
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    tensors = (Tensor.from_numpy("input_ids", ids), Tensor.from_numpy("attention_mask", mask))
    np.testing.assert_allclose(predicted(model, InferRequest("m", tensors))["embedding"], expected, atol=2e-5)


def test_other_architectures(libraries: Any, tmp_path: Path, in_this_process: None) -> None:
    distil = {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    saved(libraries, tmp_path / "distil", "DistilBertForSequenceClassification", **distil)
    model = loaded(tmp_path / "distil", tmp_path)
    assert model.platform == "huggingface_onnx"
    both = tuple(
        Tensor.from_numpy(name, np.ones((1, 2), np.int64)) for name in ("input_ids", "token_type_ids")
    )
    with pytest.raises(Exception, match="'attention_mask'") as caught:
        model.preprocess(InferRequest("m", both))
    assert getattr(caught.value, "code", None) == 400
    # RoBERTa counts positions from behind the padding's id, and has no segments but 0.
    saved(
        libraries,
        tmp_path / "roberta",
        "RobertaModel",
        max_position_embeddings=18,
        pad_token_id=1,
        type_vocab_size=1,
    )
    model = loaded(tmp_path / "roberta", tmp_path, max_length=99)
    assert model.platform == "huggingface_onnx"
    assert predicted(model, text_request("y" * 100, "z"))["embedding"].shape == (2, WIDTH)


def test_half_precision_weights_are_computed_in_single(libraries: Any, bert: Path, tmp_path: Path) -> None:
    torch, transformers = libraries
    model = transformers.BertForSequenceClassification.from_pretrained(str(bert)).half()
    model.save_pretrained(str(tmp_path), safe_serialization=True)
    letter_tokenizer(tmp_path / "tokenizer.json")
    found = TorchBackend(read_folder(str(tmp_path)), 1)
    assert {weight.dtype for weight in found.module.parameters()} == {torch.float32}


def test_weights_of_another_task_are_no_random_numbers(libraries: Any, tmp_path: Path) -> None:
    saved(libraries, tmp_path, "BertModel")
    with pytest.raises(StorageError, match="lacks 2 weights of a sequence-classification model") as caught:
        TorchBackend(read_folder(str(tmp_path), "sequence-classification"), 1)
    assert "classifier.bias" in caught.value.message
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(StorageError):
        TorchBackend(read_folder(str(tmp_path)), 1)


def test_code_in_the_folder_is_never_run(libraries: Any, tmp_path: Path) -> None:
    saved(libraries, tmp_path, "BertModel")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(StorageError, match="cannot be loaded by transformers"):
        TorchBackend(read_folder(str(tmp_path)), 1)
    assert not marker.exists()


def test_labels_must_be_as_many_as_classes(bert: Path, tmp_path: Path, in_this_process: None) -> None:
    place = Path(shutil.copytree(bert, tmp_path / "m"))
    model = loaded(place, tmp_path)
    model._folder = replace(model._folder, labels=("bad", "good"))
    with pytest.raises(StorageError, match="has 2 labels for 3 classes"):
        model._measured_width()


def test_without_a_tokenizer_tokens_are_served(libraries: Any, tmp_path: Path, in_this_process: None) -> None:
    saved(libraries, tmp_path / "m", "BertModel")
    (tmp_path / "m" / "tokenizer.json").unlink()
    model = loaded(tmp_path / "m", tmp_path)
    assert [spec.name for spec in model.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    with pytest.raises(Exception, match="expected 'input_ids'"):
        model.preprocess(text_request("a"))


def test_a_text_without_tokens_is_refused(bert: Path, tmp_path: Path, in_this_process: None) -> None:
    place = Path(shutil.copytree(bert, tmp_path / "m"))
    bare = json.loads((place / "tokenizer.json").read_text())
    (place / "tokenizer.json").write_text(json.dumps({**bare, "post_processor": None}))
    model = HuggingFaceModel("m", str(place), TextConfig(cache_dir=tmp_path, max_length=16))
    asyncio.run(model.load())
    model.warmup()
    assert predicted(model, text_request("a", "b"))["logits"].shape == (2, 3)
    with pytest.raises(InferenceError, match="tensor 'text': text 1 has no tokens"):
        predicted(model, text_request("a", " "))


def test_the_tokenizer_is_transformers(libraries: Any, bert: Path) -> None:
    _, transformers = libraries
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(bert / "tokenizer.json"))
    ours = Tokenizer(read_folder(str(bert)), 16)(TEXTS)
    assert [row.ids for row in ours] == theirs(TEXTS, truncation=True, max_length=16)["input_ids"]
