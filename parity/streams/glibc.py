"""What do glibc's ``logf``, ``sinf`` and ``cosf`` return, on any machine?

Since release 2.28 these three work in float64 (a table and a short polynomial) and round once at the end, so NumPy's
float64 operations re-create them. Whether the C library was built with fused multiply-adds does not show in the rounded
result. Proved by exhaustion for the arguments that torch's CPU generator can give them (2**24 of each): ``make slow``.

Source: glibc 2.28 and later, sysdeps/ieee754/flt-32 (e_logf.c, s_sincosf.h and their tables).
"""

from __future__ import annotations

import numpy as np


def _hex(text: str) -> list[np.ndarray]:
    return [np.array(float.fromhex(number)) for number in text.split()]


# 1/c and log(c) for 16 points c of a mantissa's range
_INVERSES, _LOGS = np.array(
    [
        _hex(row)
        for row in (
            "0x1.661ec79f8f3bep+0 -0x1.57bf7808caadep-2",
            "0x1.571ed4aaf883dp+0 -0x1.2bef0a7c06ddbp-2",
            "0x1.49539f0f010bp+0 -0x1.01eae7f513a67p-2",
            "0x1.3c995b0b80385p+0 -0x1.b31d8a68224e9p-3",
            "0x1.30d190c8864a5p+0 -0x1.6574f0ac07758p-3",
            "0x1.25e227b0b8eap+0 -0x1.1aa2bc79c81p-3",
            "0x1.1bb4a4a1a343fp+0 -0x1.a4e76ce8c0e5ep-4",
            "0x1.12358f08ae5bap+0 -0x1.1973c5a611cccp-4",
            "0x1.0953f419900a7p+0 -0x1.252f438e10c1ep-5",
            "0x1p+0 0x0p+0",
            "0x1.e608cfd9a47acp-1 0x1.aa5aa5df25984p-5",
            "0x1.ca4b31f026aap-1 0x1.c5e53aa362eb4p-4",
            "0x1.b2036576afce6p-1 0x1.526e57720db08p-3",
            "0x1.9c2d163a1aa2dp-1 0x1.bc2860d22477p-3",
            "0x1.886e6037841edp-1 0x1.1058bc8a07ee1p-2",
            "0x1.767dcf5534862p-1 0x1.4043057b6ee09p-2",
        )
    ]
).T.copy()
_LOG = _hex("-0x1.00ea348b88334p-2 0x1.5575b0be00b6ap-2 -0x1.ffffef20a4123p-2")
_LN2 = np.array(float.fromhex("0x1.62e42fefa39efp-1"))
_LOG_START = np.array(0x3F330000, np.int32)

_COS = _hex("0x1p0 -0x1.ffffffd0c621cp-2 0x1.55553e1068f19p-5 -0x1.6c087e89a359dp-10 0x1.99343027bf8c3p-16")
_SIN = _hex("-0x1.555545995a603p-3 0x1.1107605230bc4p-7 -0x1.994eb3774cf24p-13")
_QUADRANTS, _QUADRANT = _hex("0x1.45F306DC9C883p+23 0x1.921FB54442D18p0")  # 2/pi * 2**24 and pi/2
_QUARTER_PI_TOP = 0x3F4  # glibc compares the top 12 bits only
_TINY_TOP = 0x398


def logf(x: np.ndarray) -> np.ndarray:
    """Return glibc's ``logf`` of an array of positive, normal float32."""
    bits = x.view(np.int32)
    offset = bits - _LOG_START
    index = (offset >> np.int32(19)) & np.int32(15)
    exponent = offset >> np.int32(23)
    z = (bits - (exponent << np.int32(23))).view(np.float32).astype(np.float64)
    r = z * _INVERSES.take(index) - 1.0
    start = _LOGS.take(index) + exponent * _LN2
    square = r * r
    y = _LOG[1] * r + _LOG[2]
    y = _LOG[0] * square + y
    y = y * square + (start + r)
    return y.astype(np.float32)


def cosf_sinf(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return glibc's ``cosf`` and ``sinf`` of an array of float32 in [0, 120)."""
    top = angle.view(np.int32) >> np.int32(20)
    small = top < _QUARTER_PI_TOP
    x = angle.astype(np.float64)
    quadrant = ((x * _QUADRANTS).astype(np.int32) + np.int32(0x800000)) >> np.int32(24)
    quadrant[small] = 0
    x -= quadrant * _QUADRANT
    square = x * x
    fourth = square * square
    cubed = square * x
    s = (x + cubed * _SIN[0]) + (cubed * square) * (_SIN[1] + square * _SIN[2])
    c = (_COS[0] + square * _COS[1] + fourth * _COS[2]) + (fourth * square) * (_COS[3] + square * _COS[4])
    sin = s.astype(np.float32)
    cos = c.astype(np.float32)
    tiny = top < _TINY_TOP
    sin[tiny], cos[tiny] = angle[tiny], 1.0
    swap = (quadrant & 1).astype(bool)
    cos, sin = np.where(swap, sin, cos), np.where(swap, cos, sin)
    return np.where((quadrant + 1) & 2, -cos, cos), np.where(quadrant & 2, -sin, sin)
