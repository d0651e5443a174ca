"""Paints a patient on a canvas: trunk, lungs, mediastinum, abdomen, bones; from the outside in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sample_data.canvas import Canvas, Field, Grid, Mask, Point, Vector, smooth_noise
from sample_data.patient import Patient
from sample_data.skeleton import chest_shell, paint_skeleton
from sample_data.tissue import T

_INNER = (T.VISCERAL_FAT, T.LUNG, T.MUSCLE, T.FAT)
_ABDOMEN = (T.VISCERAL_FAT,)


@dataclass(frozen=True)
class Setting:
    """How the patient lies on the scanner."""

    arms_down: bool = False
    table: bool = True
    warp_mm: float = 6.0


def paint_patient(grid: Grid, seed: int, setting: Setting) -> Canvas:
    """A canvas with the tissue codes of the patient of this seed."""
    rng = np.random.default_rng([seed, 1])
    canvas, patient = Canvas(grid, rng, setting.warp_mm), Patient(rng)
    distance = _trunk(canvas, patient)
    _muscles(canvas, patient)
    dome = _diaphragm(canvas, patient)
    _lungs(canvas, patient, distance, dome)
    _abdomen(canvas, patient, distance, dome)
    _mediastinum(canvas, patient)
    _lung_vessels(canvas, patient)
    paint_skeleton(canvas, patient, setting.arms_down)
    _airways(canvas)
    _great_vessels(canvas, patient)
    if setting.table:
        _table(canvas, patient, rng)
    return canvas


def _trunk(canvas: Canvas, patient: Patient) -> Field:
    """Skin, fat, muscle and the fat-filled cavity; the signed distance from the cavity's wall, mm."""
    z = canvas.grid.axis(0)
    width, front, back = (p[:, None, None] for p in patient.muscle(z))
    power = np.float32(2.35)
    behind = canvas.y > 0
    v = np.where(behind, canvas.y / back, canvas.y / front)
    rho = (np.abs(canvas.x / width) ** power + np.abs(v) ** power) ** (1 / power)
    depth = np.hypot(canvas.x, canvas.y) * (1 / np.maximum(rho, 0.05) - 1)
    fat = patient.fat * np.where(
        behind, 0.65, np.interp(z, [-300, -100, 100, 250], [1.2, 1.2, 0.8, 0.5])[:, None, None]
    )
    labels = canvas.labels
    labels[depth > -fat - 2.5] = T.SKIN
    labels[depth > -fat] = T.FAT
    labels[depth > 0] = T.MUSCLE
    distance, _ = chest_shell(canvas, patient)
    seams = smooth_noise(patient.rng, canvas.grid, 22.0)
    labels[(np.abs(seams) < 0.10 + 0.004 * patient.fat) & (depth > 0) & (distance > 8)] = T.FAT
    cavity = distance < 0
    cavity &= canvas.z < 255
    labels[cavity] = T.VISCERAL_FAT
    if patient.rng.random() < 0.5:
        _breasts(canvas, patient)
    return distance


def _breasts(canvas: Canvas, patient: Patient) -> None:
    """Lying on the back they spread to the sides; skin over fat with some gland."""
    size, lobes = patient.rng.uniform(0.6, 1.3), [(T.SKIN, 2.5), (T.FAT, 0.0), (T.MUSCLE, -26.0)]
    for side in (-1, 1):
        centre = (side * 88.0 * patient.width, -92.0 * patient.depth, 92.0)
        for code, more in lobes:
            radii = [max(r * size + more, 4) for r in (62, 45 + patient.fat, 58)]
            canvas.ellipsoid(code, centre, radii, over=(T.AIR, T.SKIN, T.FAT) if code == T.FAT else (T.AIR, T.FAT))


