"""The schemas: what is read from the client libraries, and the cache."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.schema_models import read_model
from glowplug.spec import kinds
from glowplug.spec.kinds import KINDS


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas.load()


def test_every_kind_that_is_written_has_a_schema_with_its_name(schemas: Schemas) -> None:
    for kind in KINDS:
        definition = schemas.of(kind)
        if kind is kinds.CUSTOM_RESOURCE_DEFINITION:
            assert definition is None
            continue
        assert definition is not None
        assert definition["x-kubernetes-group-version-kind"] == [
            {"group": kind.group, "version": kind.version, "kind": kind.name}
        ]
        assert {"apiVersion", "kind", "metadata"} <= set(definition["properties"])


def test_every_reference_leads_somewhere(schemas: Schemas) -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [name for item in value.values() for name in references(item)]
        return []

    for definition in schemas.definitions.values():
        for name in references(definition):
            assert name in schemas.definitions


def test_fields_have_types_descriptions_and_lists_their_keys(schemas: Schemas) -> None:
    predictor = schemas.definitions["io.kserve.serving.v1beta1.PredictorSpec"]["properties"]
    assert predictor["minReplicas"]["type"] == "integer"
    assert "replicas" in predictor["minReplicas"]["description"].lower()
    assert predictor["containers"]["items"] == {"$ref": "io.k8s.api.core.v1.Container"}
    container = schemas.definitions["io.k8s.api.core.v1.Container"]
    assert container["required"] == ["name"]
    assert container["properties"]["ports"]["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    assert container["properties"]["env"]["x-kubernetes-patch-merge-key"] == "name"
    limits = schemas.definitions["io.k8s.api.core.v1.ResourceRequirements"]["properties"]["limits"]
    assert limits["additionalProperties"] == {"$ref": "io.k8s.apimachinery.pkg.api.resource.Quantity"}


def test_the_libraries_are_not_imported() -> None:
    code = (
        "import sys; from glowplug.apiserver.schema import Schemas; Schemas.load(); "
        "sys.exit(bool({'kubernetes', 'kserve'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, timeout=60, check=False)
    assert done.returncode == 0


def test_a_cache_is_written_and_read(tmp_path: Path, schemas: Schemas) -> None:
    cache = tmp_path / "deep" / "cache"
    Schemas.load(cache)
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    started = time.perf_counter()
    cached = Schemas.load(cache)
    assert time.perf_counter() - started < 0.5  # a few milliseconds, on an idle computer
    assert cached.definitions == schemas.definitions
    assert cached.roots == schemas.roots


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, None])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, schemas: Schemas, damage: bytes | None) -> None:
    Schemas.load(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-10] if damage is None else damage)
    assert Schemas.load(tmp_path).definitions == schemas.definitions
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, schemas: Schemas) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert Schemas.load(file / "cache").definitions == schemas.definitions


PROPERTIES = '''
class V1Thing(object):
    openapi_types = {'some_name': 'str', 'items': 'list[V1Other]'}
    attribute_map = {'some_name': 'someName', 'items': 'items'}

    @property
    def some_name(self):
        """Gets the some_name of this V1Thing.  # noqa: E501

        What it is called.  # noqa: E501

        :return: The some_name of this V1Thing.  # noqa: E501
        """
        return self._some_name

    @some_name.setter
    def some_name(self, some_name):
        if some_name is None:  # noqa: E501
            raise ValueError("Invalid value for `some_name`, must not be `None`")  # noqa: E501
        self._some_name = some_name
'''
PYDANTIC = '''
class V1Thing(BaseModel):
    """
    A thing.

    Attributes:
      openapi_types (dict): ...
    """
    some_name: StrictStr = Field(validation_alias=AliasChoices("someName"), description="What it is called.")
    items: Optional[List[V1Other]] = Field(default=None)
    openapi_types: ClassVar[Dict[str, str]] = {"some_name": "str", "items": "List[V1Other]"}
    attribute_map: ClassVar[Dict[str, str]] = {"some_name": "someName", "items": "items"}
    __properties: ClassVar[List[str]] = ["someName", "items"]
    this is not read and need not be Python
'''


@pytest.mark.parametrize("source", [PROPERTIES, PYDANTIC], ids=["properties", "pydantic"])
def test_both_generations_of_models_are_read(source: str) -> None:
    model = read_model(source, "V1Thing")
    assert model is not None
    name, items = model.fields["someName"], model.fields["items"]
    assert (name.type, name.description, name.is_required) == ("str", "What it is called.", True)
    assert (items.type.lower(), items.is_required) == ("list[v1other]", False)


@pytest.mark.parametrize(
    "source", ["", "\nclass V1Thing(object):\n    x = 1\n", "\nclass V1Thing(object):\n    ((\n"]
)
def test_other_files_are_no_models(source: str) -> None:
    assert read_model(source, "V1Thing") is None
