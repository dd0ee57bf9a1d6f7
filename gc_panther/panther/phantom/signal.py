"""Tissue properties and MR signal equations.

Relaxation times are in ms at 1.5 T and 3 T. Where a source gives a mean and a standard
deviation the phantom draws a patient's value around the mean.

Sources
    [B] de Bazelaire et al., Radiology 2004;230:652-659 (abdominal tissues at 1.5 T and 3 T).
    [S] Stanisz et al., Magn Reson Med 2005;54:507-512 (blood, muscle, cartilage, marrow).
    [J] Bojorquez et al., Magn Reson Imaging 2017;35:69-80 (review of T1 and T2 at 3 T).
    [T] Tirkes et al., Abdom Radiol 2019;44:3133-3138 (pancreas T1: 654 ms at 1.5 T, 717 ms at 3 T).
    [R] Rohrer et al., Invest Radiol 2005;40:715-724 (relaxivities in plasma).
Values marked [e] are this project's estimates where no measured value was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: What :func:`draw_signals` can draw.
CONTRASTS = ("t1", "t2", "mixed", "random")


@dataclass(frozen=True)
class Tissue:
    """What the signal equations need to know of a tissue.

    Attributes:
        t1_ms: T1 at (1.5 T, 3 T), ms, without contrast agent.
        t2_ms: T2 at (1.5 T, 3 T), ms.
        density: proton density relative to water.
        gd_mmol: contrast agent in the late arterial phase, mmol per litre of tissue.
        spread: relative standard deviation between patients of T1, T2 and the concentration.
        fat: whether fat suppression acts on it.
        texture: relative standard deviation of the signal within the tissue.
    """

    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    density: float
    gd_mmol: float = 0.0
    spread: float = 0.08
    fat: bool = False
    texture: float = 0.04


TISSUES: dict[str, Tissue] = {
    "air": Tissue((1000, 1000), (50, 50), 0.0, texture=0.0),
    "gas": Tissue((1000, 1000), (50, 50), 0.01, texture=0.0),
    "lung": Tissue((1100, 1270), (40, 35), 0.12, 0.4, texture=0.25),
    # [B] subcutaneous fat; a turbo spin echo sees a longer T2 than a spin echo, see TSE_FAT_T2_MS
    "fat": Tissue((343, 382), (58, 68), 0.95, fat=True, spread=0.04, texture=0.04),
    "visceral_fat": Tissue((343, 382), (58, 68), 0.92, fat=True, spread=0.04, texture=0.06),
    "skin": Tissue((800, 900), (35, 30), 0.7, 0.3),
    # [B] paravertebral muscle
    "muscle": Tissue((856, 898), (35, 29), 0.80, 0.10, texture=0.07),
    "cortical_bone": Tissue((900, 1000), (5, 5), 0.15),
    # [B] bone marrow L4
    "marrow": Tissue((549, 586), (49, 49), 0.62, 0.15, spread=0.10, texture=0.09),
    "disc": Tissue((1000, 1100), (80, 75), 0.8, 0.0, texture=0.12),
    "csf": Tissue((3500, 4000), (1800, 1700), 1.0, 0.0),
    "cord": Tissue((900, 1000), (78, 75), 0.8, 0.05),
    # [B] liver, spleen, kidney cortex and medulla
    "liver": Tissue((586, 809), (46, 34), 0.80, 0.18, spread=0.10, texture=0.045),
    "spleen": Tissue((1057, 1328), (79, 61), 0.85, 0.90, spread=0.12, texture=0.10),
    "kidney_cortex": Tissue((966, 1142), (87, 76), 0.85, 1.9, spread=0.12),
    "kidney_medulla": Tissue((1412, 1545), (85, 81), 0.88, 0.35, spread=0.15, texture=0.08),
    # [B] 584/725 ms, [T] 654/717 ms
    "pancreas": Tissue((610, 720), (46, 43), 0.85, 0.85, spread=0.10, texture=0.08),
    # [e] ductal adenocarcinoma: fibrous, poorly perfused; longer T1 and T2 than the gland
    "tumour": Tissue((950, 1200), (57, 54), 0.76, 0.45, spread=0.12, texture=0.09),
    "necrosis": Tissue((1400, 1700), (110, 100), 0.9, 0.05, spread=0.15),
    "node": Tissue((950, 1200), (60, 56), 0.78, 0.50, spread=0.15, texture=0.05),
    "adrenal": Tissue((800, 950), (60, 55), 0.8, 0.6, spread=0.12),
    # [S] blood 1441/1932 ms, 290/275 ms; flow voids shorten the apparent T2 in a spin echo [e]
    "artery": Tissue((1441, 1932), (45, 45), 0.85, 3.2, spread=0.2, texture=0.03),
    "portal_vein": Tissue((1441, 1932), (70, 65), 0.85, 0.75, spread=0.30, texture=0.03),
    "cava": Tissue((1441, 1932), (60, 60), 0.85, 0.60, spread=0.35, texture=0.10),
    "hepatic_vein": Tissue((1441, 1932), (60, 60), 0.85, 0.22, spread=0.2, texture=0.03),
    "myocardium": Tissue((1000, 1200), (50, 45), 0.8, 1.2),
    "bowel_wall": Tissue((850, 1000), (60, 55), 0.8, 0.60, spread=0.15, texture=0.06),
    "stomach_wall": Tissue((850, 1000), (60, 55), 0.8, 0.65, spread=0.15, texture=0.06),
    "bowel_content": Tissue((1500, 1700), (160, 150), 0.85, 0.0, spread=0.35, texture=0.16),
    "duodenum_content": Tissue((1300, 1500), (120, 110), 0.85, 0.05, spread=0.4, texture=0.16),
    "stomach_content": Tissue((1900, 2200), (300, 280), 0.9, 0.0, spread=0.4, texture=0.12),
    "stool": Tissue((550, 600), (60, 55), 0.55, 0.0, spread=0.4, texture=0.25),
    "bile": Tissue((1800, 2000), (400, 380), 0.98, 0.0, spread=0.3),
    "cyst": Tissue((2600, 2900), (700, 650), 1.0, 0.0, spread=0.2),
    "duct": Tissue((2200, 2500), (500, 450), 0.98, 0.0, spread=0.15),
    "lesion": Tissue((1000, 1300), (90, 85), 0.85, 0.25, spread=0.4, texture=0.1),
}

#: Apparent T2 of fat in a turbo spin echo train, ms: short echo spacing suppresses J coupling,
#: so fat is far brighter than its spin-echo T2 says (Henkelman et al., JMRI 1994;4:533-540) [e].
TSE_FAT_T2_MS = 110.0

#: Longitudinal relaxivity of a macrocyclic agent in plasma, L/(mmol s), at (1.5 T, 3 T) [R].
RELAXIVITY = (5.2, 5.0)


def enhanced_t1_ms(t1_ms: float, concentration_mmol: float, relaxivity: float) -> float:
    """T1 with contrast agent: 1/T1 = 1/T1(0) + r1 C.

    Args:
        t1_ms: T1 without agent, ms.
        concentration_mmol: tissue concentration C, mmol/L.
        relaxivity: r1, L/(mmol s).

    Returns:
        T1 in ms.
    """
    return 1.0 / (1.0 / t1_ms + relaxivity * concentration_mmol / 1000.0)


def spoiled_gradient_echo(
    density: float, t1_ms: float, t2_star_ms: float, tr_ms: float, te_ms: float, flip_deg: float
) -> float:
    """Steady-state signal of a spoiled gradient echo (Ernst and Anderson 1966).

    S = PD sin(a) (1 - E1) / (1 - E1 cos(a)) exp(-TE/T2*), E1 = exp(-TR/T1). All times in ms, the
    flip angle in degrees; the result is in units of the proton density.
    """
    e1 = np.exp(-tr_ms / t1_ms)
    alpha = np.deg2rad(flip_deg)
    return float(
        density * np.sin(alpha) * (1 - e1) / (1 - e1 * np.cos(alpha)) * np.exp(-te_ms / t2_star_ms)
    )


def spin_echo(density: float, t1_ms: float, t2_ms: float, tr_ms: float, te_ms: float) -> float:
    """Spin-echo signal S = PD (1 - exp(-TR/T1)) exp(-TE/T2), TE << TR; times in ms.

    For a turbo spin echo TE is the effective echo time.
    """
    return float(density * (1 - np.exp(-tr_ms / t1_ms)) * np.exp(-te_ms / t2_ms))


def balanced_steady_state(
    density: float, t1_ms: float, t2_ms: float, tr_ms: float, flip_deg: float
) -> float:
    """Signal of a balanced steady-state free precession on resonance, at TE = TR/2.

    S = PD sin(a) (1 - E1) exp(-TE/T2) / (1 - (E1 - E2) cos(a) - E1 E2), with E1 = exp(-TR/T1) and
    E2 = exp(-TR/T2) (Scheffler and Lehnhardt, Eur Radiol 2003;13:2409-2418). Times in ms, the flip
    angle in degrees; the result is in units of the proton density.
    """
    e1, e2 = np.exp(-tr_ms / t1_ms), np.exp(-tr_ms / t2_ms)
    alpha = np.deg2rad(flip_deg)
    steady = np.sin(alpha) * (1 - e1) / (1 - (e1 - e2) * np.cos(alpha) - e1 * e2)
    return float(density * steady * np.exp(-0.5 * tr_ms / t2_ms))


@dataclass(frozen=True)
class Acquisition:
    """The sequence as drawn for one patient.

    Attributes:
        contrast: ``"t1"``, ``"t2"``, ``"mixed"`` or ``"random"``.
        field: index into the (1.5 T, 3 T) pairs.
        tr_ms: repetition time.
        te_ms: (effective) echo time.
        flip_deg: flip angle; 90 for a spin echo.
        fat_residual: share of the fat signal that fat suppression leaves; 1 without it, -1 where
            fat and water have opposed phases.
        sequence: ``"spoiled"`` gradient echo, ``"spin"`` echo or ``"balanced"`` steady state.
        agent: contrast agent relative to the late arterial phase.
        variety: factor on the tissues' spread between patients.
    """

    contrast: str
    field: int
    tr_ms: float
    te_ms: float
    flip_deg: float
    fat_residual: float
    sequence: str = "spin"
    agent: float = 0.0
    variety: float = 1.0


@dataclass(frozen=True)
class SignalModel:
    """Signals of all tissues for one patient.

    Attributes:
        acquisition: the sequence.
        signal: tissue → mean signal, pancreas = 1.
        texture: tissue → relative standard deviation within the tissue.
        pancreas_fat: share of fat in the pancreas (its lobules are modulated around it).
    """

    acquisition: Acquisition
    signal: dict[str, float]
    texture: dict[str, float]
    pancreas_fat: float


def draw_acquisition(contrast: str, rng: np.random.Generator) -> Acquisition:
    """Draw a plausible protocol.

    ``t1``: fat-suppressed 3-D spoiled gradient echo (VIBE, LAVA, THRIVE), late arterial phase,
    1.5 T or 3 T. ``t2``: 3-D turbo spin echo without fat suppression on a 1.5 T MR-Linac.
    ``mixed``: any of the sequences that abdominal protocols are made of.
    """
    u = rng.uniform
    field = int(rng.integers(2))
    if contrast == "t1":
        return Acquisition(
            "t1",
            field,
            u(3.8, 5.0),
            u(1.2, 2.2),
            u(9.0, 13.0),
            u(0.06, 0.30),
            sequence="spoiled",
            agent=1.0,
        )
    if contrast == "t2":
        return Acquisition("t2", 0, u(1400, 1800), u(65, 90), 90.0, 1.0)
    if contrast == "mixed":
        return _draw_sequence(field, rng)
    if contrast == "random":
        return Acquisition("random", field, 0.0, 0.0, 0.0, 1.0)
    raise ValueError(f"unknown contrast {contrast!r}; known: {', '.join(CONTRASTS)}")


def _draw_sequence(field: int, rng: np.random.Generator) -> Acquisition:
    """A sequence of ``mixed``: its ranges hold the usual protocols of 1.5 T and 3 T."""
    u = rng.uniform
    suppressed = u(0.05, 0.35)
    kind = rng.choice(["volume", "slices", "turbo", "balanced"], p=[0.35, 0.2, 0.3, 0.15])
    if kind in ("volume", "slices"):
        # Without fat suppression the echo time decides whether fat adds to water or takes from it.
        fat = float(rng.choice([1.0, -1.0, suppressed], p=[0.4, 0.2, 0.4]))
        agent = float(rng.choice([0.0, u(0.3, 1.4)]))
        tr_ms, flip_deg = (u(3.5, 6), u(8, 15)) if kind == "volume" else (u(90, 200), u(55, 85))
        return Acquisition(
            "mixed", field, tr_ms, u(1.1, 4.8), flip_deg, fat, "spoiled", agent, variety=2.0
        )
    if kind == "turbo":
        fat = float(rng.choice([1.0, suppressed]))
        return Acquisition("mixed", field, u(900, 6000), u(10, 120), 90.0, fat, "spin", variety=2.0)
    tr_ms = u(3.2, 5.5)
    return Acquisition("mixed", field, tr_ms, tr_ms / 2, u(40, 75), 1.0, "balanced", variety=2.0)


#: Signal of the tumour relative to the pancreas around it. The phantom is conditioned on a
#: hypointense tumour, so draws outside are repeated.
TUMOUR_RATIO = {"t1": (0.55, 0.80), "t2": (0.50, 0.78)}
#: Below this share of the brightest tissue's signal a pancreas would drown in noise.
DARKEST_PANCREAS = 0.08


def draw_signals(contrast: str, rng: np.random.Generator) -> SignalModel:
    """Draw one patient's sequence and tissue signals; the mean signal of the pancreas is 1."""
    for _ in range(500):
        acquisition = draw_acquisition(contrast, rng)
        pancreas_fat = float(np.clip(rng.lognormal(np.log(0.14), 0.5), 0.03, 0.40))
        if contrast == "random":
            signal = {name: float(rng.uniform(0.1, 2.0)) for name in TISSUES}
            signal["air"] = 0.0
        else:
            signal = {name: tissue_signal(t, acquisition, rng) for name, t in TISSUES.items()}
            signal["pancreas"] = (1 - pancreas_fat) * signal["pancreas"] + pancreas_fat * signal[
                "visceral_fat"
            ]
        reference = signal["pancreas"]
        if contrast == "mixed" and reference < DARKEST_PANCREAS * max(signal.values()):
            continue
        signal = {name: value / reference for name, value in signal.items()}
        low, high = TUMOUR_RATIO.get(contrast, (0.0, np.inf))
        if low <= signal["tumour"] <= high:
            texture = {name: t.texture for name, t in TISSUES.items()}
            return SignalModel(acquisition, signal, texture, pancreas_fat)
    raise RuntimeError("no plausible tumour contrast in 500 draws")


