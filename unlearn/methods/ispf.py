"""Inhibited synthesis and post-filter: no image is thrown away, and none is made of the forget classes (Zhang et al. 2025).

GKT's loop with two changes. In the generator's disagreement the forget classes' terms change sign (inhibited synthesis), so
that it gains nothing by producing them; it also learns batch-norm statistics, certainty and balance:

    G:  min  L_bn + L_oh + L_adv + L_balance,     L_adv = mean_n [ -Σ_{c ∉ F} k_c + Σ_{c ∈ F} k_c ],  k_c = p_c (log p_c - log q_c)

And instead of a gate, the teacher's logits are corrected where a forget class has any say (post-filter). Both are settings of
the loop, so each can be used alone: `unlearn gkt --inhibit`, `unlearn gkt --post-filter --gate 1`, `unlearn distill --post-filter`.

The paper doesn't say over which classes L_balance asks for balance. With inhibition it is the retain classes here: over all of
them it would ask for what inhibition forbids.
"""

from unlearn.methods.gkt import STARTS_FROM_TEACHER, start, trains_on_shards

__all__ = ["STARTS_FROM_TEACHER", "start", "trains_on_shards"]
