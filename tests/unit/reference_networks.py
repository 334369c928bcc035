"""The networks once more, in float64 NumPy, straight from the paper's equations and the table of layers.

Eval mode only. `weights` is a network's state dict as float64 arrays; images are (N, 3, S, S).
"""

import numpy as np


def state_of(model):
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


def conv(x, weights, name, stride=1):
    kernel = weights[f"{name}.weight"]
    size = kernel.shape[2]
    padded = np.pad(x, [(0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2])
    height, width = x.shape[2:]
    out = sum(
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + height, j : j + width], kernel[:, :, i, j])
        for i in range(size)
        for j in range(size)
    )
    bias = weights.get(f"{name}.bias", np.zeros(len(kernel)))
    return out[:, :, ::stride, ::stride] + bias[:, None, None]


def norm(x, weights, name, eps=1e-5):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var, gamma, beta = (
        weights[f"{name}.{key}"].reshape(shape) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + eps) * gamma + beta


def relu(x):
    return np.maximum(x, 0)


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def block(x, weights, name, eps=1e-3):
    return relu(norm(conv(x, weights, f"{name}.conv"), weights, f"{name}.norm", eps))


def pool(x, size):
    """Max-pool, windows that stick out at the end are cut (sizes round up)."""
    rows = range(0, x.shape[2], size)
    columns = range(0, x.shape[3], size)
    cells = [[x[:, :, i : i + size, j : j + size].max(axis=(2, 3)) for j in columns] for i in rows]
    return np.stack([np.stack(row, axis=-1) for row in cells], axis=-2)


def convs(x, weights, section, first, last, pool_after=(), eps=1e-3):
    for number in range(first, last + 1):
        x = block(x, weights, f"trunk.section{section}.conv{number}", eps)
        if number in pool_after:
            x = pool(x, 2)
    return x


def global_vector(x, weights, name, first_pool, eps=1e-3):
    x = pool(block(pool(x, first_pool), weights, f"{name}.conv14", eps), 2)
    x = block(x, weights, f"{name}.conv15", eps)
    while x.shape[2] > 1:
        x = pool(x, 2)
    return linear(x[:, :, 0, 0], weights, f"{name}.fc16")


def softmax(scores):
    """Eq. 1, over all positions of a map."""
    e = np.exp(scores - scores.max(axis=(1, 2), keepdims=True))
    return e / e.sum(axis=(1, 2), keepdims=True)


def compatibility(local, g, weights, name, kind):
    """Eqs. 2 and 3, written as they are printed, one position after the other."""
    out = np.empty((local.shape[0], *local.shape[2:]))
    for n, i, j in np.ndindex(out.shape):
        vector = local[n, :, i, j]
        if kind == "dp":
            out[n, i, j] = vector @ g[n]
        else:
            if kind == "local":
                mixed = vector
            else:
                mixed = {"pc": lambda v, w: v + w, "tanh": lambda v, w: np.tanh(v + w)}[kind](vector, g[n])
            out[n, i, j] = weights[f"{name}.u.weight"].ravel() @ mixed + weights.get(f"{name}.u.bias", [0.0])[0]
    return out


def attend(local, g, weights, level, kind, normalisation="softmax"):
    """(g_a, a) of a level of VGG-att or RN-att."""
    unit = f"units.{level}"
    if f"{unit}.project_local.weight" in weights:
        local = conv(local, weights, f"{unit}.project_local")
    elif g is not None and local.shape[1] != g.shape[1]:
        g = relu(norm(g, weights, f"{unit}.project_global.0"))
        g = linear(g, weights, f"{unit}.project_global.3")
    scores = compatibility(local, g, weights, f"{unit}.compatibility", kind)
    if normalisation == "softmax":
        a = softmax(scores)
    else:
        s = 1 / (1 + np.exp(-scores))
        a = s / s.sum(axis=(1, 2), keepdims=True)
    return (a[:, None] * local).sum(axis=(2, 3)), a


