"""SeFi-ID (arXiv 2402.00631): one picture in, five per-stage token pairs (P_i^K, P_i^V) out.

Nothing here knows the host. Read top to bottom: backbone, devices, stages, prompts, identity,
group, edit, generator, contexts, maps, heatmap, losses, memory, augment, recipe, guard, learner,
probe, training, together, container, texts, file_format, evaluation.

Dimension key, used in every docstring:
    B batch · S stages · 2 the (K, V) axis · T tokens of one placeholder · E token width · L prompt
    tokens C context width · H heads · d head width · N picture tokens · h w height and width of
    latents or maps
"""
