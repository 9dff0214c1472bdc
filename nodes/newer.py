"""What newer hosts offer a schema and 0.3.75 does not know: given where it is taken."""

__all__ = ["FOLDED", "found_by"]

from inspect import signature

from comfy_api.v0_0_2 import io

INPUTS = (io.Int.Input, io.Float.Input, io.String.Input, io.Boolean.Input, io.Combo.Input)

# Of an input few artists change: the page folds it away under "Show advanced inputs".
FOLDED = {"advanced": True} if all("advanced" in signature(i).parameters for i in INPUTS) else {}


def found_by(*aliases: str, essentials: str | None = None) -> dict[str, object]:
    """Returns what finds a node beside its name, as far as the host's io.Schema takes it.

    Arguments:
        aliases: Other words that an artist may search for.
        essentials: The heading in the library's tab of essential nodes.
    """
    wished = {"search_aliases": list(aliases), "essentials_category": essentials}
    taken = signature(io.Schema).parameters
    return {name: value for name, value in wished.items() if value and name in taken}
