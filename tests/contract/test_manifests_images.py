"""Images: one list that is never stale; and the script that installs."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from contract.manifests_lab import KUBECTL, MANIFESTS, OVERLAYS, ROOT, containers, overlay, pods

LISTED = yaml.safe_load((MANIFESTS / "images.yaml").read_text())["images"]
INSTALL = MANIFESTS / "install"
REQUIREMENTS = MANIFESTS / "images/controllers/requirements.txt"
# In a process of its own: finds no package but the standard library and what the requirements bring.
ONLY = """
import importlib.metadata as metadata, re, sys
def needed(name, seen):
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return
    try:
        requires = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return
    seen.add(name)
    for each in requires:
        if "extra ==" not in each:
            needed(re.match(r"[\\w.-]+", each)[0], seen)
seen = set()
for line in open(sys.argv[1]):
    if line.strip() and not line.startswith("#"):
        needed(re.match(r"[\\w.-]+", line)[0], seen)
brought = {
    top for top, names in metadata.packages_distributions().items()
    if {re.sub(r"[-_.]+", "-", each).lower() for each in names} & seen
}
class Finder:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        is_own = top in sys.stdlib_module_names or top.startswith("_sysconfigdata") or top == "glowplug"
        if not is_own and top not in brought:
            raise ModuleNotFoundError(f"{top} is in no requirement", name=top)
sys.meta_path.insert(0, Finder())
import glowplug.cli.main, glowplug.cli.kube, glowplug.operators.api, glowplug.operators.webhook
import glowplug.rollout.operator, glowplug.warmfloor.operator
"""


def test_the_list_is_not_stale() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "tools/images"), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_image_is_listed(name: str) -> None:
    listed = {each["image"] for each in LISTED}
    for _, pod in pods(overlay(name)):
        for container in containers(pod):
            image = re.sub(r"^(dev\.local|registry\.example\.com)/", "", container["image"])
            assert image in listed
            assert not image.endswith(":latest") and ":" in image.rpartition("/")[2]


def test_the_workflow_builds_every_image() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/images.yaml").read_text())
    matrix = workflow["jobs"]["build"]["strategy"]["matrix"]["include"]
    built = {(each["image"], each["dockerfile"]) for each in matrix}
    assert built == {
        (each["image"].partition(":")[0].partition("/")[2], each["dockerfile"])
        for each in LISTED
        if "dockerfile" in each
    }


def test_the_controllers_import_what_their_image_has() -> None:
    imported = subprocess.run(
        [sys.executable, "-c", ONLY, str(REQUIREMENTS)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert imported.returncode == 0, imported.stderr


def installs(*arguments: str, kubeconfig: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(INSTALL), *arguments],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}", "KUBECONFIG": str(kubeconfig)},
    )  # fmt: skip


def test_install_helps(tmp_path: pathlib.Path) -> None:
    helped = installs("--help", kubeconfig=tmp_path / "none")
    assert helped.returncode == 0
    assert "Example: manifests/install" in helped.stdout
    wrong = installs("--overlya", "kind", kubeconfig=tmp_path / "none")
    assert wrong.returncode == 2
    assert "--overlya is no option" in wrong.stderr


def test_install_says_that_there_is_no_cluster(tmp_path: pathlib.Path) -> None:
    nobody = installs(kubeconfig=tmp_path / "none")
    assert nobody.returncode == 1
    assert "no cluster answers" in nobody.stderr and "hint:" in nobody.stderr
