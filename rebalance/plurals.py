"""Numbers with their nouns."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """`n` and its noun; `many` by default has an s more.

    Examples:
        >>> counted(1, "class", "classes"), counted(2, "class", "classes"), counted(0, "image")
        ('1 class', '2 classes', '0 images')
    """
    return f"{n} {one if n == 1 else many or one + 's'}"
