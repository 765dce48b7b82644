"""What a judge says of a picture."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A drop is data: it has a label that manifests count."""

    keep: bool
    reason: str = ""
    """Snake-case label counted in manifests; "" when kept."""
    score: float | None = None
    """What was compared with the threshold, when there is one number."""

    def __post_init__(self) -> None:
        if self.keep != (self.reason == ""):
            raise ValueError(
                f"a kept picture has no reason and a dropped one has, got keep={self.keep}, reason={self.reason!r}"
            )
