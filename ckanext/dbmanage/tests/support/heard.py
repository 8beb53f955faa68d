"""A listener that remembers what it is told."""

from __future__ import annotations

from ckanext.dbmanage.engine.report import Silent


class Heard(Silent):
    """Notes the warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warned.append(sentence)
