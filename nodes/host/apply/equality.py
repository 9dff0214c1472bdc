"""Whether something that is hung on a model wants K and V from one prompt, as one Attention Couple
does: an identity's differ.

Its source is read, because trying it would be running it.
"""

__all__ = ["require_free_values", "wants_equality"]

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import CodeType

import torch

from ....sefi_core.contexts import StagedContext
from ....sefi_core.errors import MismatchError

FORM = {"shape", "size", "ndim", "dim", "numel", "dtype", "device"}  # of a tensor, not its numbers


def require_free_values(
    transformer_options: Mapping, brought: Iterable[tuple[str, StagedContext]]
) -> None:
    """Raises MismatchError if a patch on the model would stop at an identity.

    Arguments:
        brought: The list ("positive" for one) and the contexts of every prompt with an identity.
    """
    patches = transformer_options.get("patches", {}).get("attn2_patch", ())
    if not any(wants_equality(patch) for patch in patches):
        return
    for name, contexts in brought:
        if not torch.equal(contexts.keys, contexts.values):
            raise MismatchError(
                f"{name}: a node on this model wants K and V from one prompt, and an identity's "
                "differ; take that node out (Attention Couple for one), and give each person a "
                "mask with Conditioning (Set Mask) and Conditioning (Combine)."
            )


def wants_equality(patch: Callable) -> bool:
    """Returns whether an attn2_patch asserts something about the numbers of both its K and its V,
    the second and third of its arguments; False where its source cannot be read.
    """
    called = patch if inspect.isroutine(patch) else patch.__call__
    code = getattr(called, "__code__", None)
    if code is None:
        return False
    arguments = code.co_varnames[inspect.ismethod(called) : code.co_argcount]  # without self
    keys_and_values = set(arguments[1:3])
    return len(keys_and_values) == 2 and any(keys_and_values <= n for n in assertions(code))


@cache
def assertions(code: CodeType) -> list[set[str]]:
    """Returns for each assertion of a function the names about whose numbers it is."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return []
    return [numbers_in(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def numbers_in(test: ast.expr) -> set[str]:
    """Returns the names in an expression that stand for more than a tensor's form."""
    form = {
        id(node.value)
        for node in ast.walk(test)
        if isinstance(node, ast.Attribute) and node.attr in FORM
    } | {
        id(argument)
        for node in ast.walk(test)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
        for argument in node.args
    }
    return {n.id for n in ast.walk(test) if isinstance(n, ast.Name) and id(n) not in form}
