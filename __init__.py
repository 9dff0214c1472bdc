"""ComfyUI-SeFi-ID: one picture in, an identity out, that identity in any prompt."""

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    from comfy_api.v0_0_2 import ComfyExtension

    from .nodes import NODES

    class SeFiExtension(ComfyExtension):
        async def get_node_list(self):
            return NODES

    return SeFiExtension()
