"""The losses of the two-stream network (Shroff 2020, eq. 3.8 to 3.11), batch means throughout."""

import torch
from torch import Tensor
from torch.nn import functional

from ltpa.models.families.two_stream import Options
from ltpa.models.twostream.network import Outputs


def two_stream_loss(outputs: Outputs, targets: Tensor, options: Options, label_smoothing: float = 0.0) -> Tensor:
    """L = CE_global + lambda' CE_local + lambda L_rank.

    CE_local is the mean over steps where every state is classified (`local: lstm`; the thesis leaves open whether mean
    or sum, and the mean keeps lambda' what it is elsewhere).
    """
    loss = functional.cross_entropy(outputs.global_logits, targets, label_smoothing=label_smoothing)
    local = outputs.local
    if local is None:
        return loss
    if local.step_logits is None:
        own = functional.cross_entropy(local.logits, targets, label_smoothing=label_smoothing)
    else:
        steps = local.step_logits.shape[1]
        own = functional.cross_entropy(
            local.step_logits.flatten(0, 1), targets.repeat_interleave(steps), label_smoothing=label_smoothing
        )
    loss = loss + options.local_weight * own
    if options.rank_weight:
        loss = loss + options.rank_weight * ranking_loss(outputs.global_logits, local.logits, targets, options)
    return loss


def ranking_loss(global_logits: Tensor, local_logits: Tensor, targets: Tensor, options: Options) -> Tensor:
    """mean max(0, p_global - p_local + margin) of the true class (eq. 3.11 as printed; `rank_sign: minus` subtracts).

    As printed it is zero only where the local stream is ahead by the margin, and what it adds to the local logit it
    takes from the global one, unless `rank_detach` holds the global stream still.
    """
    p_global, p_local = (
        torch.softmax(logits.float(), 1).gather(1, targets[:, None]) for logits in (global_logits, local_logits)
    )
    if options.rank_detach:
        p_global = p_global.detach()
    margin = options.rank_margin if options.rank_sign == "plus" else -options.rank_margin
    return torch.relu(p_global - p_local + margin).mean()
