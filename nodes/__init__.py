"""The nodes, as the host lists them."""

from . import apply, attention, evaluate, load, save, train

NODES = [*train.NODES, *save.NODES, *load.NODES, *apply.NODES, *attention.NODES, *evaluate.NODES]
