"""Where and how versions are deployed: the section `deploying` of a pipeline's YAML, read and checked. Values only.

    deploying:
      mode: gitops                    # or direct
      component: predictor
      git:
        repository: https://github.com/acme/manifests.git
        base: main                    # the branch that Argo CD or Flux applies
        branch: glowplug/{model}-{version}   # absent: straight onto base
        path: flights/isvc.yaml
      pullRequest: {forge: github, repository: acme/manifests}

Tokens come from the environment, GLOWPLUG_GIT_TOKEN, and from nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from glowplug_pipelines.sections import Section
from glowplug_pipelines.settings import Settings

TOKEN = "GLOWPLUG_GIT_TOKEN"
GITHUB = "https://api.github.com"
_MODES = ("direct", "gitops")
_COMPONENTS = ("predictor", "transformer")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Of git's rules for names what a pipeline needs, and nothing that means something to a shell.
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|\.lock$|/$|\.$))[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class GitSettings:
    """`branch` empty: the commit goes onto `base`. `username` is sent with the token, over HTTP only."""

    repository: str
    path: str
    base: str = "main"
    branch: str = ""
    author: str = "glowplug <glowplug@localhost>"
    username: str = "x-access-token"
    timeout_s: float = 60.0

    def branch_of(self, model: str, version: str) -> str:
        """The branch that the commit goes onto."""
        filled = self.branch.replace("{model}", model).replace("{version}", version)
        return filled or self.base


@dataclass(frozen=True)
class PullRequestSettings:
    """`api` is the forge's REST address."""

    repository: str
    forge: str = "github"
    api: str = GITHUB
    labels: tuple[str, ...] = ()
    timeout_s: float = 30.0


@dataclass(frozen=True)
class DeploySettings:
    """`ready_s` is how long a new revision may take where no rollout is asked for that would watch it."""

    mode: str = "direct"
    inference_service: str = ""
    namespace: str = "default"
    component: str = "predictor"
    ready_s: float = 600.0
    git: GitSettings | None = None
    pull_request: PullRequestSettings | None = field(default=None)


def deploy_settings_of(settings: Settings, inference_service: str) -> DeploySettings:
    """The settings for this InferenceService. Raises ConfigError with all problems."""
    section = Section(settings.deploying, "the settings", {(): 1}, ("deploying",))
    mode = section.choice("mode", _MODES, "direct")
    component = section.choice("component", _COMPONENTS, "predictor")
    ready_s = section.number("readySeconds", 600.0, above=0)
    git = _git(section.section("git")) if "git" in section else None
    asked = _pull_request(section.section("pullRequest")) if "pullRequest" in section else None
    if mode == "gitops" and git is None:
        section.problem("git", "is absent, which mode gitops needs")
    if asked is not None and (git is None or not git.branch):
        section.problem("pullRequest", "needs git.branch, another one than git.base")
    section.finish()
    return DeploySettings(mode, inference_service, settings.namespace, component, ready_s, git, asked)


def _git(section: Section) -> GitSettings:
    found = GitSettings(
        repository=section.text("repository"),
        path=section.text("path"),
        base=section.text("base", "main"),
        branch=section.text("branch") if "branch" in section else "",
        author=section.text("author", GitSettings.author),
        username=section.text("username", GitSettings.username),
        timeout_s=section.number("timeoutSeconds", GitSettings.timeout_s, above=0),
    )
    if _has_password(found.repository):
        section.problem("repository", f"has a password in it; set {TOKEN} in the environment instead")
    if found.path.startswith("/") or ".." in found.path.split("/"):
        section.problem("path", f"= {found.path!r}, must be relative to the repository's root")
    unknown = set(_PLACEHOLDER.findall(found.branch)) - {"model", "version"}
    example = found.branch_of("model", "1")
    if found.branch and (unknown or not _BRANCH.fullmatch(example) or example == found.base):
        expected = "must be a branch's name with {model} and {version}, not git.base"
        section.problem("branch", f"= {found.branch!r}, {expected}")
    if not _BRANCH.fullmatch(found.base):
        section.problem("base", f"= {found.base!r}, must be the name of a branch")
    if not re.fullmatch(r"[^<>\n]+ <[^<>\s]+>", found.author):
        section.problem("author", f"= {found.author!r}, must be as: Name <address>")
    return found


def _pull_request(section: Section) -> PullRequestSettings:
    found = PullRequestSettings(
        repository=section.text("repository"),
        forge=section.choice("forge", ("github",), "github"),
        api=section.text("api", GITHUB).rstrip("/"),
        labels=section.texts("labels"),
        timeout_s=section.number("timeoutSeconds", PullRequestSettings.timeout_s, above=0),
    )
    if not _REPOSITORY.fullmatch(found.repository):
        section.problem("repository", f"= {found.repository!r}, must be owner/name")
    if urlsplit(found.api).scheme not in ("http", "https") or _has_password(found.api):
        section.problem("api", "must be an http or https address without a password")
    return found


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False
