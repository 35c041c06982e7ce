"""Deterministic weights by name, so that two implementations hold the same model without shipping it."""

import zlib

import numpy as np


def fill(name, shape):
    """Value of the parameter or buffer `name`, float32 array of `shape`, the same on every machine."""
    rs = np.random.RandomState(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    if name in ("temp", "temp2"):
        return np.float32(0.07).reshape(shape)
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        return (1 + 0.2 * np.abs(rs.standard_normal(shape))).astype(np.float32)
    if leaf == "running_mean":
        return (0.1 * rs.standard_normal(shape)).astype(np.float32)
    if leaf == "bias":
        return (0.02 * rs.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:  # the weight of a norm
        return (1 + 0.1 * rs.standard_normal(shape)).astype(np.float32)
    if leaf == "relative_position_bias_table":
        return (0.2 * rs.standard_normal(shape)).astype(np.float32)
    if "embeddings" in name:
        return (0.5 * rs.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (rs.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def images(seed, n, size=224):
    """n smooth random pictures, normalised range, float32 [n, 3, size, size]."""
    rs = np.random.RandomState(seed)
    coarse = rs.standard_normal((n, 3, 14, 14))
    x = np.kron(coarse, np.ones((size // 14, size // 14)))
    return (x + 0.1 * rs.standard_normal((n, 3, size, size))).astype(np.float32)


def captions(seed, n, length, vocab=30522):
    """n rows of token ids, int64 [n, length]: [CLS]=101, words, [SEP]=102, then 0 padding of random length."""
    rs = np.random.RandomState(seed)
    ids = rs.randint(1000, vocab, (n, length))
    ids[:, 0] = 101
    for row in ids:
        end = rs.randint(length // 2, length)
        row[end] = 102
        row[end + 1 :] = 0
    ids[0, -1] = 102 if ids[0, -1] else ids[0, -1]
    return ids.astype(np.int64)


def fill_clip(name, shape):
    """Like `fill`, for the names of a CLIP-class model (`prior_clip/layout.json`)."""
    rs = np.random.RandomState(zlib.crc32(name.encode()))
    if name == "logit_scale":
        return np.float32(np.log(1 / 0.07))
    if name == "visual.class_embedding" or name == "token_embedding.weight" or name.endswith("positional_embedding"):
        return (0.5 * rs.standard_normal(shape)).astype(np.float32)
    if name in ("visual.proj", "text_projection"):
        return (rs.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    if name.endswith("in_proj_bias"):
        return (0.02 * rs.standard_normal(shape)).astype(np.float32)
    return fill(name, shape)


def clip_captions(seed, n, length=77):
    """n rows of CLIP token ids, int64 [n, length]: start 49406, words, end 49407 (the highest), then 0."""
    rs = np.random.RandomState(seed)
    ids = np.zeros((n, length), np.int64)
    for row in ids:
        end = rs.randint(5, 30)
        row[0] = 49406
        row[1:end] = rs.randint(300, 49000, end - 1)
        row[end] = 49407
    return ids
