"""SeFi-ID (arXiv 2402.00631): one picture in, a token pair (P_i^K, P_i^V) for each stage i out.

Nothing here knows the host. Shared by all rooms, each importing only those before it:

    errors, devices, families, stages, words, prompts, samples, protocols, maps, contexts,
    losses, predict

Rooms, which import what is shared and never each other:

    identity/   the value that is learned; several in one prompt; edits and blends; its file
    picture/    views of the training picture, and where the frozen model sees its subject
    training/   settings, words, generator, selection of a start among candidates, learner, loop
    analysis/   attention maps of a whole sampling, scores of generated pictures

Dimension key, used in every docstring:

    B batch · S stages · 2 the (K, V) axis · T tokens of one placeholder · E token width
    L prompt tokens · C context width · H heads · d head width · N picture tokens
    c latent channels · h w height and width of latents or maps · R side of a square picture
"""
