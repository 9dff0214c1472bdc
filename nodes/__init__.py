"""The nodes, as the host lists them."""

from . import apply, attention, combine, edit, evaluate, export, load, save, train

NODES = [
    *train.NODES,
    *save.NODES,
    *load.NODES,
    *apply.NODES,
    *combine.NODES,
    *edit.NODES,
    *export.NODES,
    *attention.NODES,
    *evaluate.NODES,
]
