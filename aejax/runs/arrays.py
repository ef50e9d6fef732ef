"""Trees of arrays by name, as checkpoints keep them."""

from typing import Any

import jax

Arrays = dict[str, jax.Array]


def flatten(tree: Any) -> dict[str, Any]:
    """{"a/b/0": leaf} of nested containers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(tree: Any, arrays: Arrays) -> Any:
    """The tree with each leaf replaced by the array of its name."""
    names = list(flatten(tree))
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in names])


def describe(array: Any) -> list[Any]:
    """An array's shape and type, as a manifest has them."""
    return [list(array.shape), str(array.dtype)]
