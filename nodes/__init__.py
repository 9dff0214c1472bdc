"""The nodes, as the host lists them."""

from . import apply, combine, edit, export, load, save, train

NODES = [
    *train.NODES,
    *save.NODES,
    *load.NODES,
    *apply.NODES,
    *combine.NODES,
    *edit.NODES,
    *export.NODES,
]
