"""Bones: spine, ribs, sternum, shoulder girdle, pelvis, upper legs and, when they lie at the sides, arms.

Each bone is painted with a cortex and then filled with marrow a little smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sample_data.canvas import Canvas, Field, Mask, Shape
from sample_data.patient import Patient
from sample_data.tissue import T

Point = tuple[float, float, float]
_T12_Z = -22.0
_THORACIC_MM = 23.5
_LUMBAR_MM = 34.0
_CERVICAL_MM = 18.0


def paint_skeleton(canvas: Canvas, patient: Patient, arms_down: bool) -> None:
    _pelvis(canvas, patient)
    _shoulders(canvas, patient, arms_down)
    _ribs(canvas, patient)
    _sternum(canvas, patient)
    _spine(canvas, patient)


def _solid(
    canvas: Canvas, centre: Sequence[float], radii: Sequence[float], cortex_mm: float = 2.0, **how: object
) -> None:
    canvas.ellipsoid(T.CORTEX, centre, radii, **how)  # type: ignore[arg-type]
    canvas.ellipsoid(T.MARROW, centre, [max(r - cortex_mm, 0.3 * r) for r in radii], **how)  # type: ignore[arg-type]


def _shaft(canvas: Canvas, points: Sequence[Point], radius: float, cortex_mm: float = 3.0) -> None:
    canvas.tube(T.CORTEX, points, radius)
    if radius > cortex_mm + 0.5:
        canvas.tube(T.MARROW, points, radius - cortex_mm)


def _spine(canvas: Canvas, patient: Patient) -> None:
    top = _T12_Z + 11.5 * _THORACIC_MM
    heights = [top + _CERVICAL_MM * (i + 0.5) for i in range(7)]
    heights += [_T12_Z + _THORACIC_MM * i for i in range(12)]
    heights += [_T12_Z - _THORACIC_MM / 2 - _LUMBAR_MM * (i + 0.5) for i in range(5)]
    for z in heights:
        _vertebra(canvas, patient, z)
    _sacrum(canvas, patient)


def _vertebra(canvas: Canvas, patient: Patient, z: float) -> None:
    x, y = patient.spine(z)
    tall = _CERVICAL_MM if z > 248 else _THORACIC_MM if z > -34 else _LUMBAR_MM
    wide = float(np.interp(z, [-210, -40, 100, 250, 380], [25, 22, 15.5, 15, 12])) * (0.5 + 0.5 * patient.width)
    deep = wide * 0.76
    back = y + deep + 8.0
    canvas.ellipsoid(T.CARTILAGE, (x, y, z), (wide * 0.95, deep * 0.95, tall * 0.52), power=4.0)
    for side in (-1, 1):
        reach = float(np.interp(z, [-200, 0, 150, 300], [42, 32, 32, 24]))
        canvas.tube(T.CORTEX, [(x + side * wide * 0.65, y + deep * 0.8, z + 4), (x + side * 15, back + 6, z)], 5.0)
        _shaft(canvas, [(x + side * 14, back + 4, z), (x + side * reach, back + 8, z)], 4.0, 2.5)
        canvas.tube(
            T.CORTEX, [(x + side * 14, back + 8, z - tall * 0.4), (x + side * 14, back + 5, z + tall * 0.4)], 5.5
        )
        canvas.tube(
            T.MARROW, [(x + side * 14, back + 8, z - tall * 0.3), (x + side * 14, back + 5, z + tall * 0.3)], 2.5
        )
        canvas.tube(T.CORTEX, [(x + side * 13, back + 5, z - 3), (x, back + 14, z - 5)], 4.0)
    slope = float(np.interp(z, [-100, 0, 150, 280], [4, 14, 22, 5]))
    _shaft(canvas, [(x, back + 12, z - 3), (x, back + 33, z - 3 - slope)], 4.5, 2.2)
    _solid(canvas, (x, y, z), (wide, deep, tall * 0.41), 1.6, power=3.2)
    canvas.ellipsoid(T.FAT, (x, back, z), (10.5, 8.5, tall * 0.6), power=4.0, over=(T.CARTILAGE, T.MARROW, T.CORTEX))
    canvas.ellipsoid(T.CANAL, (x, back, z), (8.0, 6.5, tall * 0.6), power=4.0)


def _sacrum(canvas: Canvas, patient: Patient) -> None:
    for i in range(5):
        z = -215.0 - 21 * i
        x, y = patient.spine(z)
        wide = (52 - 9 * i) * (0.5 + 0.5 * patient.width)
        _solid(canvas, (x, y + 12, z), (wide, 16 - 1.5 * i, 13), 1.8, power=3.0)
        canvas.ellipsoid(T.CANAL, (x, y + 17, z), (9 - i, 5, 12))
    x, y = patient.spine(-320.0)
    _shaft(canvas, [(x, y + 6, -318), (x, y - 4, -338)], 6.0, 1.5)


def _ribs(canvas: Canvas, patient: Patient) -> None:
    """All ribs at once: a shell around the chest, cut in z where it is followed back to the vertebra it leaves."""
    half_thick, half_tall = patient.rng.uniform(3.4, 5.0), patient.rng.uniform(5.5, 8.0)
    drop = patient.rng.uniform(58, 88)
    _chest_arcs(canvas, patient, T.CORTEX, half_thick, half_tall, drop)
    _chest_arcs(canvas, patient, T.MARROW, half_thick - 1.4, half_tall - 1.6, drop)


# How far round each rib is bone, 0 at the spine and 1 at the sternum, T1 to T12
_BONY = np.array([0.86, 0.84, 0.84, 0.82, 0.80, 0.78, 0.76, 0.73, 0.70, 0.66, 0.52, 0.40], np.float32)


def _chest_arcs(
    canvas: Canvas, patient: Patient, code: int, half_thick: float, half_tall: float, drop: float
) -> None:
    shell = chest_shell(canvas, patient)
    distance, round_ = shell[0], shell[1]
    near = np.abs(distance - 4.0) < half_thick + 1.5
    height = canvas.z[near] + drop * (1 - np.cos(np.pi * round_[near])) / 2
    level = (height - _T12_Z) / _THORACIC_MM
    number = np.clip(np.rint(level), 0, 11).astype(int)
    off = (level - number) * _THORACIC_MM
    section = ((distance[near] - 4.0) / half_thick) ** 2 + (off / half_tall) ** 2
    end = _BONY[11 - number]
    bony = (section < 1) & (round_[near] < end) & (round_[near] > 0.06)
    labels = canvas.labels[near]
    if code == T.CORTEX:
        gristle = (section < 1) & (round_[near] >= end) & (number > 2) & (round_[near] < 0.97)
        labels[gristle] = T.CARTILAGE
    labels[bony] = code
    canvas.labels[near] = labels


def chest_shell(canvas: Canvas, patient: Patient) -> tuple[Field, Field]:
    """Signed distance in mm from the cavity's wall (out is positive) and the way round it, 0 back to 1 front.

    Both (z, y, x) float32.
    """
    width, front, back = (p[:, None, None] for p in patient.cavity(canvas.grid.axis(0)))
    v = np.where(canvas.y > 0, canvas.y / back, canvas.y / front)
    u = canvas.x / width
    rho = (np.abs(u) ** 2.3 + np.abs(v) ** 2.3) ** (1 / 2.3)
    radius = np.hypot(canvas.x, canvas.y)
    distance = radius * (1 - 1 / np.maximum(rho, 0.05))
    return distance.astype(np.float32), (np.arctan2(np.abs(u), v) / np.pi).astype(np.float32)


def _sternum(canvas: Canvas, patient: Patient) -> None:
    for z in np.arange(45.0, 196.0, 12.0):
        front = -float(patient.cavity(np.array([z], np.float32))[1][0]) - 6
        wide = 26 if z > 165 else 17
        _solid(canvas, (0, front, z), (wide, 5.5, 9), 1.3, power=3.0)


def _shoulders(canvas: Canvas, patient: Patient, arms_down: bool) -> None:
    for side in (-1, 1):
        head = patient.jitter((side * 168, 30, 205))
        _clavicle(canvas, patient, side, head)
        _scapula(canvas, patient, side, head)
        _arm(canvas, patient, side, head, arms_down)


def _clavicle(canvas: Canvas, patient: Patient, side: int, head: Point) -> None:
    start = (side * 22.0, -float(patient.cavity(np.array([200.0], np.float32))[1][0]) - 2, 204.0)
    middle = (side * 85.0 * patient.width, -32.0, 226.0)
    _shaft(canvas, [start, middle, (head[0] - side * 8, head[1] - 8, head[2] + 27)], 6.5, 2.4)


def _scapula(canvas: Canvas, patient: Patient, side: int, head: Point) -> None:
    back = float(patient.cavity(np.array([130.0], np.float32))[2][0])
    centre = (side * 102.0 * patient.width, back * 0.88, 148.0)
    turn = (patient.rng.uniform(-12, 4), 0.0, side * -patient.rng.uniform(22, 38))
    _solid(canvas, centre, (42, 4.0, 68), 1.5, turn=turn)
    _shaft(
        canvas,
        [(centre[0] - side * 25, centre[1] + 20, 175), (head[0] - side * 4, head[1] + 22, head[2] + 18)],
        5.5,
        2.0,
    )
    _solid(canvas, (head[0] - side * 24, head[1] + 10, head[2] - 4), (10, 15, 19), 2.0)


def _arm(canvas: Canvas, patient: Patient, side: int, head: Point, down: bool) -> None:
    _solid(canvas, head, (24, 24, 25), 2.0)
    u = patient.rng.uniform
    lateral = float(patient.muscle(np.array([0.0], np.float32))[0][0]) + patient.fat + u(38, 60)
    elbow = (side * lateral, u(10, 60), -70.0) if down else (side * u(150, 230), u(-60, 40), 420.0)
    hand = (side * (lateral + u(-25, 15)), u(-10, 60), -330.0) if down else (side * u(20, 160), u(-120, 0), 470.0)
    flesh = u(30, 44)
    for code, radius in ((T.SKIN, flesh + 2), (T.FAT, flesh), (T.MUSCLE, flesh - 6)):
        canvas.tube(code, [head, elbow, hand], radius + 4, over=(T.AIR, T.SKIN, T.FAT), end_radius=radius * 0.8)
    _shaft(canvas, [head, elbow], 12.0, 4.5)
    for shift in (-9.0, 9.0):
        _shaft(canvas, [(elbow[0] + shift, elbow[1], elbow[2]), (hand[0] + shift, hand[1], hand[2])], 7.0, 3.0)


def _pelvis(canvas: Canvas, patient: Patient) -> None:
    for side in (-1, 1):
        _iliac_wing(canvas, patient, side)
        hip = patient.jitter((side * 88, 18, -348))
        _solid(canvas, (hip[0] - side * 5, hip[1] + 4, hip[2] + 5), (33, 34, 34), 2.0)
        canvas.ellipsoid(T.CARTILAGE, hip, (27, 27, 27))
        _solid(canvas, hip, (24, 24, 24), 2.0)
        _femur(canvas, patient, side, hip)
        ramus = (side * 12.0, -42.0 * patient.depth, -368.0)
        ischium = (side * 58.0, 62.0 * patient.depth, -395.0)
        for path in ([(hip[0] - side * 22, -8.0, -345.0), ramus], [hip, ischium], [ischium, ramus]):
            _shaft(canvas, path, 9.5, 2.2)
    canvas.ellipsoid(T.CARTILAGE, (0, -42 * patient.depth, -368), (4, 10, 18))


def _femur(canvas: Canvas, patient: Patient, side: int, hip: Point) -> None:
    trochanter = (hip[0] + side * 52, hip[1] + 8, hip[2] - 32)
    _shaft(canvas, [hip, trochanter], 15.0, 2.5)
    _solid(canvas, trochanter, (17, 20, 24), 2.0)
    _shaft(canvas, [trochanter, (trochanter[0] - side * 15, trochanter[1], -520.0)], 15.0, 5.5)


def _iliac_wing(canvas: Canvas, patient: Patient, side: int) -> None:
    """Part of the shell of an ellipsoid: a bowl that opens to the front and the middle."""
    centre, radii = (side * 56.0, 5.0, -262.0), np.array([62.0 * patient.width, 82.0 * patient.depth, 82.0])

    def bowl(thick: float) -> Shape:
        def inside(x: Field, y: Field, z: Field) -> Mask:
            p = [(c - o) / r for c, o, r in zip((x, y, z), centre, radii, strict=True)]
            rho = np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
            mask: Mask = (
                (np.abs(rho - 1) * 70 < thick)
                & (side * p[0] > -0.1)
                & (p[1] > -0.75)
                & (np.abs(p[2] + 0.025) < 0.825)
            )
            return mask

        return inside

    low, high = np.array(centre) - radii * 1.2, np.array(centre) + radii * 1.2
    for code, thick in ((T.CORTEX, 6.5), (T.MARROW, 4.0)):
        canvas.paint(code, list(low), list(high), bowl(thick))