def probabilities(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def head(vectors, weights, kind):
    """Predicted distribution; of `straight` from the vectors as they are."""
    if kind == "straight":
        return probabilities(linear(np.concatenate(vectors, axis=1), weights, "head.linear"))
    f = [relu(norm(v, weights, f"head.norms.{i}.0")) for i, v in enumerate(vectors)]
    if kind == "concat":
        return probabilities(linear(np.concatenate(f, axis=1), weights, "head.linear"))
    return np.mean([probabilities(linear(v, weights, f"head.linears.{i}")) for i, v in enumerate(f)], axis=0)


def vgg(x, weights):
    x = pool(convs(x, weights, 1, 1, 7, (2, 4)), 2)
    x = pool(convs(x, weights, 2, 8, 10), 2)
    x = convs(x, weights, 3, 11, 13)
    while x.shape[2] > 1:
        x = pool(x, 2)
    x = relu(norm(linear(x[:, :, 0, 0], weights, "neck.3"), weights, "neck.4"))
    return probabilities(linear(x, weights, "head")), {}


def vgg_gap(x, weights):
    x = pool(convs(x, weights, 1, 1, 7), 2)
    x = convs(pool(convs(x, weights, 2, 8, 10), 2), weights, 3, 11, 13)
    return probabilities(linear(x.mean(axis=(2, 3)), weights, "head")), {}


def vgg_attention(x, weights, levels, kind, head_kind, normalisation="softmax", own_globals=False, eps=1e-3):
    maps = {"conv7": convs(x, weights, 1, 1, 7, eps=eps)}
    maps["conv10"] = convs(pool(maps["conv7"], 2), weights, 2, 8, 10, eps=eps)
    maps["conv13"] = convs(pool(maps["conv10"], 2), weights, 3, 11, 13, eps=eps)
    if kind == "local":
        g = dict.fromkeys(levels)
    elif own_globals:
        first_pools = {"conv10": 4, "conv13": 2}
        g = {level: global_vector(maps[level], weights, f"branches.{level}", first_pools[level]) for level in levels}
    else:
        g = dict.fromkeys(levels, global_vector(maps["conv13"], weights, "branches.shared", 2, eps))
    results = {level: attend(maps[level], g[level], weights, level, kind, normalisation) for level in levels}
    return head([v for v, _ in results.values()], weights, head_kind), {k: a for k, (_, a) in results.items()}


def vgg_pan(x, weights):
    conv10 = convs(pool(convs(x, weights, 1, 1, 7), 2), weights, 2, 8, 10)
    g1 = global_vector(conv10, weights, "gate_branch", 4)
    gate = 1 / (1 + np.exp(-compatibility(conv10, g1, weights, "gate", "pc")))
    conv13 = convs(pool(conv10 * gate[:, None], 2), weights, 3, 11, 13)
    g2 = global_vector(conv13, weights, "last_branch", 2)
    a = softmax(compatibility(conv13, g2, weights, "unit.compatibility", "pc"))
    vector = (a[:, None] * conv13).sum(axis=(2, 3))
    return head([vector], weights, "concat"), {"conv10": gate, "conv13": a}


def bottleneck(x, weights, name, stride):
    active = relu(norm(x, weights, f"{name}.norm1"))
    carried = conv(active, weights, f"{name}.shortcut", stride) if f"{name}.shortcut.weight" in weights else x
    y = conv(active, weights, f"{name}.conv1", stride)
    y = conv(relu(norm(y, weights, f"{name}.norm2")), weights, f"{name}.conv2")
    return carried + conv(relu(norm(y, weights, f"{name}.norm3")), weights, f"{name}.conv3")


def resnet(x, weights, blocks, levels):
    x = conv(x, weights, "trunk.conv1")
    maps = {}
    for stage, stride in (("stage1", 1), ("stage2", 2), ("stage3", 2)):
        for number in range(blocks):
            x = bottleneck(x, weights, f"trunk.stages.{stage}.{number}", stride if number == 0 else 1)
        maps[stage] = x
    if not levels:
        x = relu(norm(x, weights, "neck.0")).mean(axis=(2, 3))
        return probabilities(linear(x, weights, "head")), {}
    y = block(pool(relu(norm(x, weights, "branches.shared.0")), 2), weights, "branches.shared.3").max(axis=(2, 3))
    g = linear(y, weights, "branches.shared.7")
    results = {level: attend(maps[level], g, weights, level, "pc") for level in levels}
    return head([v for v, _ in results.values()], weights, "concat"), {k: a for k, (_, a) in results.items()}