def _muscles(canvas: Canvas, patient: Patient) -> None:
    for side in (-1, 1):
        path = [(side * 24.0, patient.spine(z)[1] + 4, z) for z in (-40.0, -110.0)]
        path += [(side * 44.0, 55.0, -190.0), (side * 70.0, 5.0, -300.0), (side * 88.0, 0.0, -380.0)]
        canvas.tube(T.MUSCLE, path, 12 * patient.wall, over=_ABDOMEN, end_radius=26 * patient.wall)
        canvas.ellipsoid(T.MUSCLE, (side * 92, 100, -330), (62, 30, 75), over=(T.FAT, T.VISCERAL_FAT, T.AIR))
        for z in range(-200, 260, 40):
            x, y = patient.spine(float(z))
            canvas.ellipsoid(T.MUSCLE, (x + side * 32, y + 40, z), (28, 21, 34), over=(*_ABDOMEN, T.FAT))


def _diaphragm(canvas: Canvas, patient: Patient) -> Field:
    """(z, y, x) float32 height of the diaphragm over each voxel's place, mm."""
    tops = (52.0 + patient.inspiration, 40.0 + patient.inspiration)
    domes = []
    for side, top in zip((-1, 1), tops, strict=True):
        reach = ((canvas.x - side * 66) / (88 * patient.width)) ** 2 + ((canvas.y + 8) / (108 * patient.depth)) ** 2
        domes.append(top - 62 * np.minimum(reach, 3.0) ** 1.25)
    saddle = tops[1] - 14 - 0.3 * np.abs(canvas.x) - 40 * np.clip((canvas.y - 20) / 90, 0, 1)
    dome = np.maximum(np.maximum(domes[0], domes[1]), np.where(np.abs(canvas.x) < 60, saddle, -500))
    return dome.astype(np.float32)


def _lungs(canvas: Canvas, patient: Patient, distance: Field, dome: Field) -> None:
    apex = 248 + patient.rng.uniform(-8, 8)
    middle = np.interp(canvas.grid.axis(0), [-60, 40, 120, 180, 240], [30, 26, 22, 26, 24]).astype(np.float32)
    x = canvas.x - patient.scoliosis * 0.5
    gap = middle[:, None, None] * np.interp(canvas.grid.axis(1), [-110, -60, 0, 60, 110], [0.35, 0.9, 1.1, 0.9, 0.6])[
        :, None
    ].astype(np.float32)
    lung = (distance < -2.5) & (canvas.z > dome + 2.5) & (canvas.z < apex) & (np.abs(x) > gap)
    canvas.labels[lung] = T.LUNG
    if patient.rng.random() < 0.15:
        level = patient.rng.uniform(60, 95)
        canvas.labels[lung & (canvas.y > level) & (canvas.x * patient.rng.choice([-1, 1]) > 0)] = T.FLUID


def _mediastinum(canvas: Canvas, patient: Patient) -> None:
    heart = patient.jitter((26, -34, 72 + patient.inspiration * 0.7), 10)
    radii = patient.size(52, 42, 52)
    turn = (20.0, 15.0, patient.rng.uniform(20, 45))
    everywhere = (T.LUNG, T.VISCERAL_FAT, T.FLUID)
    canvas.ellipsoid(T.VISCERAL_FAT, heart, [r + patient.rng.uniform(1, 8) for r in radii], everywhere, turn)
    canvas.ellipsoid(T.HEART, heart, radii, everywhere, turn)
    for shift, size in (((18, -8, -8), 24), ((-20, 6, 6), 24), ((-6, 18, 18), 22), ((-22, -14, -14), 22)):
        centre = tuple(c + s for c, s in zip(heart, shift, strict=True))
        canvas.ellipsoid(T.BLOOD, centre, patient.size(size, size * 0.85, size * 1.1), (T.HEART,))
    for side in (-1, 1):
        hilum = (side * 36.0, 12.0, 112.0)
        canvas.tube(T.BLOOD, [(heart[0] - 10, -12, 118), hilum], 12, over=everywhere, end_radius=9)
        canvas.ellipsoid(T.BLOOD, hilum, (14, 14, 20), over=everywhere)
    canvas.ellipsoid(T.MUSCLE, (0, 0, 235), (30, 20, 25), over=(T.VISCERAL_FAT,))
    canvas.tube(T.GUT, [(4, 42, 230), (6, 46, 100), (14, 34, 20)], 8, over=everywhere)


