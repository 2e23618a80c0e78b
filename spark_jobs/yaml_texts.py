"""YAML that people wrote, read so that nothing of it is lost in silence. Machines that run jobs have no YAML."""

from typing import Any

import yaml

_DEEPEST = 100  # levels; Python gives up at some hundreds, depending on who calls


class _Careful(yaml.composer.Composer, yaml.constructor.BaseConstructor):
    """Refuses a key that is there twice, of which YAML's readers take the last, and what no person nests so deep."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self._depth == _DEEPEST:
            why = f"it is nested deeper than {_DEEPEST} levels"
            # The parser has it, which the loaders below bring in.
            raise yaml.composer.ComposerError(None, None, why, self.peek_event().start_mark)  # type: ignore[attr-defined]
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_mapping_node(self, anchor: Any) -> Any:
        # As it is written: later what `<<` merges is among the keys, and may be there twice.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    why = f"the key {key.value!a} is there twice"
                    raise yaml.composer.ComposerError(None, None, why, key.start_mark)
                seen.add((key.tag, key.value))
        return node


class _Texts(_Careful, yaml.BaseLoader):
    """Every value is a text."""


class _Values(_Careful, yaml.SafeLoader):
    """Values are what they look like, and never objects of Python."""


def texts_of(text: str) -> Any:
    """The content of a YAML text: lists, mappings and texts.

    Raises:
        yaml.YAMLError: It is not YAML, has a key twice, or is nested too deep.
    """
    return yaml.load(text, Loader=_Texts)  # noqa: S506  # as BaseLoader


def values_of(text: str) -> Any:
    """The content of a YAML text: lists, mappings, texts, numbers, dates, true and false.

    Raises:
        yaml.YAMLError: It is not YAML, has a key twice, or is nested too deep.
    """
    return yaml.load(text, Loader=_Values)  # noqa: S506  # as SafeLoader
