"""The volumes of a pod, as directories of this computer.

ConfigMaps, Secrets and projections become files (0600 in directories of 0700), swapped in whole by an atomic change of
a symbolic link, as the kubelet does, so that a reader never sees half an update. A claim is a directory under
`<data-dir>/volumes/<namespace>/`, made on demand as a cluster's provisioner would. A kind of volume that this computer
does not have is an error that says so.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glowplug.spec.kinds import CONFIG_MAP, SECRET, Kind
from glowplug.supervisor import downward
from glowplug.supervisor.failures import CONTAINER_CREATING, CannotStart
from glowplug.supervisor.sources import Sources, reference

_DATA = "..data"
# file name -> (content, is it executable)
Files = dict[str, "tuple[bytes, bool]"]
_KEPT = ("emptyDir", "persistentVolumeClaim", "hostPath")
_WRITTEN = ("configMap", "secret", "projected", "downwardAPI")


def materialise(pod: Mapping[str, Any], folder: Path, claims_dir: Path, sources: Sources) -> dict[str, Path]:
    """Volume name → directory, for all volumes of `pod`; written ones are brought up to date.

    Raises CannotStart naming everything that is missing; nothing is written then.
    """
    volumes = pod["spec"].get("volumes") or ()
    problems = [f'volume "{each["name"]}": {problem}' for each in volumes for problem in _unsupported(each)]
    contents = {each["name"]: _files(pod, each, sources) for each in volumes if _kind(each) in _WRITTEN}
    problems += sources.missing
    if problems:
        raise CannotStart(
            CONTAINER_CREATING, "MountVolume.SetUp failed: " + ", ".join(dict.fromkeys(problems))
        )
    result: dict[str, Path] = {}
    for volume in volumes:
        name = volume["name"]
        result[name] = _kept(volume, folder / name, claims_dir) if name not in contents else folder / name
        if name in contents:
            write_files(folder / name, contents[name])
    return result


def references(pod: Mapping[str, Any]) -> set[tuple[Kind, str]]:
    """The ConfigMaps and Secrets that the pod's volumes show."""
    found: set[tuple[Kind, str]] = set()
    for volume in pod["spec"].get("volumes") or ():
        for source in [volume, *((volume.get("projected") or {}).get("sources") or ())]:
            pair = reference(source)
            if pair is not None:
                found.add((pair[0], pair[1].get("name") or pair[1].get("secretName") or ""))
    return found


def write_files(folder: Path, files: Files) -> None:
    """Make `folder` show exactly `files`; readers see the old set or the new one, never a mixture."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    link = folder / _DATA
    before = link.resolve() if link.is_symlink() else None
    if before is not None and _read(before) == files:
        return
    after = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, (content, is_executable) in files.items():
        path = after / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(0o700 if is_executable else 0o600)
        path.write_bytes(content)
    swap = folder / "..data_tmp"
    swap.unlink(missing_ok=True)
    swap.symlink_to(after.name)
    swap.replace(link)
    _link_names(folder, {name.partition("/")[0] for name in files})
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def _link_names(folder: Path, names: Iterable[str]) -> None:
    wanted = set(names)
    for entry in os.listdir(folder):
        if not entry.startswith("..") and entry not in wanted:
            (folder / entry).unlink()
    for name in wanted:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")


def _read(folder: Path) -> Files:
    found: Files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            is_executable = bool(path.stat().st_mode & 0o100)
            found[path.relative_to(folder).as_posix()] = (path.read_bytes(), is_executable)
    return found


def _kind(volume: Mapping[str, Any]) -> str:
    return next((key for key in volume if key != "name" and volume[key] is not None), "emptyDir")


def _unsupported(volume: Mapping[str, Any]) -> list[str]:
    kind = _kind(volume)
    if kind not in _KEPT + _WRITTEN:
        return [f'a volume of kind "{kind}" does not exist on this computer']
    kinds = [_kind(source) for source in (volume.get("projected") or {}).get("sources") or ()]
    return [f'a projected "{kind}" does not exist on this computer' for kind in kinds if kind not in _WRITTEN]


def _kept(volume: Mapping[str, Any], own: Path, claims_dir: Path) -> Path:
    kind = _kind(volume)
    if kind == "hostPath":
        return Path(volume["hostPath"]["path"])
    folder = claims_dir / volume[kind]["claimName"] if kind == "persistentVolumeClaim" else own
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _files(pod: Mapping[str, Any], volume: Mapping[str, Any], sources: Sources) -> Files:
    kind = _kind(volume)
    if kind != "projected":
        return _source_files(pod, kind, volume[kind], sources)
    files: Files = {}
    mode = volume["projected"].get("defaultMode")
    for source in volume["projected"].get("sources") or ():
        if _kind(source) in _WRITTEN:
            inner = _kind(source)
            files.update(_source_files(pod, inner, {"defaultMode": mode, **source[inner]}, sources))
    return files


def _source_files(pod: Mapping[str, Any], kind: str, source: Mapping[str, Any], sources: Sources) -> Files:
    default_mode = source.get("defaultMode") or 0
    if kind == "downwardAPI":
        return {
            _safe(item["path"]): (_downward(pod, item, sources), False) for item in source.get("items") or ()
        }
    object_kind = CONFIG_MAP if kind == "configMap" else SECRET
    name = source.get("name") or source.get("secretName") or ""
    is_optional = bool(source.get("optional"))
    if not source.get("items"):
        values = sources.whole(object_kind, name, is_optional)
        return {key: (value, bool(default_mode & 0o100)) for key, value in values.items()}
    files: Files = {}
    for item in source["items"]:
        value = sources.one(object_kind, name, item["key"], is_optional)
        if value is not None:
            files[_safe(item["path"])] = (value, bool((item.get("mode") or default_mode) & 0o100))
    return files


def _downward(pod: Mapping[str, Any], item: Mapping[str, Any], sources: Sources) -> bytes:
    path = (item.get("fieldRef") or {}).get("fieldPath", "")
    value = downward.field(pod, path)
    if value is None:
        sources.missing.append(f"unsupported fieldPath: {path}")
    return (value or "").encode()


def _safe(path: str) -> str:
    """A path below the volume: `..` can't lead out of it."""
    return posixpath.normpath("/" + path).lstrip("/")