def tissue_signal(tissue: Tissue, acquisition: Acquisition, rng: np.random.Generator) -> float:
    """Signal of one tissue with this patient's T1, T2 and contrast agent."""
    spread = tissue.spread * acquisition.variety
    factor = np.exp(spread * np.clip(rng.standard_normal(3), -2, 2))
    t1 = tissue.t1_ms[acquisition.field] * factor[0]
    t2 = tissue.t2_ms[acquisition.field] * factor[1]
    density, tr_ms, flip = tissue.density, acquisition.tr_ms, acquisition.flip_deg
    if acquisition.agent:
        concentration = tissue.gd_mmol * factor[2] * acquisition.agent
        t1 = enhanced_t1_ms(t1, concentration, RELAXIVITY[acquisition.field])
    if acquisition.sequence == "spoiled":
        # T2* is taken as T2: at an echo time of 1-5 ms the difference is a few percent.
        value = spoiled_gradient_echo(density, t1, t2, tr_ms, acquisition.te_ms, flip)
    elif acquisition.sequence == "balanced":
        value = balanced_steady_state(density, t1, t2, tr_ms, flip)
    else:
        if tissue.fat:
            t2 = TSE_FAT_T2_MS * factor[1]
        value = spin_echo(density, t1, t2, tr_ms, acquisition.te_ms)
    return value * (acquisition.fat_residual if tissue.fat else 1.0)
