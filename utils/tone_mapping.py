"""HDR to the ordinary range: a table that FFmpeg's lut3d filter applies, made from the standards' formulas.

Sources: ITU-R BT.2100 (PQ, HLG), BT.2087 (BT.2020 to BT.709), BT.2408 (white of an HDR picture at 203 nits).
"""

import functools
import tempfile

import numpy as np

PQ, HLG = 16, 18            # transfer characteristics as FFmpeg numbers them
HDR = {PQ: "PQ", HLG: "HLG"}
POINTS = 33                 # of the table, along each colour
WHITE, PEAK = 203.0, 1000.0  # nits: WHITE becomes full white, and highlights up to PEAK are compressed
KNEE = 0.7                  # share of full white up to which nothing is compressed
GAMMA = 2.2                 # of the displays that the result is for
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
LUMA_BT2020 = np.array([0.2627, 0.6780, 0.0593])


@functools.cache
def lookup_table(transfer: int):
    """Return a .cube file, open until the process ends, from BT.2020 signals to BT.709 signals."""
    axis = np.linspace(0, 1, POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")   # red changes fastest
    signal = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    file = tempfile.NamedTemporaryFile("w", suffix=".cube")
    file.write(f"LUT_3D_SIZE {POINTS}\n")
    np.savetxt(file, to_sdr(signal, transfer), fmt="%.6f")
    file.flush()
    return file


def to_sdr(signal: np.ndarray, transfer: int) -> np.ndarray:
    """Return BT.709 signals (n 3) for BT.2020 signals (n 3) of HLG or PQ, all from 0 to 1."""
    light = (pq_light(signal) if transfer == PQ else hlg_light(signal)) / WHITE @ TO_BT709.T
    light = light.clip(0)
    brightest = light.max(axis=1, keepdims=True).clip(1e-9)
    return (light * compressed(brightest) / brightest).clip(0, 1) ** (1 / GAMMA)


def pq_light(signal: np.ndarray) -> np.ndarray:
    """Return nits. Source: BT.2100, table 4."""
    power = signal ** (32 / 2523)
    return 10_000 * ((power - 0.8359375).clip(0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610)


def hlg_light(signal: np.ndarray) -> np.ndarray:
    """Return nits on a display of 1,000 nits. Source: BT.2100, table 5."""
    bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    scene = np.where(signal <= 0.5, signal ** 2 / 3, bright)
    return PEAK * (scene @ LUMA_BT2020)[:, None].clip(1e-9) ** 0.2 * scene


def compressed(light: np.ndarray) -> np.ndarray:
    """Return light whose peak is 1: as it was up to the knee, then flatter and flatter."""
    room, excess = 1 - KNEE, (light - KNEE).clip(0)
    most = PEAK / WHITE - KNEE
    # a / (a + b): slope 1 at the knee, `room` at the peak
    bend = most * room / (most - room)
    return np.where(light <= KNEE, light, KNEE + excess * bend / (excess + bend)).clip(0, 1)
