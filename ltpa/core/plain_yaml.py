"""YAML as this project reads it: plain data, and no key twice in one mapping."""

from collections.abc import Iterator
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, much faster where libyaml is there


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML text. Without this check the last of two equal keys would silently win.

    Raises:
        yaml.YAMLError: the text is not YAML, or a mapping has a key twice; the message then names key and lines.
    """
    loader = _LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        for first, second in _repeated_keys(root, set()):
            lines = f"lines {first.start_mark.line + 1} and {second.start_mark.line + 1}"
            raise yaml.YAMLError(f"key {second.value!r} stands twice, in {lines}; keep one of them")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _repeated_keys(node: yaml.Node, visited: set[int]) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Keys of the same mapping that are equal. Keys that come from a merge (`<<`) may be overridden."""
    if id(node) in visited or isinstance(node, yaml.ScalarNode):
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item, visited)
        return
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            name = (key.tag, key.value)
            if name in seen:
                yield seen[name], key
            seen[name] = key
        yield from _repeated_keys(value, visited)
