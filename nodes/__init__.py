"""The nodes, as the host lists them, and what their part of the page asks for."""

from . import apply, attention, cast, combine, edit, evaluate, export, load, save, train
from .host.page.routes import serve

NODES = [
    *train.NODES,
    *cast.NODES,
    *save.NODES,
    *load.NODES,
    *apply.NODES,
    *combine.NODES,
    *edit.NODES,
    *export.NODES,
    *attention.NODES,
    *evaluate.NODES,
]

serve()
