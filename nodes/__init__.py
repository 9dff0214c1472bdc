"""The nodes, as the host lists them, and what their part of the page asks for."""

from . import apply, load, save, train
from .host.routes import serve

NODES = [*train.NODES, *save.NODES, *load.NODES, *apply.NODES]

serve()