def _lung_vessels(canvas: Canvas, patient: Patient) -> None:
    for side in (-1, 1):
        for _ in range(9):
            direction = patient.rng.normal(0, 1, 3) * (0.7, 1, 1.2) + (side * 0.8, 0, -0.2)
            _branch(canvas, patient, np.array([side * 38.0, 12.0, 112.0]), direction, 5.2, 4)
    if patient.rng.random() < 0.4:
        spot = patient.jitter((patient.rng.choice([-1, 1]) * 75.0, patient.rng.uniform(-40, 70), 130.0), 40)
        canvas.ellipsoid(T.LUNG_VESSEL, spot, [patient.rng.uniform(3, 12)] * 3, over=(T.LUNG,))


def _branch(canvas: Canvas, patient: Patient, start: Vector, direction: Vector, radius: float, depth: int) -> None:
    direction = direction / np.linalg.norm(direction)
    stop = start + direction * patient.rng.uniform(18, 34)
    canvas.tube(T.LUNG_VESSEL, [start, stop], radius, over=(T.LUNG,), end_radius=radius * 0.8)
    if depth:
        for _ in range(2):
            _branch(canvas, patient, stop, direction + patient.rng.normal(0, 0.5, 3), radius * 0.72, depth - 1)


def _airways(canvas: Canvas) -> None:
    path = [(0.0, -8.0, 330.0), (0.0, 4.0, 270.0), (0.0, 22.0, 200.0), (0.0, 26.0, 142.0)]
    bronchi = [[(0, 26, 142), (-34, 26, 112), (-52, 30, 88)], [(0, 26, 142), (42, 28, 112), (58, 32, 84)]]
    for code, more in ((T.AIRWAY_WALL, 2.0), (T.AIRWAY, 0.0)):
        canvas.tube(code, path, 8.5 + more)
        for branch in bronchi:
            canvas.tube(code, branch, 6.5 + more, end_radius=4.0 + more)


def _great_vessels(canvas: Canvas, patient: Patient) -> None:
    soft = (T.VISCERAL_FAT, T.LUNG, T.MUSCLE, T.GUT, T.FAT, T.AIRWAY_WALL)
    r = patient.rng.uniform(10, 15)
    arch = [(-8, -30, 105), (-10, -30, 150), (4, 0, 178), (22, 30, 172), (26, 48, 140)]
    descending = [(22.0 - 0.05 * (140 - z), patient.spine(z)[1] - 27, float(z)) for z in range(120, -190, -30)]
    canvas.tube(T.BLOOD, [*arch, *descending], r + 2, over=soft, end_radius=r * 0.7)
    for side in (-1, 1):
        ends = [
            (descending[-1][0], descending[-1][1], -180.0),
            (side * 40.0, 35.0, -260.0),
            (side * 65.0, -20.0, -360.0),
        ]
        canvas.tube(T.BLOOD, ends, r * 0.55, over=soft)
        canvas.tube(T.VEIN, [(p[0], p[1] + 14, p[2]) for p in ends], r * 0.6, over=soft)
        canvas.tube(T.BLOOD, [(side * 8, 5, 178), (side * 22, 0, 230), (side * 24, -8, 330)], 4.5, over=soft)
        canvas.tube(T.VEIN, [(side * 14, -14, 165), (side * 32, -10, 230), (side * 34, -10, 330)], 6.0, over=soft)
    cava = [(-24.0, patient.spine(z)[1] - 28, float(z)) for z in range(-180, 21, 40)]
    canvas.tube(T.VEIN, [*cava, (-22, 5, 60)], r, over=(*soft, T.LIVER))
    canvas.tube(T.VEIN, [(-22, -5, 95), (-26, -8, 170)], 9, over=soft)
    for point in descending[4:]:
        if patient.rng.random() < 0.25:
            canvas.ellipsoid(T.CALCIUM, (point[0] - r * 0.8, point[1], point[2]), (2, 4, 5), over=(T.BLOOD,))


