"""A line on a node of the page, for the tab that queued it alone."""

__all__ = ["tell"]

import logging

from server import PromptServer

log = logging.getLogger("sefi")

NOTE = "sefi.note"


def tell(line: str, node: str, workflow: str, client: str) -> None:
    """Writes a line into the log, and on a node where a page is there to show it.

    Arguments:
        node: The node's id, as the page has it.
        workflow: The id of the page's workflow.
        client: The host's id of the tab that queued the prompt; nobody else is told.
    """
    log.info(line)
    server = getattr(PromptServer, "instance", None)  # there is none without a page
    if server is not None and client:
        server.send_sync(NOTE, {"workflow": workflow, "node": node, "line": line}, client)
