"""A container becomes a command: ports, paths, names, variables, environment, images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from glowplug.errors import ConfigError
from glowplug.spec import names
from glowplug.spec.kinds import CONFIG_MAP, SECRET
from glowplug.supervisor import ports
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.failures import CannotStart
from glowplug.supervisor.images import ImageTable, Unit, discover, untagged
from glowplug.supervisor.localize import PodPlace, Surroundings, endpoint, localize, port_plan
from glowplug.supervisor.probes import HttpGet, TcpSocket

XGBOOST = Unit(
    "glowplug/xgboost", "python -m glowplug_xgboost --fast", Path("/units/xgboost"), "/v2/health/ready"
)
LOOKUP = Unit("glowplug/feature-lookup", "python -m glowplug_feature_lookup", Path("/units/lookup"))
IMAGES = ImageTable((XGBOOST, LOOKUP))

OBJECTS = {
    (CONFIG_MAP, "feature-store"): {
        "data": {"REDIS_URL": "redis://localhost:6379/0", "PEER": "http://other.default/x"}
    },
    (SECRET, "keys"): {"data": {"token": "czNjcjN0"}, "stringData": {"plain": "text"}},
}

# The collocated pod of the demo, as the revision controller writes it.
DEMO = {
    "metadata": {
        "name": "flights-predictor-00001-deployment-0a1b2c3d-x7k2p",
        "namespace": "default",
        "uid": "u1",
        "labels": {
            names.SERVICE_LABEL: "flights-predictor",
            names.CONFIGURATION_LABEL: "flights-predictor",
            names.REVISION_LABEL: "flights-predictor-00001",
        },
        "annotations": {"note": "hello"},
    },
    "spec": {
        "containers": [
            {
                "name": "kserve-container",
                "image": "ghcr.io/x/glowplug/xgboost:0.1@sha256:abc",
                "args": [
                    "--model_name=flights",
                    "--model_dir=/mnt/models",
                    "--http_port=8080",
                    "--grpc_port=8081",
                ],
                "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}},
            },
            {
                "name": "transformer-container",
                "image": "glowplug/feature-lookup",
                "ports": [{"containerPort": 8090, "name": "http1"}],
                "args": [
                    "--http_port=8090",
                    "--predictor_host=localhost:8081",
                    "--views=/etc/feature-views/v.yaml",
                ],
                "envFrom": [{"configMapRef": {"name": "feature-store"}}],
                "volumeMounts": [{"name": "feature-views", "mountPath": "/etc/feature-views/"}],
            },
        ],
        "volumes": [{"name": "feature-views", "configMap": {"name": "feature-views"}}],
    },
}


def lookup(kind, namespace, name):
    assert namespace == "default"
    return OBJECTS.get((kind, name))


def around() -> Surroundings:
    host_env = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    config = SupervisorConfig(Path("/data"), "/venv/bin/python", host_env, Path("/machine"))
    return Surroundings(
        config, IMAGES, lookup, lambda ns, svc: "127.0.0.1:7001" if svc == "other" else None, "m"
    )


def place(pod, volumes=None) -> PodPlace:
    plan = port_plan(pod, IMAGES)
    bound = ports.bind(plan, range(20001, 20002 + len(plan.numbers)))
    folder = Path("/data/pods/u1")
    paths = {each["name"]: folder / "volumes" / each["name"] for each in pod["spec"].get("volumes") or ()}
    return PodPlace(bound, folder, paths, Path("/models/flights"))


def run(container, **pod_fields):
    pod = {"metadata": DEMO["metadata"], "spec": {"containers": [container], **pod_fields}}
    where = place(pod)
    return localize(pod, container, where, around()), where


def test_units_that_copy_are_told_where_to_and_nothing_else_is():
    where = place(DEMO)
    told = replace(
        around(),
        images=ImageTable((replace(XGBOOST, copies=True), LOOKUP)),
        copying=lambda: "a secret",
    )
    predictor, transformer = DEMO["spec"]["containers"]
    if "xgboost" not in predictor["image"]:
        predictor, transformer = transformer, predictor
    command = localize(DEMO, predictor, where, told)
    assert command.env[names.COPIES_ENV] == "a secret" and "a secret" not in repr(command)
    # Other units, programs of the user's, and a machine that has nothing to say.
    assert names.COPIES_ENV not in localize(DEMO, transformer, where, told).env
    assert (
        names.COPIES_ENV not in localize(DEMO, {**predictor, "command": ["python", "x.py"]}, where, told).env
    )
    assert names.COPIES_ENV not in localize(DEMO, predictor, where, replace(told, copying=lambda: "")).env


def test_the_demo_pod():
    where = place(DEMO)
    predictor, transformer = (localize(DEMO, each, where, around()) for each in DEMO["spec"]["containers"])
    real = where.ports.real
    assert set(real) == {8080, 8081, 8090} and len(set(real.values())) == 3
    assert predictor.argv == (
        "/venv/bin/python", "-m", "glowplug_xgboost", "--fast", "--model_name=flights",
        "--model_dir=/models/flights", f"--http_port={real[8080]}", f"--grpc_port={real[8081]}",
    )  # fmt: skip
    assert predictor.env["PYTHONPATH"] == "/units/xgboost/src:/machine"
    assert predictor.env["OMP_NUM_THREADS"] == "2"
    assert predictor.env["PORT"] == str(real[8080]) and predictor.env["HOST"] == "127.0.0.1"
    assert predictor.probes.readiness.action == HttpGet("127.0.0.1", real[8080], "/v2/health/ready")
    assert transformer.argv[3:] == (
        f"--http_port={real[8090]}",
        f"--predictor_host=localhost:{real[8081]}",
        "--views=/data/pods/u1/volumes/feature-views/v.yaml",
    )
    env = transformer.env
    assert (env["PORT"], env["GRPC_PORT"]) == (str(real[8090]), str(where.ports.spare_grpc))
    assert env["REDIS_URL"] == "redis://localhost:6379/0"
    assert env["PEER"] == "http://127.0.0.1:7001/x"
    assert env["K_REVISION"] == "flights-predictor-00001"
    assert (env["PYTHONSAFEPATH"], env["PYTHONUNBUFFERED"], env["LC_ALL"]) == ("1", "1", "C.UTF-8")
    assert not {"AWS_SECRET_ACCESS_KEY", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS"} & set(env)
    assert transformer.probes.readiness.action == TcpSocket("127.0.0.1", real[8090])
    assert not transformer.probes.readiness.is_repeated
    assert "redis" not in repr(transformer)
    assert endpoint(DEMO, where.ports, IMAGES).grpc == where.ports.spare_grpc


@pytest.mark.parametrize(
    ("container", "grpc"),
    [
        ({"name": "c", "image": "mine", "ports": [{"containerPort": 9000}]}, None),
        ({"name": "c", "image": "mine", "args": ["--grpc_port", "9001"]}, 9001),
        ({"name": "c", "image": "glowplug/xgboost", "ports": [{"containerPort": 9000, "name": "h2c"}]}, None),
        ({"name": "c", "image": "glowplug/xgboost"}, "spare"),
    ],
)
def test_the_endpoint(container, grpc):
    pod = {"spec": {"containers": [container]}}
    bound = place({**pod, "metadata": {}}).ports
    found = endpoint(pod, bound, IMAGES)
    assert found.http == bound.real[bound.plan.http]
    expected = bound.spare_grpc if grpc == "spare" else bound.real.get(grpc)
    assert found.grpc == expected


def test_a_unit_beside_the_serving_container_has_kserves_default_ports():
    back = {"name": "kserve-container", "image": "glowplug/xgboost", "args": ["--http_port=9000"]}
    front = {
        "name": "t",
        "image": "mine",
        "command": ["x", "--to=localhost:8081"],
        "ports": [{"containerPort": 80}],
    }
    pod = {"metadata": DEMO["metadata"], "spec": {"containers": [back, front]}}
    where = place(pod)
    predictor, transformer = (localize(pod, each, where, around()) for each in (back, front))
    real = where.ports.real
    assert set(real) == {80, 9000, 8081}
    assert (predictor.env["PORT"], predictor.env["GRPC_PORT"]) == (str(real[9000]), str(real[8081]))
    assert transformer.argv == ("x", f"--to=localhost:{real[8081]}")
    assert "--model_dir=/models/flights" in predictor.argv, "a default in the unit's code, written out"


def test_variables_expand_as_in_kubernetes():
    command, where = run(
        {
            "name": "c",
            "command": [
                "python3",
                "-c",
                "$(CODE)",
                "$(MISSING)",
                "$$(CODE)",
                "--bind=0.0.0.0:$(N)",
                "$(PORT)",
            ],
            "ports": [{"containerPort": 9000}],
            "env": [
                {"name": "A", "value": "one"},
                {"name": "CODE", "value": "print('$(A)', '$(LATER)', '$(PORT)', '$(PATH)')"},
                {"name": "LATER", "value": "two"},
                {"name": "N", "value": "9000"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
                {
                    "name": "MB",
                    "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
                },
                {
                    "name": "GONE",
                    "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}},
                },
                {"name": "OMP_NUM_THREADS", "value": "7"},
            ],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
        }
    )
    port = where.ports.http
    code = f"print('one', '$(LATER)', '{port}', '$(PATH)')"
    assert command.argv == (
        "/venv/bin/python", "-c", code, "$(MISSING)", "$(CODE)", f"--bind=0.0.0.0:{port}", str(port)
    )  # fmt: skip
    assert command.env["TOKEN"] == "s3cr3t"
    assert command.env["ME"] == DEMO["metadata"]["name"]
    assert (command.env["NOTE"], command.env["MB"], command.env["OMP_NUM_THREADS"]) == ("hello", "64", "7")
    assert "GONE" not in command.env
    assert "PYTHONPATH" not in command.env


def test_everything_that_is_missing_is_said_at_once():
    container = {
        "name": "c",
        "command": ["true"],
        "envFrom": [{"configMapRef": {"name": "no-map"}}, {"secretRef": {"name": "no-secret"}}],
        "env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "feature-store", "key": "NOPE"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "nope"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.nonsense"}}},
        ],
    }
    with pytest.raises(CannotStart) as caught:
        run(container)
    assert caught.value.reason == "CreateContainerConfigError"
    assert caught.value.message == (
        'configmap "no-map" not found, secret "no-secret" not found, '
        "couldn't find key NOPE in ConfigMap default/feature-store, "
        "couldn't find key nope in Secret default/keys, unsupported fieldPath: spec.nonsense"
    )


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        ({"name": "c", "image": "nginx"}, "ErrImagePull", "glowplug/feature-lookup, glowplug/xgboost"),
        (
            {"name": "c", "command": ["true"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            "CreateContainerError",
            'no volume "v"',
        ),
        (
            {"name": "c", "command": ["true"], "readinessProbe": {"httpGet": {"port": "web"}}},
            "CreateContainerError",
            'port "web"',
        ),
        (
            {"name": "c", "command": ["true"], "livenessProbe": {"exec": {}}},
            "CreateContainerError",
            "without a command",
        ),
    ],
)
def test_what_cannot_start_says_why(container, reason, words):
    with pytest.raises(CannotStart, match=words) as caught:
        run(container)
    assert caught.value.reason == reason


def test_probes_go_to_real_ports():
    command, where = run(
        {
            "name": "c",
            "command": ["true"],
            "ports": [{"containerPort": 9000, "name": "web"}],
            "readinessProbe": {"httpGet": {"port": "web", "path": "ready"}, "periodSeconds": 0},
            "livenessProbe": {"tcpSocket": {"port": 9000}, "timeoutSeconds": 3},
            "startupProbe": {"httpGet": {"port": 7777, "host": "localhost", "scheme": "HTTPS"}},
        }
    )
    real = where.ports.http
    assert command.probes.readiness.action == HttpGet("127.0.0.1", real, "/ready")
    assert (command.probes.readiness.period_s, command.probes.readiness.failure_threshold) == (10, 3)
    assert command.probes.liveness.action == TcpSocket("127.0.0.1", real)
    assert command.probes.liveness.timeout_s == 3
    assert command.probes.startup.action == HttpGet("localhost", 7777, "/", is_tls=True)


def test_subpaths_stay_below_their_volume():
    mounts = [
        {"name": "v", "mountPath": "/etc/app/config.yaml", "subPath": "config.yaml"},
        {"name": "v", "mountPath": "/etc/up", "subPath": "../../secrets"},
    ]
    command, _ = run(
        {
            "name": "c",
            "command": ["cat", "/etc/app/config.yaml", "/etc/up/x", "/etc/app"],
            "volumeMounts": mounts,
        },
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    below = "/data/pods/u1/volumes/v"
    assert command.argv[1:] == (f"{below}/config.yaml", f"{below}/secrets/x", "/etc/app")


def test_the_machine_s_own_python_is_no_path_of_the_pod():
    command, _ = run(
        {
            "name": "c",
            "command": ["python", "/venv/run.py"],
            "volumeMounts": [{"name": "v", "mountPath": "/venv"}],
        },
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    assert command.argv == ("/venv/bin/python", "/data/pods/u1/volumes/v/run.py")


def test_images():
    assert IMAGES.find("glowplug/xgboost") is XGBOOST
    assert IMAGES.find("registry:5000/a/glowplug/xgboost:1.2@sha256:00") is XGBOOST
    assert IMAGES.find("glowplug/xgboost-gpu") is None
    assert IMAGES.find("evilglowplug/xgboost") is None
    assert IMAGES.find("") is None
    assert untagged("registry:5000/a/b") == "registry:5000/a/b"


def test_discover_reports_every_problem(tmp_path):
    def unit(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(text)

    unit("a", '[tool.glowplug.unit]\nimage = "x/a:1"\nrun = "python -m a"\n')
    unit("plain", '[project]\nname = "plain"\n')
    (tmp_path / "empty").mkdir()
    table = discover([tmp_path])
    assert table.units == (Unit("x/a", "python -m a", tmp_path / "a"),)
    assert discover([tmp_path / "a"]) == table
    unit("b", '[tool.glowplug.unit]\nimage = "x/a"\nrun = "python -m b"\n')
    unit("c", '[tool.glowplug.unit]\nimage = ""\nreadiness = 3\nruns = "x"\n')
    unit("d", "not toml")
    with pytest.raises(ConfigError) as caught:
        discover([tmp_path])
    for words in (
        "already declared by",
        "image: must be",
        "run: must be",
        "readiness: must be",
        "keys runs",
        "d/pyproject",
    ):
        assert words in caught.value.message


@pytest.mark.parametrize(("said", "expected"), [(True, "/data/kubeconfig"), (False, None), (None, None)])
def test_a_pod_that_asks_for_a_token_is_told_where_the_api_is(said, expected):
    found, _ = run({"name": "c", "image": "glowplug/xgboost"}, automountServiceAccountToken=said)
    assert found.env.get("KUBECONFIG") == expected