def _abdomen(canvas: Canvas, patient: Patient, distance: Field, dome: Field) -> None:
    canvas.labels[(np.abs(canvas.z - dome) < 2.5) & (distance < -1) & (canvas.labels == T.VISCERAL_FAT)] = T.MUSCLE
    _bowel(canvas, patient)
    _stomach(canvas, patient)
    for side in (-1, 1):
        _kidney(canvas, patient, side)
    canvas.tube(T.GUT, [(-28, -8, -85), (10, -5, -75), (55, 20, -55), (80, 30, -45)], 11, over=_ABDOMEN)
    spleen = patient.jitter((98, 48, -2 + 0.5 * patient.inspiration), 10)
    wall = _under(canvas, dome, distance)
    _organ(canvas, T.SPLEEN, wall, spleen, patient.size(30, 46, 54), (20.0, -10.0, 25.0))
    _liver(canvas, patient, wall)
    canvas.ellipsoid(T.FLUID, patient.jitter((0, -20, -340), 8), patient.size(42, 35, 32), over=(*_ABDOMEN, T.GUT))


def _under(canvas: Canvas, dome: Field, distance: Field) -> Mask:
    """Voxels of the abdominal cavity: below the diaphragm and inside the wall."""
    soft = np.isin(canvas.labels, (T.VISCERAL_FAT, T.GUT, T.GAS, T.ORAL_CONTRAST))
    return (canvas.z < dome - 2) & (distance < -2) & soft


