"""The nodes, as the host lists them."""

from . import apply, attention, load, save, train

NODES = [*train.NODES, *save.NODES, *load.NODES, *apply.NODES, *attention.NODES]
