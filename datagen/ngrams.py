"""How much two texts share, in character n-grams: what tells a second crop of a page from another page."""

import unicodedata


def ngrams(text: str, n: int) -> frozenset[str]:
    """The distinct runs of `n` characters in `text`, after NFKC and without blanks; shorter texts have none.

    Readers guess at spaces and confuse full-width with half-width marks: neither shall tell two texts apart.
    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    plain = "".join(unicodedata.normalize("NFKC", text).split())
    return frozenset(plain[start : start + n] for start in range(len(plain) - n + 1))


def shared_share(a: frozenset[str], b: frozenset[str]) -> float:
    """Common n-grams over those of the smaller set (Szymkiewicz-Simpson), in [0, 1]; 0.0 when one set is empty.

    Over the smaller one, not over the union: a text that stands wholly inside a longer one is a duplicate of it.
    OmniDoc-TokenBench takes n = 3 for Chinese and 5 for English and calls pairs above .2 (same page) or .3 (same
    category) duplicates.
    """
    smaller = min(len(a), len(b))
    return len(a & b) / smaller if smaller else 0.0