def _organ(
    canvas: Canvas, code: int, allowed: Mask, centre: tuple[float, ...], radii: tuple[float, ...],
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:  # fmt: skip
    before = canvas.labels.copy()
    canvas.ellipsoid(code, centre, radii, turn=turn, power=2.2)
    np.copyto(canvas.labels, before, where=~allowed)


def _liver(canvas: Canvas, patient: Patient, allowed: Mask) -> None:
    s, lift = patient.liver, 0.6 * patient.inspiration
    lobes = [((-66, -8, -12 + lift), (84 * s, 98 * s, 74 * s)), ((-88, 12, -48 + lift), (46 * s, 66 * s, 66 * s))]
    lobes.append(((-4, -48, 14 + lift), (patient.rng.uniform(50, 85), 34, patient.rng.uniform(25, 42))))
    for centre, radii in lobes:
        _organ(canvas, T.LIVER, allowed, patient.jitter(centre, 6), radii, (0.0, patient.rng.uniform(-8, 14), 0.0))
    canvas.ellipsoid(T.FLUID, patient.jitter((-52, -48, -62), 8), patient.size(14, 17, 28), over=(T.LIVER, *_ABDOMEN))
    gate = np.array([-36.0, 2.0, -18.0])
    for _ in range(12):
        end = gate + patient.rng.normal(0, 1, 3) * (45, 40, 30) + (-30, -5, 8)
        canvas.tube(T.LIVER_VESSEL, [gate, (gate + end) / 2 + patient.rng.normal(0, 8, 3), end], 5, (T.LIVER,), 2.0)
    if patient.rng.random() < 0.3:
        for _ in range(patient.rng.integers(1, 5)):
            spot = patient.jitter((-70, 0, -10), 70)
            canvas.ellipsoid(T.LESION, spot, patient.size(*[patient.rng.uniform(4, 18)] * 3), over=(T.LIVER,))


def _kidney(canvas: Canvas, patient: Patient, side: int) -> None:
    centre = patient.jitter((side * 62, 58, -82 + (8 if side > 0 else 0)), 12)
    turn = (patient.rng.uniform(-15, 5), side * patient.rng.uniform(5, 20), side * patient.rng.uniform(-40, -10))
    radii = patient.size(27, 29, 55)
    over = (T.VISCERAL_FAT, T.MUSCLE, T.GUT, T.GAS)
    canvas.ellipsoid(T.VISCERAL_FAT, centre, [r + patient.rng.uniform(3, 14) for r in radii], (T.GUT, T.GAS), turn)
    canvas.ellipsoid(T.KIDNEY, centre, radii, over, turn)
    sinus = (centre[0] - side * 12, centre[1] - 6, centre[2])
    canvas.ellipsoid(T.VISCERAL_FAT, sinus, (radii[0] * 0.55, radii[1] * 0.45, radii[2] * 0.5), (T.KIDNEY,), turn)
    canvas.ellipsoid(
        T.KIDNEY_SINUS, sinus, (radii[0] * 0.32, radii[1] * 0.25, radii[2] * 0.38), (T.VISCERAL_FAT,), turn
    )


def _stomach(canvas: Canvas, patient: Patient) -> None:
    centre = patient.jitter((58, -22, 2 + 0.5 * patient.inspiration), 14)
    radii = patient.size(44, 40, 46)
    full = patient.rng.choice([T.GUT, T.FLUID, T.ORAL_CONTRAST], p=[0.45, 0.4, 0.15])
    inner = [r - 5 for r in radii]
    over = (T.VISCERAL_FAT, T.GUT, T.GAS)
    canvas.ellipsoid(T.GUT, centre, radii, over)
    canvas.ellipsoid(int(full), centre, inner, (T.GUT,))
    level = centre[1] + patient.rng.uniform(-30, 10)
    canvas.ellipsoid(T.GAS, centre, inner, (T.GUT, int(full)), clip=lambda x, y, z: y < level)
    canvas.tube(T.GUT, [centre, (20, -52, -50), (-30, -40, -62)], 20, over=_ABDOMEN)


def _bowel(canvas: Canvas, patient: Patient) -> None:
    colon = [(-92, 18, -235), (-98, 22, -150), (-92, 5, -95), (-40, -58, -105), (30, -66, -115), (90, -20, -60)]
    colon += [(102, 28, -110), (102, 30, -220), (70, 20, -270), (20, 40, -290), (5, 55, -340)]
    path = [patient.jitter((float(x), float(y), float(z)), 14) for x, y, z in colon]
    _hose(canvas, patient, path, patient.rng.uniform(17, 28))
    for _ in range(26):
        start = np.array([patient.rng.uniform(-75, 80), patient.rng.uniform(-75, 15), patient.rng.uniform(-320, -95)])
        _hose(
            canvas, patient, [start, start + patient.rng.normal(0, 28, 3), start + patient.rng.normal(0, 36, 3)], 12.0
        )


def _hose(canvas: Canvas, patient: Patient, path: Sequence[Point], radius: float) -> None:
    """A stretch of bowel: its wall, and what each part of it holds."""
    canvas.tube(T.GUT, path, radius, over=_ABDOMEN)
    for start, stop in itertools.pairwise(path):
        holds = patient.rng.choice([T.GUT, T.GAS, T.ORAL_CONTRAST, T.FLUID], p=[0.5, 0.25, 0.1, 0.15])
        canvas.tube(int(holds), [start, stop], radius - 3.5, over=(T.GUT,))


def _table(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """A couch: a thin curved shell with a foam core, below the lowest skin."""
    skin = np.flatnonzero(canvas.labels.any(axis=(0, 2)))
    top = float(canvas.grid.axis(1)[skin[-1]]) + rng.uniform(-4, 14)
    half, thick, curve = rng.uniform(190, 265), rng.uniform(18, 60), rng.uniform(0, 0.0016)
    y, x = canvas.grid.axis(1)[:, None], canvas.grid.axis(2)[None, :]
    under = y - (top - curve * x**2)
    inside = (under > 0) & (under < thick) & (np.abs(x) < half)
    core = (under > 2.5) & (under < thick - 2.5) & (np.abs(x) < half - 3)
    free = np.isin(canvas.labels, (T.AIR, T.PAD))
    canvas.labels[free & inside[None]] = T.TABLE
    canvas.labels[(canvas.labels == T.TABLE) & core[None]] = T.PAD
