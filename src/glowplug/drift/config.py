"""What is drift, and what is not worth a word: every number of the detector, with its default."""

from __future__ import annotations

from dataclasses import dataclass, replace

from glowplug.errors import ConfigError

_DAY_S = 86400.0


@dataclass(frozen=True)
class DriftConfig:
    """A window is `slots` parts, of `window_s` seconds in all, or of `window_rows` rows where that is not 0.

    It is judged anew whenever a part is full. Drift needs both: a p-value, since small windows differ by chance, and an
    effect, since large ones always differ. Neither says how long; `needed` of the last `of` windows do.
    """

    window_s: float = 14 * _DAY_S
    window_rows: int = 0
    slots: int = 14
    needed: int = 3
    of: int = 5
    # As many windows without drift, judged by limits that are `release` of these, end an episode.
    calm: int = 5
    release: float = 0.8
    cool_down_s: float = 7 * _DAY_S
    # False discoveries among the features that are called drifted (Benjamini-Hochberg), and the level of the two tests
    # that there is one of: the prediction's and the error's.
    feature_rate: float = 0.05
    level: float = 0.01
    min_psi: float = 0.25
    min_ks: float = 0.15
    min_missing: float = 0.05
    # Of the features (by importance, where the profile knows it): one that drifts by itself is told, and is no alarm
    # as long as neither predictions nor errors change. The season moves temperatures every year.
    min_share: float = 0.3
    min_error_ratio: float = 1.5
    # Of the requests: those that have not the features of the profile.
    min_unfit: float = 0.05
    # Windows with less are not judged.
    min_rows: int = 200
    min_labels: int = 100

    def relaxed(self) -> DriftConfig:
        """The limits below which a window is calm."""
        return replace(
            self,
            feature_rate=min(0.5, 2 * self.feature_rate),
            level=min(0.5, 2 * self.level),
            min_psi=self.release * self.min_psi,
            min_ks=self.release * self.min_ks,
            min_missing=self.release * self.min_missing,
            min_share=self.release * self.min_share,
            min_error_ratio=1 + self.release * (self.min_error_ratio - 1),
            min_unfit=self.release * self.min_unfit,
        )

    @property
    def slot_s(self) -> float:
        return self.window_s / self.slots

    @property
    def slot_rows(self) -> int:
        return -(-self.window_rows // self.slots)

    def checked(self) -> DriftConfig:
        """Itself. Raises ConfigError with every problem."""
        problems = [
            f"{name} = {getattr(self, name)}, must be {rule}"
            for name, is_wrong, rule in (
                ("window_s", not self.window_s > 0, "more than 0"),
                ("window_rows", self.window_rows < 0, "0 (windows by time) or more"),
                ("slots", not 1 <= self.slots <= 1000, "1 to 1000"),
                ("needed", not 1 <= self.needed <= self.of, f"1 to `of`, {self.of}"),
                ("of", not 1 <= self.of <= 1000, "1 to 1000"),
                ("calm", self.calm < 1, "1 or more"),
                ("release", not 0 < self.release <= 1, "above 0, at most 1"),
                ("cool_down_s", self.cool_down_s < 0, "0 or more"),
                ("feature_rate", not 0 < self.feature_rate < 1, "between 0 and 1"),
                ("level", not 0 < self.level < 1, "between 0 and 1"),
                ("min_error_ratio", self.min_error_ratio < 1, "1 or more"),
                ("min_rows", self.min_rows < 1, "1 or more"),
                ("min_labels", self.min_labels < 1, "1 or more"),
            )
            if is_wrong
        ]
        if problems:
            raise ConfigError("; ".join(problems))
        return self
