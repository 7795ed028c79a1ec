"""A ServiceAccount's Secrets as the environment of a download: as KServe's webhook makes it of them."""

from __future__ import annotations

import base64

from glowplug.supervisor.storage_secrets import account_of, environment_of, names_in


def encoded(**data: str) -> dict[str, str]:
    return {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}


KEYS = encoded(AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="secret")


def test_keys_and_annotations_become_variables() -> None:
    annotations = {
        "serving.kserve.io/s3-endpoint": "minio:9000",
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "us-east-2",
        "serving.kserve.io/s3-verifyssl": "0",
        "serving.kserve.io/s3-useanoncredential": "false",
    }
    assert environment_of({"metadata": {"annotations": annotations}, "data": KEYS}) == {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_DEFAULT_REGION": "us-east-2",
        "S3_VERIFY_SSL": "0",
        "awsAnonymousCredential": "false",
    }


def test_an_endpoint_is_of_https_unless_it_says_otherwise() -> None:
    annotations = {"serving.kserve.io/s3-endpoint": "s3.example"}
    found = environment_of({"metadata": {"annotations": annotations}, "data": KEYS})
    assert found["AWS_ENDPOINT_URL"] == "https://s3.example"
    data = {**KEYS, **encoded(S3_ENDPOINT="minio", S3_USE_HTTPS="0", AWS_DEFAULT_REGION="eu")}
    found = environment_of({"data": data})
    assert (found["AWS_ENDPOINT_URL"], found["AWS_DEFAULT_REGION"]) == ("http://minio", "eu")


def test_other_secrets_mean_nothing() -> None:
    assert environment_of({"data": encoded(password="x")}) == {}
    assert environment_of({"data": {"AWS_SECRET_ACCESS_KEY": "/w=="}}) == {}, "bytes are no text"


def test_a_pod_without_an_account_has_the_default_one() -> None:
    assert account_of({"spec": {}}) == "default"
    assert account_of({"spec": {"serviceAccountName": "models"}}) == "models"
    assert names_in({"secrets": [{"name": "a"}, {}, {"name": "b"}]}) == ["a", "b"]
