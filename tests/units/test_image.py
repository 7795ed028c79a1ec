"""The image transformer: preprocessing against Pillow's and numpy's own steps, hostile files, then the whole path from
an image over the transformer's process to the ONNX predictor's."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.errors import ConfigError, InferenceError
from glowplug.serving import TensorSpec
from glowplug.wire import InferRequest, Tensor, v2_json
from glowplug.wire.v2_grpc import ModelMetadata

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from PIL import Image, ImageOps  # noqa: E402

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "transformers" / "image"
PREDICTOR = ROOT / "predictors" / "onnx"
sys.path.insert(0, str(UNIT / "src"))
from glowplug_image.decode import BadImage, decode  # noqa: E402
from glowplug_image.model import input_misfit, prepare  # noqa: E402
from glowplug_image.payload import image_files  # noqa: E402
from glowplug_image.preprocess import TURNS, crop  # noqa: E402
from glowplug_image.ranking import Ranking, read_labels  # noqa: E402
from glowplug_image.settings import ImageConfig, numbers, thread_count  # noqa: E402

CONFIG = ImageConfig()
EXACT = ImageConfig(is_exact=True)
MEAN, STD = np.array(CONFIG.mean), np.array(CONFIG.std)
# What decoding at a fraction may differ by, of 255: see transformers/image/README.md.
DRAFT_MEAN, DRAFT_MAX = 0.5, 12


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colors and sharp edges, nothing symmetrical."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    made = rough.resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(20):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        color = tuple(int(part) for part in rng.integers(0, 256, 3))
        made.paste(color, (x, y, x + width // 9, y + height // 7))
    return made


def saved(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **more)
    return target.getvalue()


def oriented(image: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def step_by_step(image: Image.Image, size: int = 224, resize: int = 256) -> Any:
    """uint8 [size, size, 3] as torchvision's Resize and CenterCrop make it, one after the other."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    width, height = image.size
    shorter = min(width, height)
    scaled = image.resize((resize * width // shorter, resize * height // shorter), Image.Resampling.BILINEAR)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def pixels(data: bytes, config: ImageConfig = EXACT) -> Any:
    """What the unit makes of a file, before it is normalized."""
    picture = decode(data, max_pixels=config.max_pixels, shorter_side=config.resize, is_exact=config.is_exact)
    return np.asarray(crop(picture, config))


def difference(found: Any, expected: Any) -> Any:
    return np.abs(found.astype(np.float64) - expected)


def prepared(data: bytes, config: ImageConfig = EXACT) -> Any:
    out = np.full(config.shape, np.nan, dtype=np.float32)
    prepare(data, config, out)
    return out


@pytest.mark.parametrize("dimensions", [(500, 375), (375, 500), (301, 301), (40, 30), (3, 700), (1030, 257)])
def test_pixels_are_those_of_the_steps_one_by_one(dimensions: tuple[int, int]) -> None:
    image = photo(*dimensions)
    assert difference(pixels(saved(image)), step_by_step(image)).max() <= 1
    data = saved(image, "JPEG", quality=90)
    assert difference(pixels(data), step_by_step(Image.open(io.BytesIO(data)))).max() <= 1


def test_normalization_and_layouts() -> None:
    image = photo(300, 260)
    expected = (pixels(saved(image)) / 255 - MEAN) / STD
    nchw = prepared(saved(image))
    assert nchw.dtype == np.float32
    np.testing.assert_allclose(nchw, expected.transpose(2, 0, 1), atol=1e-5)
    nhwc = prepared(saved(image), ImageConfig(layout="nhwc"))
    np.testing.assert_allclose(nhwc, expected, atol=1e-5)
    other = ImageConfig(size=32, resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    expected = step_by_step(image, 32, 32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(prepared(saved(image), other), expected, atol=2 / 127)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 90), height=st.integers(1, 90), orientation=st.sampled_from(sorted(TURNS)),
    size=st.integers(1, 24), more=st.integers(0, 9),
)  # fmt: skip
def test_any_dimensions_and_orientation(
    width: int, height: int, orientation: int, size: int, more: int
) -> None:
    image = photo(width, height, seed=width)
    data = oriented(image, orientation, "PNG")
    config = ImageConfig(size=size, resize=size + more, is_exact=True)
    expected = step_by_step(Image.open(io.BytesIO(data)), size, size + more)
    assert difference(pixels(data, config), expected).max() <= 2


@pytest.mark.parametrize("orientation", sorted(TURNS))
@pytest.mark.parametrize("config", [CONFIG, EXACT], ids=["fast", "exact"])
def test_exif_orientation(orientation: int, config: ImageConfig) -> None:
    # An odd number of pixels is left over beside the crop, and no dimension is a multiple of 8.
    data = oriented(photo(1229, 1051), orientation)
    found = difference(pixels(data, config), step_by_step(Image.open(io.BytesIO(data))))
    # Where axes are swapped, Pillow rounds between its two passes in the other order.
    assert found.mean() <= (0.15 if config.is_exact else DRAFT_MEAN)
    assert found.max() <= (1 if config.is_exact else DRAFT_MAX)


@pytest.mark.parametrize("dimensions", [(1024, 1024), (2048, 1100), (1500, 2201), (4100, 4111)])
@pytest.mark.parametrize("progressive", [False, True])
def test_decoding_at_a_fraction_stays_within_the_tolerance(
    dimensions: tuple[int, int], progressive: bool
) -> None:
    data = saved(photo(*dimensions), "JPEG", quality=90, progressive=progressive)
    picture = decode(data, max_pixels=2**25, shorter_side=256)
    assert 512 <= min(picture.image.size) < min(dimensions)
    found = difference(pixels(data, CONFIG), step_by_step(Image.open(io.BytesIO(data))))
    assert found.mean() <= DRAFT_MEAN
    assert found.max() <= DRAFT_MAX


def middle(data: bytes) -> list[int]:
    found: list[int] = pixels(data)[112, 112].tolist()
    return found


def solid(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (64, 48), color)


def test_modes_are_converted() -> None:
    assert middle(saved(solid("L", 77))) == [77, 77, 77]
    assert middle(saved(solid("1", 1))) == [255, 255, 255]
    assert middle(saved(solid("LA", (100, 0)))) == [255, 255, 255]
    assert middle(saved(solid("RGBA", (255, 0, 0, 0)))) == [255, 255, 255]
    assert middle(saved(solid("RGBA", (255, 0, 0, 51)))) == [255, 204, 204]
    assert middle(saved(solid("RGB", (9, 8, 7)), transparency=(9, 8, 7))) == [255, 255, 255]
    assert middle(saved(solid("RGB", (9, 8, 7)), transparency=(1, 2, 3))) == [9, 8, 7]
    assert middle(saved(solid("L", 77), transparency=77)) == [255, 255, 255]


@pytest.mark.parametrize(
    ("alpha", "expected"), [(255, [10, 20, 30]), (0, [255, 255, 255]), (51, [206, 208, 210])]
)
def test_palettes_with_alpha(alpha: int, expected: list[int]) -> None:
    image = solid("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert middle(saved(image, transparency=bytes([255, alpha]))) == expected
    assert middle(saved(image)) == [10, 20, 30]


def test_16_bit_images_keep_their_upper_bits() -> None:
    gray = Image.fromarray(np.full((48, 64), 0x7F40, dtype=np.uint16))
    assert middle(saved(gray)) == [0x7F, 0x7F, 0x7F]
    color = png(64, 48, bit_depth=16, color_type=2, row=struct.pack(">3H", 0x1234, 0x8000, 0xFFFF) * 64)
    assert middle(color) == [0x12, 0x80, 0xFF]
    keyed = png(
        64, 48, bit_depth=16, color_type=2, row=struct.pack(">3H", 0x1234, 0x8000, 0xFFFF) * 64,
        before=chunk(b"tRNS", struct.pack(">3H", 0x1235, 0x8000, 0xFFFF)),
    )  # fmt: skip
    assert middle(keyed) == [0x12, 0x80, 0xFF]


def test_cmyk_jpegs() -> None:
    data = saved(solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    np.testing.assert_allclose(middle(data), [255, 0, 0], atol=3)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    *,
    bit_depth: int = 8,
    color_type: int = 0,
    row: bytes | None = None,
    before: bytes = b"",
) -> bytes:
    """A PNG as its header says; without a row its pixels are missing."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    body = b"" if row is None else zlib.compress((b"\0" + row) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def animated() -> bytes:
    frames = [photo(40, 30, seed) for seed in range(3)]
    return saved(frames[0], save_all=True, append_images=frames[1:])


def with_scans(count: int) -> bytes:
    """A JPEG that repeats its last scan, a pass over all pixels each."""
    data = saved(photo(64, 64), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


JPEG = saved(photo(200, 150), "JPEG")
PNG = saved(photo(200, 150))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "bomb": (png(60_000, 60_000), "has 60000 x 60000 pixels, at most 33554432 are allowed"),
    "long bomb": (png(2**31 - 1, 1), "pixels, at most"),
    "jpeg bomb": (JPEG.replace(struct.pack(">HH", 150, 200), b"\xff\xf0\xff\xf0"), "has 65520 x 65520 pixels"),
    "empty header": (png(0, 5), "image 0 "),
    "flat jpeg": (JPEG.replace(struct.pack(">HH", 150, 200), b"\0\0\0\xc8"), "image 0 "),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "is a broken JPEG: "),
    "truncated png": (PNG[: len(PNG) // 2], "is a broken PNG: "),
    "headless jpeg": (JPEG[:4], "is a broken JPEG: "),
    "headless png": (PNG[:9], "is a broken PNG: "),
    "no pixels": (png(5, 5), "is a broken PNG: "),
    "text bomb": (
        png(5, 5, row=bytes(5), before=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26)))),
        "is a broken PNG: ",
    ),
    "scans": (with_scans(150), "has more than 100 scans"),
    "segments": (JPEG[:2] + b"\xff\xfe\0\2" * 100_000 + JPEG[2:], "has more than 2000 segments"),
    "chunks": (png(5, 5, before=chunk(b"teXt", b"") * 70_000), "has more than 65536 chunks"),
    "animated": (animated(), "is an animated PNG"),
    "gif": (saved(photo(20, 20), "GIF"), "is neither JPEG nor PNG (a GIF)"),
    "tiff": (saved(photo(20, 20), "TIFF"), "is neither JPEG nor PNG (a TIFF)"),
    "bmp in base64": (base64.b64encode(saved(photo(20, 20), "BMP")), "is neither JPEG nor PNG (a BMP)"),
    "url": (b"http://169.254.169.254/", "is neither JPEG nor PNG (a URL)"),
    "nothing": (b"", "is neither JPEG nor PNG (it is empty)"),
    "base64 of nothing": (b"====", "is neither JPEG nor PNG"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name, (data, _) in HOSTILE.items() if data[:2] in (b"\xff\xd8", b"\x89P")]
)
def test_hostile_files_are_refused_before_they_cost_much(name: str) -> None:
    data, said = HOSTILE[name]
    started = time.process_time()
    with pytest.raises(BadImage) as caught:
        pixels(data, CONFIG)
    assert time.process_time() - started < 2
    assert said in f"image 0 {caught.value}"
    assert "\n" not in str(caught.value)


def test_a_thin_image_does_not_become_a_giant() -> None:
    row = np.linspace(0, 255, 200_000).astype(np.uint8)[None]
    found = pixels(saved(Image.fromarray(row)))
    assert found.shape == (224, 224, 3)
    assert abs(int(found[5, 112, 0]) - 127) <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_harm_is_taken() -> None:
    trailing = JPEG + b"\xff\xda\0\2" * 1000
    np.testing.assert_array_equal(pixels(trailing), pixels(JPEG))
    odd = saved(photo(200, 150), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12broken")
    assert pixels(odd).shape == (224, 224, 3)
    # Phones append a second, smaller picture.
    assert pixels(saved(photo(200, 150), "MPO", save_all=True, append_images=[photo(50, 40)])).shape[2] == 3


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from([JPEG, PNG, oriented(photo(30, 20), 6), animated(), saved(solid("LA", (1, 2)))]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=6)), min_size=1, max_size=5),
    keep=st.floats(0.01, 1),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_are_decoded_or_refused(
    seed: bytes, changes: list[tuple[int, bytes]], keep: float
) -> None:
    data = bytearray(seed[: int(len(seed) * keep)])
    for place, piece in changes:
        begin = 8 + place % max(len(data) - 8, 1)
        data[begin : begin + len(piece)] = piece
    try:
        assert np.isfinite(prepared(bytes(data), CONFIG)).all()
    except BadImage as error:
        assert "\n" not in str(error)


def request(*files: bytes, shape: tuple[int, ...] | None = None) -> InferRequest:
    return InferRequest("m", (Tensor.from_strings("image", files, shape),))


def test_files_come_as_bytes_or_base64() -> None:
    wrapped = base64.encodebytes(PNG)
    assert image_files(request(JPEG, PNG, base64.b64encode(JPEG), wrapped), 9) == [JPEG, PNG, JPEG, PNG]
    assert image_files(request(JPEG, PNG, shape=(2, 1)), 9) == [JPEG, PNG]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (InferRequest("m", ()), "0 inputs, expected one BYTES tensor"),
        (
            InferRequest("m", (Tensor.from_numpy("x", np.zeros(3)),)),
            "tensor 'x': datatype is FP64, expected BYTES",
        ),
        (request(JPEG, shape=(1, 1, 1)), "shape is [1, 1, 1], expected [n]"),
        (request(), "0 images, expected 1 to 2"),
        (request(JPEG, JPEG, JPEG), "3 images, expected 1 to 2"),
        (request(JPEG, b"a picture"), "tensor 'image': image 1 is neither JPEG nor PNG"),
    ],
)
def test_requests_that_are_no_images(asked: InferRequest, said: str) -> None:
    with pytest.raises(InferenceError) as caught:
        image_files(asked, 2)
    assert said in caught.value.message
    assert caught.value.code == 400


def test_settings() -> None:
    assert numbers("0.5,0,1") == (0.5, 0, 1)
    for wrong in (
        {"size": 300}, {"size": 0}, {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}, {"layout": "chw"}, {"max_images": 0}
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            ImageConfig(**wrong)  # type: ignore[arg-type]
    assert thread_count(None, {"OMP_NUM_THREADS": "1"}) == 1
    assert thread_count(5, {}) == 5
    with pytest.raises(ConfigError):
        thread_count(0, {})


def test_the_predictor_must_take_what_is_made() -> None:
    def said(*inputs: TensorSpec) -> str:
        return input_misfit(ModelMetadata("m", inputs=inputs), (3, 224, 224))

    assert said(TensorSpec("x", "FP32", (-1, 3, 224, 224))) == ""
    assert said(TensorSpec("x", "FP32", (1, -1, -1, -1))) == ""
    assert "input 'x' is FP32 [-1, 224, 224, 3]" in said(TensorSpec("x", "FP32", (-1, 224, 224, 3)))
    assert "input 'x' is FP16" in said(TensorSpec("x", "FP16", (-1, 3, 224, 224)))
    assert "takes 2 inputs" in said(TensorSpec("x", "FP32", ()), TensorSpec("y", "FP32", ()))


def test_ranking(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nbird\n\n")
    labels = read_labels(tmp_path / "labels.txt")
    assert labels == ("cat", "dog", "bird")
    scores = Tensor.from_numpy("y", np.array([[0.1, 0.7, 0.2], [5, 5, -1]], np.float32))
    best, score, label = Ranking(2, labels)(scores)
    assert best.data.tolist() == [[1, 2], [0, 1]]
    np.testing.assert_array_equal(score.data, np.array([[0.7, 0.2], [5, 5]], np.float32))
    assert (label.shape, label.as_strings()) == ((2, 2), ["dog", "bird", "cat", "dog"])
    assert Ranking(9)(scores)[0].shape == (2, 3)
    assert "2 labels for the 3 classes" in Ranking(1, labels[:2]).misfit([TensorSpec("y", "FP32", (-1, 3))])
    assert "no scores" in Ranking(1).misfit([TensorSpec("y", "BYTES", (-1, 3))])
    with pytest.raises(InferenceError, match="no scores"):
        Ranking(1)(Tensor.from_numpy("y", np.zeros((2, 3, 4), np.float32)))
    (tmp_path / "none.txt").write_text("\n")
    for path in (tmp_path / "none.txt", tmp_path / "missing.txt"):
        with pytest.raises(ConfigError):
            read_labels(path)


# The whole path.

CLASSES = 5
RNG = np.random.default_rng(3)
KERNEL = RNG.normal(size=(CLASSES, 3, 16, 16)).astype(np.float32)


def small_net(folder: Path) -> None:
    """A convolution in blocks of 16 and the mean of it: [n, 3, 224, 224] to scores [n, 5]."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["pixels", "kernel"], ["blocks"], strides=[16, 16]),
            helper.make_node("GlobalAveragePool", ["blocks"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["scores"]),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", kind, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("scores", kind, ["n", CLASSES])],
        [onnx.numpy_helper.from_array(KERNEL, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))


def scores_of(data: bytes) -> Any:
    blocks = prepared(data, CONFIG).astype(np.float64).reshape(3, 14, 16, 14, 16)
    return np.einsum("cyixj,kcij->k", blocks, KERNEL) / 196


@dataclass
class Deployment:
    """The two transformers before one predictor: over gRPC, and over REST with labels."""

    predictor: UnitProcess
    plain: UnitProcess
    ranked: UnitProcess
    client: httpx.Client

    def post(self, server: UnitProcess, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.client.post(server.url + path, content=content, headers=headers)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("pod")
    small_net(folder)
    labels = folder / "labels.txt"
    labels.write_text("\n".join(f"class {index}" for index in range(CLASSES)))
    predictor = UnitProcess(
        folder / "predictor.log", "glowplug_onnx", f"--model_dir={folder}"
    ).wait_until_ready()
    plain = UnitProcess(
        folder / "plain.log", "glowplug_image", f"--predictor_host={predictor.grpc}",
        "--enable_predictor_health_check",
    )  # fmt: skip
    ranked = UnitProcess(
        folder / "ranked.log", "glowplug_image", f"--predictor_host={predictor.url.partition('://')[2]}",
        "--predictor_protocol=v2", f"--labels={labels}", "--top_k=2",
    )  # fmt: skip
    # No certificates to load: everything is plain HTTP.
    with httpx.Client(timeout=DEADLINE_S, verify=False) as client:
        yield Deployment(predictor, plain.wait_until_ready(), ranked.wait_until_ready(), client)
    for server in (plain, ranked, predictor):
        server.stop()


FILES = [saved(photo(320, 240), "JPEG"), saved(photo(100, 333, 1)), oriented(photo(1200, 1100, 2), 6)]
EXPECTED = np.stack([scores_of(data) for data in FILES])


def test_from_image_to_scores_over_rest(pod: Deployment) -> None:
    assert pod.client.get(pod.plain.url + "/v2/health/ready").status_code == 200
    for server in (pod.plain, pod.ranked):
        body, length = v2_json.encode_request(request(*FILES), binary=True)
        answer = pod.post(server, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
        assert answer.status_code == 200, answer.text
        header = answer.headers.get(v2_json.HEADER_LENGTH)
        found = v2_json.decode_response(answer.content, header_length=header).output("scores")
        np.testing.assert_allclose(found.data, EXPECTED, rtol=1e-3, atol=1e-3)
    texts = [base64.b64encode(data).decode() for data in FILES]
    item = {"name": "image", "datatype": "BYTES", "shape": [3], "data": texts}
    answer = pod.post(pod.plain, "/v2/models/m/infer", {"inputs": [item], "id": "7"})
    assert answer.json()["id"] == "7"
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], EXPECTED.ravel(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", ["b64", "image", "text"])
def test_v1(pod: Deployment, form: str) -> None:
    texts = [base64.b64encode(data).decode() for data in FILES]
    instances: list[Any] = {
        "b64": [{"b64": text} for text in texts],
        "image": [{"image": {"b64": text}} for text in texts],
        "text": texts,
    }[form]
    answer = pod.post(pod.plain, "/v1/models/m:predict", {"instances": instances})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["predictions"], EXPECTED, rtol=1e-3, atol=1e-3)


def test_labels_and_asked_outputs(pod: Deployment) -> None:
    item = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILES[0]).decode()]}
    order = np.argsort(-EXPECTED[0])[:2].tolist()
    answer = pod.post(pod.ranked, "/v2/models/m/infer", {"inputs": [item]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["scores", "class", "score", "label"]
    asked = {"inputs": [item], "outputs": [{"name": "label"}, {"name": "class"}]}
    outputs = pod.post(pod.ranked, "/v2/models/m/infer", asked).json()["outputs"]
    assert [output["data"] for output in outputs] == [[f"class {index}" for index in order], order]
    asked["outputs"] = [{"name": "scores"}]
    outputs = pod.post(pod.ranked, "/v2/models/m/infer", asked).json()["outputs"]
    assert [output["name"] for output in outputs] == ["scores"]
    asked["outputs"] = [{"name": "nothing"}]
    assert pod.post(pod.ranked, "/v2/models/m/infer", asked).status_code == 400


def test_metadata_is_the_predictors_behind_the_images(pod: Deployment) -> None:
    found = pod.client.get(pod.ranked.url + "/v2/models/m").json()
    assert found["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [(item["name"], item["shape"]) for item in found["outputs"]] == [
        ("scores", [-1, CLASSES]), ("class", [-1, 2]), ("score", [-1, 2]), ("label", [-1, 2]),
    ]  # fmt: skip


async def test_kserves_clients(pod: Deployment) -> None:
    kserve: Any = pytest.importorskip("kserve")

    def asked() -> Any:
        made = kserve.InferInput("image", [3], "BYTES")
        files = np.empty(3, dtype=object)
        files[:] = FILES
        made.set_data_from_numpy(files, binary_data=True)
        return kserve.InferRequest(model_name="m", infer_inputs=[made])

    rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=DEADLINE_S))
    answer = await rest.infer(pod.plain.url, asked(), model_name="m")
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), EXPECTED, rtol=1e-3, atol=1e-3)
    await rest.close()
    rpc = kserve.InferenceGRPCClient(pod.plain.grpc, timeout=DEADLINE_S)
    assert await rpc.is_model_ready("m")
    answer = await rpc.infer(asked())
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), EXPECTED, rtol=1e-3, atol=1e-3)
    await rpc.close()


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_images_are_400_and_named(pod: Deployment, name: str) -> None:
    data, said = HOSTILE[name]
    body, length = v2_json.encode_request(request(FILES[0], data), binary=True)
    answer = pod.post(pod.plain, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
    assert answer.status_code == 400, answer.text
    assert "tensor 'image': image 1 " in answer.json()["error"]
    assert said.replace("image 0 ", "") in answer.json()["error"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", JPEG[:40], PNG[:60], JPEG, PNG, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]),
    junk=st.binary(max_size=60),
    is_base64=st.booleans(),
    shape=st.sampled_from([[1], [1, 1], [2], []]),
)
def test_no_bytes_make_a_5xx(
    pod: Deployment, start: bytes, junk: bytes, is_base64: bool, shape: list[int]
) -> None:
    data = start + junk
    files = [base64.b64encode(data) if is_base64 else data] * int(np.prod(shape, dtype=int))
    body, length = v2_json.encode_request(request(*files, shape=tuple(shape)), binary=True)
    answer = pod.post(pod.plain, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
    assert answer.status_code < 500, answer.text


def test_without_a_predictor_it_waits_and_says_so(tmp_path: Path) -> None:
    server = UnitProcess(
        tmp_path / "log", "glowplug_image", "--predictor_host=127.0.0.1:1"
    ).wait_until_ready()
    body, length = v2_json.encode_request(request(JPEG), binary=True)
    with httpx.Client(timeout=DEADLINE_S, verify=False) as client:
        assert client.get(server.url + "/v2/health/live").status_code == 200
        assert client.get(server.url + "/v2/health/ready").status_code == 503
        answer = client.post(
            server.url + "/v2/models/m/infer", content=body, headers={v2_json.HEADER_LENGTH: str(length)}
        )
    server.stop()
    assert answer.status_code == 503
    assert "not ready" in answer.json()["error"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "--predictor_host is missing"),
        (["--predictor_host=x", "--size=300"], "--size=300, expected 1 to --resize"),
        (["--predictor_host=x", "--mean=1,2"], "three numbers each"),
        (["--predictor_host=x", "--labels=/nowhere"], "--labels=/nowhere cannot be read"),
        (["--predictor_host=x", "--top_k=-1"], "--top_k=-1, expected 0 or more"),
    ],
)
def test_wrong_flags(argv: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glowplug_image", *argv],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_manifest_is_one_pod_with_the_predictor() -> None:
    service = yaml.safe_load((UNIT / "isvc.yaml").read_text())
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["modelFormat"]["name"] == "onnx"
    container = predictor["containers"][0]
    assert container["name"] == "transformer-container"
    assert container["ports"] == [{"containerPort": 8090, "protocol": "TCP"}]
    # KServe runs the predictor under the InferenceService's name.
    assert f"--model_name={service['metadata']['name']}" in container["args"]
    assert {"--http_port=8090", "--grpc_port=8091", "--predictor_host=localhost:8081"} <= set(
        container["args"]
    )
