"""Our own kinds of link."""

from comfy_api.v0_0_2 import io

CATEGORY = "SeFi ID"
IdentitySocket = io.Custom("SEFI_IDENTITY")  # carries a sefi_core Identity, which nobody changes
AttentionSocket = io.Custom("SEFI_ATTENTION")  # a Recording, which the sampler fills
Text = str | None  # a constant as the host asks about it; what comes by a link is None
