"""Inputs of a node that takes lists: the host then gives a list for each of them."""

__all__ = ["first", "given"]


def first(value: object) -> object:
    """Returns the one value of an input that takes one; None for a link that is not there yet."""
    if isinstance(value, list | tuple):
        return value[0] if value else None
    return value


def given(inputs: dict, images: str, names: str) -> dict:
    """Returns inputs as their function takes them: the list of `images` as it is, the texts of
    `names` below each other, of all others the first.
    """
    lists = {name: value for name, value in inputs.items() if name in (images, names)}
    taken = {name: first(value) for name, value in inputs.items() if name not in lists}
    if images in lists:
        taken[images] = [image for image in lists[images] if image is not None]
    if names in lists:
        taken[names] = "\n".join(map(str, lists[names]))
    return taken
