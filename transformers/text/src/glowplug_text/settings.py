"""What becomes of a text, and how much of it is let in."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.errors import ConfigError

MAX_LENGTH, LONGEST = "max_length", "longest"
PADDINGS = (MAX_LENGTH, LONGEST)


@dataclass(frozen=True)
class TextConfig:
    """Longer texts are cut off behind `max_length` tokens; past the other limits, 400. Raises ConfigError."""

    # In tokens, those that the tokenizer adds included.
    max_length: int = 128
    # MAX_LENGTH: every tensor is [n, max_length]. LONGEST: as long as the request's longest text.
    padding: str = MAX_LENGTH
    # The padding's id; None: as the tokenizer says.
    pad_id: int | None = None
    max_rows: int = 256
    # A text is tokenised as a whole before it is cut off: 64 KiB take 10 ms.
    max_text_bytes: int = 2**16

    def __post_init__(self) -> None:
        for flag in ("max_length", "max_rows", "max_text_bytes"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"--{flag}={getattr(self, flag)}, expected 1 or more")
        if self.padding not in PADDINGS:
            raise ConfigError(f"--padding={self.padding}, expected one of {', '.join(PADDINGS)}")
        if self.pad_id is not None and self.pad_id < 0:
            raise ConfigError(f"--pad_id={self.pad_id}, expected 0 or more")
