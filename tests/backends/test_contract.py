"""The contract of every back end: tiny graphs, each with one thing that a converter can get wrong.

A graph is written as ONNX text. Its first input is the image; every other input becomes a constant with
seeded random values, so that the text stays short.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnx_ir.serde
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from edgecnn import check
from edgecnn.backends import RUNTIMES, backend
from edgecnn.graph.graph import Graph
from edgecnn.graph.half import to_fp16
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import canonicalize
from edgecnn.quantize.quantize import quantize
from edgecnn.target import load_target

FLOAT_LIMITS = {"fp32": 1e-5, "fp16": 1e-2}
"""Largest difference relative to the largest output; half precision has 11 bits: 5e-4 a weight, added up."""
INT8_MAX_STEPS = 4
"""Largest difference of any output in steps of its scale. A runtime may round an integer of any layer the
other way; in front of a Clip or Concat one step of a coarser scale is up to 3.5 steps of the output."""
SQNR_FLOOR_DB = 25.0
"""A tensor whose range is 8 times its standard deviation has 33 dB in 8 bits (12 x 255**2 / 64); the three to
five roundings of these graphs (input, weights, layers, output) leave 26."""

# Signature and body; see ``source`` for what is put around them.
GRAPHS = {
    "depthwise": """(float[1,8,9,9] x, float[8,1,3,3] w, float[8] b) => (float[1,8,9,9] y) {
        y = Conv<group=8, kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }""",
    "depthwise_multiplier_2": """(float[1,6,9,9] x, float[12,1,3,3] w, float[12] b) => (float[1,12,9,9] y) {
        y = Conv<group=6, kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }""",
    "depthwise_one_channel": """(float[1,1,9,9] x, float[4,1,3,3] w) => (float[1,4,7,7] y) {
        y = Conv<group=1, kernel_shape=[3,3]>(x, w) }""",
    "grouped": """(float[1,8,9,9] x, float[12,4,3,3] w, float[12] b) => (float[1,12,9,9] y) {
        y = Conv<group=2, kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }""",
    "pointwise": """(float[1,8,7,7] x, float[5,8,1,1] w) => (float[1,5,7,7] y) {
        y = Conv<kernel_shape=[1,1]>(x, w) }""",
    "dilated": """(float[1,4,11,11] x, float[5,4,3,3] w, float[5] b) => (float[1,5,11,11] y) {
        y = Conv<kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]>(x, w, b) }""",
    "dilated_depthwise": """(float[1,4,11,11] x, float[4,1,3,3] w, float[4] b) => (float[1,4,11,11] y) {
        y = Conv<group=4, kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]>(x, w, b) }""",
    "asymmetric_pads": """(float[1,4,8,9] x, float[5,4,3,5] w, float[5] b) => (float[1,5,9,9] y) {
        y = Conv<kernel_shape=[3,5], pads=[0,1,3,3]>(x, w, b) }""",
    "stride_2_odd": """(float[1,3,9,9] x, float[6,3,3,3] w, float[6] b) => (float[1,6,5,5] y) {
        y = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w, b) }""",
    "stride_2_even": """(float[1,3,10,10] x, float[6,3,3,3] w, float[6] b) => (float[1,6,5,5] y) {
        y = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w, b) }""",
    "strides_differ": """(float[1,3,10,12] x, float[6,3,3,3] w, float[6] b) => (float[1,6,5,4] y) {
        y = Conv<kernel_shape=[3,3], strides=[2,3], pads=[1,1,1,1]>(x, w, b) }""",
    "conv_relu": """(float[1,4,8,8] x, float[6,4,3,3] w, float[6] b, float[3,6,1,1] v) => (float[1,3,6,6] y) {
        c = Conv<kernel_shape=[3,3]>(x, w, b)
        r = Relu(c)
        y = Conv<kernel_shape=[1,1]>(r, v) }""",
    "conv_relu6": """(float[1,4,8,8] x, float[6,4,3,3] w, float[3,6,1,1] v) => (float[1,3,6,6] y)
        <float low = {0}, float high = {6}> {
        c = Conv<kernel_shape=[3,3]>(x, w)
        r = Clip(c, low, high)
        y = Conv<kernel_shape=[1,1]>(r, v) }""",
    "conv_clip": """(float[1,4,8,8] x, float[6,4,3,3] w, float[3,6,1,1] v) => (float[1,3,6,6] y)
        <float low = {-0.5}, float high = {2.5}> {
        c = Conv<kernel_shape=[3,3]>(x, w)
        r = Clip(c, low, high)
        y = Conv<kernel_shape=[1,1]>(r, v) }""",
    "conv_clip_below": """(float[1,4,8,8] x, float[6,4,3,3] w) => (float[1,6,6,6] y) <float high = {1.5}> {
        c = Conv<kernel_shape=[3,3]>(x, w)
        y = Clip(c, , high) }""",
    "residual": """(float[1,6,8,8] x, float[6,6,3,3] w, float[6] b) => (float[1,6,8,8] y) {
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        y = Add(c, x) }""",
    "residual_relu": """(float[1,6,8,8] x, float[6,6,3,3] w, float[6] b) => (float[1,6,8,8] y) {
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        a = Add(x, c)
        y = Relu(a) }""",
    "add_itself": """(float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Add(c, c) }""",
    "sub": """(float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Sub(x, c) }""",
    "scalar_operands": """(float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y)
        <float three = {3}, float half = {0.5}> {
        a = Add(x, three)
        c = Conv<kernel_shape=[1,1]>(a, w)
        y = Mul(half, c) }""",
    "per_channel_operands": """(float[1,4,6,5] x, float[4,4,1,1] w, float[4,1,1] s, float[1,4,1,1] t)
        => (float[1,4,6,5] y) {
        m = Mul(x, s)
        c = Conv<kernel_shape=[1,1]>(m, w)
        y = Add(t, c) }""",
    "constant_minus": """(float[1,4,6,5] x, float[4,4,1,1] w, float[5] t) => (float[1,4,6,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Sub(t, c) }""",
    "operands_that_do_not_fold": """(float[1,4,6,5] x, float[4,4,1,1] w, float[4,1,1] s, float[1,4,1,1] t,
        float[5] u) => (float[1,4,6,5] y) <float three = {3}, float[1] half = {0.5}> {
        c = Conv(x, w)
        r = Relu(c)
        m = Mul(r, s)
        q = Relu(m)
        a = Add(t, q)
        p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)
        b = Sub(u, p)
        d = Div(b, three)
        e = Relu(d)
        y = Mul(e, half) }""",
    "batch_norm_folds": """(float[1,4,6,5] x, float[6,4,1,1] w, float[6] gamma, float[6] beta, float[6] mean,
        float[6] variance, float[1,6,1,1] s, float[6,1,1] t) => (float[1,6,6,5] y) <float scale = {0.17}> {
        c = Conv(x, w)
        n = BatchNormalization<epsilon=0.001>(c, gamma, beta, mean, variance)
        m = Mul(n, s)
        a = Sub(t, m)
        y = Div(a, scale) }""",
    "batch_norm_first": """(float[1,4,6,5] x, float[4] gamma, float[4] beta, float[4] mean, float[4] variance,
        float[3,4,1,1] w) => (float[1,3,6,5] y) {
        n = BatchNormalization(x, gamma, beta, mean, variance)
        y = Conv(n, w) }""",
    "batch_norm_last": """(float[1,4,6,5] x, float[4] gamma, float[4] beta, float[4] mean, float[4] variance)
        => (float[1,4,6,5] y) {
        m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)
        y = BatchNormalization(m, gamma, beta, mean, variance) }""",
    "batch_norm_rows": """(float[1,6,2,2] x, float[8,24] v, float[8] gamma, float[8] beta, float[8] mean,
        float[8] variance, float[5,8] w, float[5] gamma2, float[5] beta2, float[5] mean2, float[5] variance2)
        => (float[1,5] y) {
        f = Flatten(x)
        g = Gemm<transB=1>(f, v)
        r = Relu(g)
        n = BatchNormalization(r, gamma, beta, mean, variance)
        h = Gemm<transB=1>(n, w)
        y = BatchNormalization(h, gamma2, beta2, mean2, variance2) }""",
    "dense_block": """(float[1,6,8,8] x, float[6] gamma, float[6] beta, float[6] mean, float[6] variance,
        float[4,6,3,3] w, float[10] gamma2, float[10] beta2, float[10] mean2, float[10] variance2,
        float[4,10,3,3] v, float[14] gamma3, float[14] beta3, float[14] mean3, float[14] variance3,
        float[7,14,1,1] u) => (float[1,7,4,4] y) {
        n = BatchNormalization(x, gamma, beta, mean, variance)
        r = Relu(n)
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w)
        k = Concat<axis=1>(x, c)
        n2 = BatchNormalization(k, gamma2, beta2, mean2, variance2)
        r2 = Relu(n2)
        c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r2, v)
        k2 = Concat<axis=1>(x, c, c2)
        n3 = BatchNormalization(k2, gamma3, beta3, mean3, variance3)
        r3 = Relu(n3)
        t = Conv(r3, u)
        y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(t) }""",
    "residual_scaled": """(float[1,6,8,8] x, float[6,6,1,1] w, float[6] b) => (float[1,6,8,8] y)
        <float scale = {0.17}> {
        c = Conv(x, w, b)
        m = Mul(c, scale)
        a = Add(m, x)
        y = Relu(a) }""",
    "resnext_block": """(float[1,32,6,6] x, float[32,1,3,3] w, float[32] b, float[64,2,3,3] v,
        float[8,64,1,1] u) => (float[1,8,3,3] y) {
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=32>(x, w, b)
        r = Relu(c)
        d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], group=16>(r, v)
        s = Relu(d)
        y = Conv(s, u) }""",
    "grouped_pointwise": """(float[1,24,5,5] x, float[30,8,1,1] w, float[30] b, float[15,10,1,1] v)
        => (float[1,15,5,5] y) {
        c = Conv<group=3>(x, w, b)
        r = Relu(c)
        y = Conv<group=3>(r, v) }""",
    "grouped_dilated": """(float[1,8,9,9] x, float[6,4,3,3] w, float[6] b) => (float[1,6,9,9] y) {
        y = Conv<kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2], group=2>(x, w, b) }""",
    "dilated_relu6": """(float[1,6,12,12] x, float[6,1,3,3] w, float[6] b, float[4,6,3,3] v, float[4] d)
        => (float[1,4,10,10] y) <float low = {0}, float high = {6}> {
        c = Conv<kernel_shape=[3,3], dilations=[3,3], pads=[3,3,3,3], group=6>(x, w, b)
        r = Clip(c, low, high)
        y = Conv<kernel_shape=[3,3], dilations=[2,2], pads=[1,1,1,1]>(r, v, d) }""",
    "same_padding_stride_2": """(float[1,3,10,10] x, float[6,3,3,3] w, float[6] b, float[6,1,5,5] v)
        => (float[1,6,3,3] y) <int64[8] one = {0,0,0,0,0,0,1,1}, int64[8] two = {0,0,2,2,0,0,2,2}> {
        p = Pad(x, one)
        c = Conv<kernel_shape=[3,3], strides=[2,2]>(p, w, b)
        r = Relu(c)
        q = Pad(r, two)
        y = Conv<kernel_shape=[5,5], strides=[2,2], group=6>(q, v) }""",
    "auto_pad": """(float[1,3,9,10] x, float[6,3,3,3] w, float[6] b, float[4,6,2,2] v) => (float[1,4,3,3] y) {
        c = Conv<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x, w, b)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER">(c)
        y = Conv<kernel_shape=[2,2], auto_pad="SAME_UPPER">(m, v) }""",
    "pad_for_two": """(float[1,3,6,6] x, float[4,3,3,3] w, float[2,3,3,3] v) => (float[1,6,6,6] y)
        <int64[8] pads = {0,0,1,1,0,0,1,1}> {
        p = Pad(x, pads)
        c = Conv(p, w)
        d = Conv(p, v)
        y = Concat<axis=1>(c, d) }""",
    "pad_lowest_before_max_pool": """(float[1,3,6,6] x, float[4,3,1,1] w, float[4] b) => (float[1,4,3,3] y)
        <int64[8] pads = {0,0,0,0,0,0,1,1}, float lowest = {-inf}> {
        c = Conv(x, w, b)
        p = Pad(c, pads, lowest)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(p) }""",
    "shortcut_of_cifar": """(float[1,4,8,8] x, float[8,4,3,3] w, float[8] b, float[4,4,1,1] u)
        => (float[1,8,4,4] y) <int64[2] start = {0, 0}, int64[2] end = {9223372036854775807, 8},
        int64[2] axes = {2, 3}, int64[2] two = {2, 2}, int64[8] pads = {0,2,0,0,0,2,0,0}> {
        k = Conv(x, u)
        c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(k, w, b)
        s = Slice(k, start, end, axes, two)
        p = Pad(s, pads)
        a = Add(c, p)
        y = Relu(a) }""",
    "slice": """(float[1,5,7,8] x, float[6,5,1,1] w, float[6] b) => (float[1,2,6,4] y)
        <int64[3] starts = {-4, 1, -100}, int64[3] ends = {-2, 100, 4}, int64[3] axes = {1, 2, -1}> {
        c = Conv(x, w, b)
        y = Slice(c, starts, ends, axes) }""",
    "slice_steps": """(float[1,5,7,8] x, float[6,5,1,1] w, float[6] b) => (float[1,2,3,3] y)
        <int64[3] starts = {1, 0, 1}, int64[3] ends = {6, 6, -1}, int64[3] axes = {1, 2, 3},
        int64[3] steps = {3, 2, 2}> {
        c = Conv(x, w, b)
        y = Slice(c, starts, ends, axes, steps) }""",
    "slice_rows": """(float[1,2,3,3] x, float[7,18] w) => (float[1,4] y)
        <int64[1] start = {2}, int64[1] end = {6}, int64[1] axes = {1}> {
        f = Flatten(x)
        g = Gemm<transB=1>(f, w)
        y = Slice(g, start, end, axes) }""",
    "split": """(float[1,3,6,6] x, float[9,3,1,1] w, float[9] b, float[2,2,1,1] v) => (float[1,9,6,6] y)
        <int64[3] parts = {2, 3, 4}> {
        c = Conv(x, w, b)
        s1, s2, s3 = Split<axis=-3>(c, parts)
        d = Conv(s1, v)
        r = Relu(s2)
        y = Concat<axis=1>(s3, d, r) }""",
    "shuffle_unit": """(float[1,8,6,6] x, float[4,4,1,1] w, float[4] b, float[4,1,3,3] v, float[4,4,1,1] u,
        float[4] c) => (float[1,4,6,6] y)
        <int64[5] split = {0, 2, -1, 6, 6}, int64[4] merged = {1, -1, 6, 6}> {
        left, right = Split<axis=1>(x)
        c1 = Conv(right, w, b)
        r1 = Relu(c1)
        c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=4>(r1, v)
        c3 = Conv(c2, u, c)
        r3 = Relu(c3)
        k = Concat<axis=1>(left, r3)
        s = Reshape(k, split)
        t = Transpose<perm=[0,2,1,3,4]>(s)
        m = Reshape(t, merged)
        first, second = Split<axis=1>(m)
        y = Add(first, second) }""",
    "shuffle_of_pixels_in_rows": """(float[1,6,4,5] x, float[6,6,1,1] w, float[2,6,1,1] v)
        => (float[1,2,4,5] y) <int64[4] split = {1, 3, 2, 20}, int64[4] merged = {1, 6, 4, 5}> {
        c = Conv(x, w)
        s = Reshape(c, split)
        t = Transpose<perm=[0,2,1,3]>(s)
        m = Reshape(t, merged)
        y = Conv(m, v) }""",
    "no_shuffle": """(float[1,6,4,4] x, float[6,6,1,1] w, float[2,6,1,1] v) => (float[1,2,4,4] y)
        <int64[5] split = {1, 3, 2, 4, 4}, int64[4] merged = {1, 6, 4, 4}> {
        c = Conv(x, w)
        s = Reshape(c, split)
        t = Transpose<perm=[0,2,1,4,3]>(s)
        m = Reshape(t, merged)
        y = Conv(m, v) }""",
    "relu_after_nested_concat": """(float[1,3,6,6] x, float[4,3,1,1] w, float[2,14,1,1] v)
        => (float[1,2,3,3] y) <int64[1] one = {1}, int64[1] last = {4}, int64[1] columns = {3}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        k = Concat<axis=1>(c, x)
        l = Concat<axis=1>(x, k, c)
        s = Slice(l, one, last, columns)
        m = MaxPool<kernel_shape=[2,1], strides=[2,1]>(s)
        r = Relu(m)
        y = Conv<kernel_shape=[1,1]>(r, v) }""",
    "squeeze_unsqueeze": """(float[1,3,4,4] x, float[6,3,3,3] w, float[6] b, float[5,6] v)
        => (float[1,5,1,1] y)
        <int64[2] axes = {2, 3}> {
        c = Conv(x, w, b)
        p = GlobalAveragePool(c)
        s = Squeeze(p, axes)
        g = Gemm<transB=1>(s, v)
        y = Unsqueeze(g, axes) }""",
    "lrn": """(float[1,3,6,6] x, float[8,3,3,3] w, float[8] b, float[5,8,1,1] v) => (float[1,5,2,2] y) {
        c = Conv(x, w, b)
        r = Relu(c)
        n = LRN<size=5, alpha=0.9, beta=0.75, bias=1.5>(r)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(n)
        y = Conv(m, v) }""",
    "lrn_last": """(float[1,7,4,4] x, float[7,7,1,1] w) => (float[1,7,4,4] y) {
        n = LRN<size=3, alpha=2.0, beta=0.5>(x)
        c = Conv(n, w)
        y = LRN<size=3, alpha=2.0, beta=0.5>(c) }""",
    "squeeze_excite_hard": """(float[1,8,6,6] x, float[4,8,1,1] w1, float[4] b1, float[8,4,1,1] w2,
        float[8] b2) => (float[1,8,6,6] y) {
        p = GlobalAveragePool(x)
        c = Conv<kernel_shape=[1,1]>(p, w1, b1)
        r = Relu(c)
        e = Conv<kernel_shape=[1,1]>(r, w2, b2)
        s = HardSigmoid<alpha=0.1666667, beta=0.5>(e)
        y = Mul(s, x) }""",
    "squeeze_excite_silu": """(float[1,4,6,6] x, float[8,4,1,1] w, float[8] b, float[8,1,3,3] d, float[8] e,
        float[3,8,1,1] w1, float[3] b1, float[8,3,1,1] w2, float[8] b2, float[4,8,1,1] u)
        => (float[1,4,6,6] y) {
        c = Conv(x, w, b)
        s = Sigmoid(c)
        m = Mul(c, s)
        k = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(m, d, e)
        t = Sigmoid(k)
        n = Mul(k, t)
        p = GlobalAveragePool(n)
        c1 = Conv(p, w1, b1)
        s1 = Sigmoid(c1)
        m1 = Mul(c1, s1)
        c2 = Conv(m1, w2, b2)
        s2 = Sigmoid(c2)
        g = Mul(s2, n)
        o = Conv(g, u)
        y = Add(o, x) }""",
    "hard_sigmoid_alone": """(float[1,3,4,5] x, float[4,3,1,1] w, float[4] b) => (float[1,4,4,4] y) {
        h = HardSigmoid(x)
        c = Conv(h, w, b)
        m = MaxPool<kernel_shape=[1,2]>(c)
        y = HardSigmoid<alpha=0.5, beta=0.1>(m) }""",
    "dead_relu": """(float[1,3,4,5] x, float[4,3,1,1] w, float[4,4,1,1] v, float[4] b) => (float[1,4,4,5] y)
        <float[4] far = {-100, -90, -80, -100}> {
        c = Conv(x, w, far)
        r = Relu(c)
        d = Conv(r, v, b)
        s = Sigmoid(r)
        y = Add(d, s) }""",
    "hard_swish_written_out": """(float[1,3,4,5] x, float[4,3,1,1] w, float[2,4,1,1] v) => (float[1,2,4,5] y)
        <float three = {3}, float zero = {0}, float six = {6}> {
        c = Conv(x, w)
        a = Add(c, three)
        r = Clip(a, zero, six)
        m = Mul(c, r)
        h = Div(m, six)
        d = Conv(h, v)
        e = HardSigmoid<alpha=0.16666667>(d)
        y = Mul(e, d) }""",
    "leaky_relu": """(float[1,3,4,5] x, float[4,3,1,1] w, float[2,4,1,1] v) => (float[1,2,4,5] y) {
        c = Conv(x, w)
        h = LeakyRelu<alpha=0.1>(c)
        d = Conv(h, v)
        y = LeakyRelu(d) }""",
    "max_min_sum": """(float[1,3,4,5] x, float[3,3,1,1] w) => (float[1,3,4,5] y)
        <float[1] low = {-0.75}, float high = {1.5}> {
        c = Conv(x, w)
        a = Max(c, low)
        b = Min(high, x)
        y = Sum(a, b, c) }""",
    "mean_of_channels": """(float[1,3,4,5] x, float[4,3,1,1] w) => (float[1,4,5] y) {
        c = Conv(x, w)
        y = ReduceMean<axes=[1], keepdims=0>(c) }""",
    "mean_of_columns": """(float[1,3,4,5] x, float[4,3,1,1] w) => (float[1,4,4,1] y) {
        c = Conv(x, w)
        y = ReduceMean<axes=[-1], keepdims=1>(c) }""",
    "pool_of_whole_map": """(float[1,3,4,5] x, float[4,3,1,1] w, float[4] b) => (float[1,4,1,1] y) {
        c = Conv(x, w, b)
        one = AveragePool<kernel_shape=[1,1], strides=[1,1]>(c)
        r = Relu(one)
        y = AveragePool<kernel_shape=[4,5], strides=[4,5]>(r) }""",
    "squeeze_excite": """(float[1,8,6,6] x, float[4,8,1,1] w1, float[4] b1, float[8,4,1,1] w2, float[8] b2)
        => (float[1,8,6,6] y) {
        p = GlobalAveragePool(x)
        c = Conv<kernel_shape=[1,1]>(p, w1, b1)
        r = Relu(c)
        e = Conv<kernel_shape=[1,1]>(r, w2, b2)
        s = Sigmoid(e)
        y = Mul(x, s) }""",
    "concat": """(float[1,4,7,7] x, float[3,4,1,1] w, float[1,2,7,7] k, float[5,9,1,1] v)
        => (float[1,5,7,7] y)
        <float large = {20}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        r = Relu(c)
        m = Mul(x, large)
        p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(m)
        a = Concat<axis=1>(r, p)
        b = Concat<axis=-3>(k, a)
        y = Conv<kernel_shape=[1,1]>(b, v) }""",
    "concat_rows": """(float[1,3,4,5] x, float[3,3,1,1] w) => (float[1,3,8,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Concat<axis=2>(x, c) }""",
    "max_pool_padded_after_relu": """(float[1,4,8,8] x, float[4,4,1,1] w, float[4] b) => (float[1,4,4,4] y) {
        c = Conv(x, w, b)
        r = Relu(c)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r) }""",
    "max_pool_padded_after_concat": """(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,8,4,4] y)
        <float low = {-1.5}> {
        c = Conv(x, w)
        r = Clip(c, low)
        s = Sigmoid(x)
        k = Concat<axis=1>(r, s)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(k) }""",
    "max_pool_ceil": """(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,4,4] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(c) }""",
    "average_pool": """(float[1,4,8,8] x) => (float[1,4,4,4] y) {
        y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) }""",
    "average_pool_ceil": """(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,4,4] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(c) }""",
    "average_pool_same": """(float[1,4,7,7] x, float[4,4,1,1] w) => (float[1,4,7,7] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(c) }""",
    "average_pool_padded": """(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,4,4] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], count_include_pad=0>(c) }""",
    "average_pool_counts_pads": """(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,8,8] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(c) }""",
    "average_pool_counts_pads_ceil": """(float[1,4,8,8] x, float[4,4,1,1] w) => (float[1,4,5,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1, ceil_mode=1>
            (c) }""",
    "max_pool_padded": """(float[1,4,8,8] x, float[4,4,1,1] w, float[4] b) => (float[1,4,4,4] y) {
        c = Conv<kernel_shape=[1,1]>(x, w, b)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c) }""",
    "global_average_pool": """(float[1,4,7,7] x, float[6,4,3,3] w) => (float[1,6,1,1] y) {
        c = Conv<kernel_shape=[3,3]>(x, w)
        r = Relu(c)
        y = GlobalAveragePool(r) }""",
    "global_max_pool": """(float[1,4,7,7] x, float[6,4,3,3] w) => (float[1,6,1,1] y) {
        c = Conv<kernel_shape=[3,3]>(x, w)
        y = GlobalMaxPool(c) }""",
    "mean_keepdims": """(float[1,4,7,7] x, float[6,4,3,3] w) => (float[1,6,1,1] y) {
        c = Conv<kernel_shape=[3,3]>(x, w)
        y = ReduceMean<axes=[2,3], keepdims=1>(c) }""",
    "mean_gemm": """(float[1,4,7,7] x, float[6,4,3,3] w, float[5,6] v, float[5] b) => (float[1,5] y) {
        c = Conv<kernel_shape=[3,3]>(x, w)
        m = ReduceMean<axes=[-1,-2], keepdims=0>(c)
        y = Gemm<transB=1>(m, v, b) }""",
    "flatten_gemm": """(float[1,3,4,5] x, float[2,3,1,1] w, float[7,40] v, float[7] b) => (float[1,7] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        f = Flatten<axis=1>(c)
        y = Gemm<transB=1>(f, v, b) }""",
    "reshape_gemm_relu": """(float[1,3,4,4] x, float[5,48] v, float[5] b, float[3,5] w) => (float[1,3] y)
        <int64[2] shape = {1, -1}> {
        f = Reshape(x, shape)
        g = Gemm<transB=1>(f, v, b)
        r = Relu(g)
        y = Gemm<transB=1>(r, w) }""",
    "three_gemms": """(float[1,1,8,8] x, float[4,1,3,3] c, float[16,36] u, float[16] b, float[12,16] v,
        float[5,12] w) => (float[1,5] y) {
        c1 = Conv<kernel_shape=[3,3]>(x, c)
        r1 = Relu(c1)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)
        f = Flatten(m)
        g = Gemm<transB=1>(f, u, b)
        r = Relu(g)
        h = Gemm<transB=1>(r, v)
        s = Relu(h)
        y = Gemm<transB=1>(s, w) }""",
    "gemm_attributes": """(float[1,6,2,2] x, float[24,7] v, float[7] b) => (float[1,7] y) {
        f = Flatten(x)
        y = Gemm<alpha=0.5, beta=2.0>(f, v, b) }""",
    "gemm_scalar_bias": """(float[1,6,2,2] x, float[7,24] v, float[1] b) => (float[1,7] y) {
        f = Flatten(x)
        y = Gemm<transB=1>(f, v, b) }""",
    "gemm_row_bias": """(float[1,6,2,2] x, float[7,24] v, float[1,7] b) => (float[1,7] y) {
        f = Flatten(x)
        y = Gemm<transB=1, beta=0.25>(f, v, b) }""",
    "matmul_add": """(float[1,6,2,2] x, float[24,7] v, float[7] b) => (float[1,7] y) {
        f = Flatten(x)
        m = MatMul(f, v)
        y = Add(b, m) }""",
    "matmul": """(float[1,6,2,2] x, float[24,7] v) => (float[1,7] y) {
        f = Flatten(x)
        y = MatMul(f, v) }""",
    "channel_shuffle": """(float[1,6,5,4] x, float[6,6,1,1] w, float[6,1,3,3] v) => (float[1,6,3,2] y)
        <int64[5] split = {1, 2, 3, 5, 4}, int64[4] merged = {1, 6, 5, 4}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        r = Relu(c)
        s = Reshape(r, split)
        t = Transpose<perm=[0,2,1,3,4]>(s)
        m = Reshape(t, merged)
        y = Conv<kernel_shape=[3,3], group=6>(m, v) }""",
    "transpose": """(float[1,3,4,5] x, float[5,3,1,1] w) => (float[4,1,5,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Transpose<perm=[2,0,3,1]>(c) }""",
    "transpose_default": """(float[1,3,4,5] x, float[5,3,1,1] w) => (float[5,4,5,1] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Transpose(c) }""",
    "pad": """(float[1,3,4,5] x, float[5,3,3,3] w) => (float[1,5,5,7] y) <int64[8] pads = {0,0,1,2,0,0,2,2}> {
        p = Pad(x, pads)
        y = Conv<kernel_shape=[3,3]>(p, w) }""",
    "pad_value": """(float[1,3,4,5] x, float[4,3,1,1] w) => (float[1,5,7,9] y)
        <int64[8] pads = {0,0,1,2,0,1,2,2}, float value = {1.5}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Pad(c, pads, value) }""",
    "softmax": """(float[1,6,2,2] x, float[7,24] v) => (float[1,7] y) {
        f = Flatten(x)
        g = Gemm<transB=1>(f, v)
        y = Softmax(g) }""",
    "softmax_channels": """(float[1,3,4,5] x, float[4,3,1,1] w) => (float[1,4,4,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Softmax<axis=1>(c) }""",
    "sigmoid": """(float[1,3,4,5] x, float[4,3,1,1] w) => (float[1,4,4,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Sigmoid(c) }""",
    "silu": """(float[1,3,4,5] x, float[4,3,1,1] w, float[2,4,1,1] v) => (float[1,2,4,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        s = Sigmoid(c)
        m = Mul(c, s)
        y = Conv<kernel_shape=[1,1]>(m, v) }""",
    "tanh": """(float[1,3,4,5] x, float[4,3,1,1] w) => (float[1,4,4,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Tanh(c) }""",
    "hard_swish": """(float[1,3,4,5] x, float[4,3,1,1] w, float[2,4,1,1] v) => (float[1,2,4,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        h = HardSwish(c)
        y = Conv<kernel_shape=[1,1]>(h, v) }""",
    "relu_after_max_pool": """(float[1,3,6,6] x, float[4,3,1,1] w, float[2,4,1,1] v) => (float[1,2,3,3] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
        r = Relu(m)
        y = Conv<kernel_shape=[1,1]>(r, v) }""",
    "relu6_after_concat": """(float[1,3,6,6] x, float[4,3,1,1] w, float[2,7,1,1] v) => (float[1,2,6,6] y)
        <float low = {0}, float high = {6}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        k = Concat<axis=1>(c, x)
        r = Clip(k, low, high)
        y = Conv<kernel_shape=[1,1]>(r, v) }""",
    "clip_after_concat": """(float[1,3,6,6] x, float[4,3,1,1] w) => (float[1,7,6,6] y)
        <float low = {-0.5}, float high = {1.25}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        k = Concat<axis=1>(c, x)
        y = Clip(k, low, high) }""",
    "clip_between_scales": """(float[1,3,6,6] x, float[4,3,1,1] w) => (float[1,7,3,3] y)
        <float low = {-0.5}, float high = {1.25}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
        r = Clip(m, low, high)
        n = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
        y = Concat<axis=1>(r, n) }""",
    "clip_into_concat": """(float[1,3,6,6] x, float[4,3,1,1] w) => (float[1,7,6,6] y)
        <float low = {-0.5}, float high = {1.25}> {
        c = Conv<kernel_shape=[1,1]>(x, w)
        r = Clip(c, low, high)
        y = Concat<axis=1>(r, x) }""",
    "sigmoid_concat": """(float[1,3,6,6] x, float[4,3,1,1] w, float[2,10,1,1] v) => (float[1,2,6,6] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        s = Sigmoid(c)
        t = Tanh(x)
        k = Concat<axis=1>(s, t, x)
        y = Conv<kernel_shape=[1,1]>(k, v) }""",
    "sigmoids_concat": """(float[1,3,6,6] x, float[4,3,1,1] w) => (float[1,7,3,3] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        s = Sigmoid(c)
        t = Sigmoid(x)
        k = Concat<axis=1>(s, t)
        y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(k) }""",
    "dropout": """(float[1,3,4,4] x, float[4,3,1,1] w, float[5,64] v) => (float[1,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        f = Flatten(c)
        d, mask = Dropout(f)
        y = Gemm<transB=1>(d, v) }""",
    "dropout_last": """(float[1,3,4,4] x, float[4,3,1,1] w) => (float[1,4,4,4] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Dropout(c) }""",
    "identity": """(float[1,3,4,4] x, float[4,3,1,1] w, float[2,4,1,1] v) => (float[1,2,4,4] y) {
        i = Identity(x)
        c = Conv<kernel_shape=[1,1]>(i, w)
        j = Identity(c)
        d = Conv<kernel_shape=[1,1]>(j, v)
        y = Identity(d) }""",
    "output_is_relu": """(float[1,3,4,4] x, float[4,3,1,1] w) => (float[1,4,4,4] y) {
        c = Conv<kernel_shape=[1,1]>(x, w)
        y = Relu(c) }""",
    "only_relu": """(float[1,3,4,4] x) => (float[1,3,4,4] y) {
        y = Relu(x) }""",
    "one_conv": """(float[1,3,5,5] x, float[4,3,3,3] w) => (float[1,4,3,3] y) {
        y = Conv(x, w) }""",
    "two_consumers": """(float[1,3,5,5] x, float[4,3,3,3] w) => (float[1,8,3,3] y) {
        c = Conv<kernel_shape=[3,3]>(x, w)
        r = Relu(c)
        y = Concat<axis=1>(r, c) }""",
    "two_consumers_add": """(float[1,3,5,5] x, float[4,3,3,3] w, float[4,4,1,1] v) => (float[1,4,3,3] y) {
        c = Conv<kernel_shape=[3,3]>(x, w)
        r = Relu(c)
        d = Conv<kernel_shape=[1,1]>(r, v)
        y = Add(d, c) }""",
    "shared_weight": """(float[1,4,5,5] x, float[4,4,1,1] w, float[4] b) => (float[1,4,5,5] y) {
        c = Conv<kernel_shape=[1,1]>(x, w, b)
        r = Relu(c)
        y = Conv<kernel_shape=[1,1]>(r, w, b) }""",
    "not_square": """(float[1,3,6,9] x, float[4,3,3,1] w, float[5,32] v) => (float[1,5] y) {
        c = Conv<kernel_shape=[3,1], strides=[2,2]>(x, w)
        m = MaxPool<kernel_shape=[1,2], strides=[1,1]>(c)
        f = Flatten(m)
        p = Gemm<transB=1>(f, v)
        y = Relu(p) }""",
}


def source(name: str) -> onnx.ModelProto:
    """The graph of that name with random constants, as an exporter could have written it."""
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {name} {GRAPHS[name]}')
    rng = np.random.default_rng(0)
    for value in list(model.graph.input)[1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        fan_in = math.prod(shape[1:]) if len(shape) in (2, 4) else 1
        weight = rng.normal(size=shape).astype(np.float32) / np.float32(math.sqrt(fan_in))
        if value.name.startswith(("gamma", "variance")):
            weight = np.abs(weight) + np.float32(0.5)
        model.graph.initializer.append(numpy_helper.from_array(weight, value.name))
        model.graph.input.remove(value)
    onnx.checker.check_model(model, full_check=True)
    return model


def images(name: str, seed: int, count: int = 3, scale: float = 1.0) -> list[np.ndarray]:
    shape = [dim.dim_value for dim in source(name).graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=shape)).astype(np.float32) for _ in range(count)]


def calibration(name: str) -> list[np.ndarray]:
    """One image, so that the mean of the images' extremes, which NNCF takes for the range, is the extreme."""
    return images(name, seed=1, count=1)


@functools.cache
def float_graph(name: str) -> Graph:
    return canonicalize(Graph(onnx_ir.serde.deserialize_model(source(name)), "fp32"))


@functools.cache
def int8_graph(name: str) -> Graph:
    return quantize(float_graph(name), calibration(name))


class LRN(OpRun):
    """ONNX's formula; the evaluator's own (onnx 1.23) counts images where it should count channels."""

    def _run(self, x, alpha, beta, bias, size):  # type: ignore[no-untyped-def]
        squares = np.square(np.pad(x, ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0))))
        total = sum(squares[:, start : start + x.shape[1]] for start in range(size))
        return ((x / (bias + alpha / size * total) ** beta).astype(x.dtype),)


@functools.cache
def original_outputs(name: str) -> list[np.ndarray]:
    evaluator = ReferenceEvaluator(source(name), new_ops=[LRN])
    return [evaluator.run(None, {"x": image})[0] for image in images(name, seed=2)]


def compiled_outputs(graph: Graph, runtime: str, folder: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    target = load_target(runtime)
    files = backend(runtime).compile(graph, target, folder)
    run = backend(runtime).load(files[0], target)
    return [run(image)[0] for image in inputs]


def relative_difference(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    assert [e.shape for e in expected] == [g.shape for g in got]
    return max(float(np.abs(e - g).max()) for e, g in zip(expected, got, strict=True)) / max(
        float(np.abs(e).max()) for e in expected
    )


def output_step(qdq: Graph) -> float:
    scale = qdq.model.graph.initializers[f"{qdq.output.name}:scale"].const_value
    assert scale is not None
    return float(scale.numpy())


def steps_apart(qdq: Graph, expected: list[np.ndarray], got: list[np.ndarray]) -> np.ndarray:
    """Differences in steps of the output's scale."""
    assert [e.shape for e in expected] == [g.shape for g in got]
    return np.abs(np.stack(expected) - np.stack(got)) / output_step(qdq)


def sqnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    noise = np.square(expected - got).sum()
    return 10 * math.log10(np.square(expected).sum() / noise) if noise else math.inf


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_float_artifact_computes_the_original_graph(
    name: str, precision: str, runtime: str, tmp_path: Path
) -> None:
    graph = float_graph(name) if precision == "fp32" else to_fp16(float_graph(name))
    got = compiled_outputs(graph, runtime, tmp_path, images(name, seed=2))
    assert relative_difference(original_outputs(name), got) <= FLOAT_LIMITS[precision]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", GRAPHS)
def test_int8_artifact_computes_the_qdq_graph(name: str, runtime: str, tmp_path: Path) -> None:
    qdq = int8_graph(name)
    # Smaller than the calibration image, so that most values are inside the range and some beyond it.
    inputs = images(name, seed=2, scale=0.8)
    run = load_reference(qdq)
    got = compiled_outputs(qdq, runtime, tmp_path, inputs)
    apart = steps_apart(qdq, [run(image)[0] for image in inputs], got)
    assert apart.mean() <= check.INT8_STEPS
    assert apart.max() <= INT8_MAX_STEPS


@pytest.mark.parametrize("name", GRAPHS)
def test_qdq_graph_means_what_onnx_says(name: str) -> None:
    """ONNX Runtime, unfused, against ONNX's own evaluator.

    They agree to the integer wherever the float operators do. Averages of integers fall on ties, which the
    order of summation breaks; a tie is one step.
    """
    qdq = int8_graph(name)
    proto = onnx.load_model_from_string(qdq.serialized)
    # The evaluator has (De)QuantizeLinear from 19 on; for these types their meaning is that of 13.
    proto.opset_import[0].version = 19
    evaluator, run = ReferenceEvaluator(proto, new_ops=[LRN]), load_reference(qdq)
    inputs = images(name, seed=2)
    expected = [evaluator.run(None, {"x": image})[0] for image in inputs]
    apart = steps_apart(qdq, expected, [run(image)[0] for image in inputs])
    averages = any(node.op_type == "AveragePool" for node in qdq.model.graph)
    assert apart.max() <= (1.001 if averages else 0.001)


@pytest.mark.parametrize("name", GRAPHS)
def test_qdq_graph_keeps_the_signal(name: str) -> None:
    (image,) = calibration(name)
    expected = load_reference(float_graph(name))(image)[0]
    assert sqnr_db(expected, load_reference(int8_graph(name))(image)[0]) >= SQNR_FLOOR_DB


@functools.cache
def graph_with_weak_channels() -> Graph:
    """Output channels that are dead, all but dead, and weak, each with a bias that is none of these."""
    graph = float_graph("conv_relu")
    model = graph.copy()
    weight, bias = (model.graph.initializers[f"Conv_0.{role}"] for role in ("weight", "bias"))
    assert weight.const_value is not None
    strength = np.asarray([0, 1e-12, 1e-5, 1, 1, 1], np.float32).reshape(-1, 1, 1, 1)
    weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * strength, name=weight.name)
    bias.const_value = onnx_ir.tensor(np.asarray([5, 3, 1, 0, 1, 0], np.float32), name=bias.name)
    return Graph(model, "fp32")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weak_channels_keep_their_bias(runtime: str, tmp_path: Path) -> None:
    graph = graph_with_weak_channels()
    qdq = quantize(graph, calibration("conv_relu"))
    inputs = calibration("conv_relu")
    expected, reference = load_reference(graph)(inputs[0])[0], load_reference(qdq)(inputs[0])[0]
    assert sqnr_db(expected, reference) >= SQNR_FLOOR_DB
    apart = steps_apart(qdq, [reference], compiled_outputs(qdq, runtime, tmp_path, inputs))
    assert apart.max() <= INT8_MAX_STEPS


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    qdq = int8_graph("squeeze_excite")
    for runtime in RUNTIMES:
        contents = []
        for attempt in ("first", "second"):
            folder = tmp_path / runtime / attempt
            folder.mkdir(parents=True)
            files = backend(runtime).compile(qdq, load_target(runtime), folder)
            contents.append([file.read_bytes() for file in files])
        assert contents[0] == contents[1], runtime
