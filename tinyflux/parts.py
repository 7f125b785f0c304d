"""The parts of a portrait, from the background to the glasses, each painted over the ones before it."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux import shapes as s
from tinyflux.frame import EYES, HUES, LIPSTICK, Frame, colour, smoothstep
from tinyflux.people import HAIR_STYLES, People


def draw_background(f: Frame, people: People, resolution: int) -> Tensor:
    """A pastel hue, lighter around the head."""
    hue = s.ramp(people["background"], HUES)
    pastel = torch.lerp(hue, torch.full_like(hue, 0.92), 0.35)
    canvas_x, canvas_y = s.canvas(resolution, hue.device)
    glow = torch.exp(-(canvas_x**2 + (canvas_y + 0.1) ** 2) / 0.9)
    return pastel * (0.90 + 0.13 * glow)[:, None]


def _strands(f: Frame, frequency: float) -> Tensor:
    """Hair texture in [-1, 1]: soft strands that follow the head."""
    return torch.sin(frequency * f.x + 6 * f.y * f.x) * torch.sin(0.31 * frequency * f.y + 3.0 * f.x)


def _hair_colour(f: Frame) -> Tensor:
    light = 0.95 + 0.10 * _strands(f, 38.0) - 0.22 * (f.x / 0.6).clamp(-1, 1) * 0.6
    shine = 0.16 * torch.exp(-(((f.y + 0.43 + 0.3 * f.x**2) / 0.06) ** 2) - ((f.x + 0.12) / 0.24) ** 2)
    return (f.hair * light[:, None] + shine[:, None]).clamp(0, 1)


def _by_style(f: Frame, distances: dict[str, Tensor]) -> Tensor:
    """Coverage of the hair of each portrait's own style."""
    total = torch.zeros_like(f.x)
    for name, distance in distances.items():
        total = total + f.hair_style[:, HAIR_STYLES.index(name), None, None] * s.cover(distance, f.edge)
    return total


def draw_back_hair(f: Frame, image: Tensor) -> Tensor:
    """What of the hair is behind the head, by style."""
    width = 0.50 - 0.055 * f.a["face_shape"] + 0.03 * f.a["chubby"]
    cap = s.ellipse(f.x, f.y, 0.0, -0.12, width, 0.50)
    cap = s.intersect(cap, f.y - 0.05)
    curls = [s.ellipse(f.x, f.y, 0.0, -0.13, width + 0.06, 0.52)]
    for angle in torch.linspace(-2.35, 2.35, 13).tolist():
        cx = torch.sin(torch.tensor(angle)).item()
        cy = -torch.cos(torch.tensor(angle)).item()
        curls.append(s.ellipse(f.x, f.y, cx * (width + 0.05), -0.08 + 0.50 * cy, 0.125, 0.125))
    curly = s.intersect(s.union(*curls), f.y - 0.36)
    bob = s.box(f.x, f.y, 0.0, -0.08, width + 0.09, 0.54, 0.36)
    long = s.smooth_union(s.box(f.x, f.y, 0.0, 0.0, width + 0.08, 0.62, 0.42),
                          s.box(f.x, f.y, 0.0, 0.55, width + 0.14, 0.52, 0.20), 0.12)  # fmt: skip
    coverage = _by_style(f, {"short": cap, "spiky": cap, "curly": curly, "bob": bob, "long": long})
    return s.paint(image, _hair_colour(f) * 0.80, coverage)


def draw_body(f: Frame, people: People, image: Tensor) -> Tensor:
    """Shoulders, collar and neck, in the chin's shadow."""
    cloth = s.ramp(people["clothes"], HUES)
    broad = 0.70 + 0.10 * f.a["male"] + 0.06 * f.a["chubby"]
    shoulders = s.box(f.body_x, f.body_y, 0.0, 1.18, broad, 0.42, 0.30)
    fold = (
        1 - 0.14 * (f.body_x / 0.8).clamp(-1, 1) - 0.10 * s.cover((f.body_x.abs() - 0.50).abs() - 0.02, 0.08)
    )
    image = s.paint(image, cloth * fold[:, None], s.cover(shoulders, f.edge))
    neck_width = 0.165 + 0.035 * f.a["male"] + 0.05 * f.a["chubby"]
    neck = s.box(f.body_x, f.body_y, 0.0, 0.58, neck_width, 0.32, 0.08)
    throat = s.ellipse(f.body_x, f.body_y, 0.0, 0.80, neck_width + 0.07, 0.13)
    skin = f.skin * 0.92
    image = s.paint(image, skin, s.cover(s.smooth_union(neck, throat, 0.05), f.edge))
    collar = s.intersect((throat - 0.024).abs() - 0.026, 0.74 - f.body_y)
    image = s.paint(image, cloth * 0.72, s.cover(collar, f.edge))
    chin_shadow = s.cover(s.ellipse(f.x, f.y, 0.02, 0.16, 0.36, 0.52), 0.10)
    on_neck = s.cover(s.smooth_union(neck, throat, 0.05), f.edge)
    return f.shade(chin_shadow * on_neck, image, 0.28)


def draw_ears(f: Frame, image: Tensor) -> Tensor:
    """Round ears, grown to points by elf_ears."""
    width = 0.455 - 0.055 * f.a["face_shape"] + 0.035 * f.a["chubby"]
    ax, elf = f.x.abs(), f.a["elf_ears"]
    ear = s.ellipse(ax, f.y, width + 0.015, 0.03, 0.070, 0.105)
    point = s.taper(
        ax, f.y, width + 0.01, 0.02, width + 0.02 + 0.23 * elf, 0.02 - 0.30 * elf, 0.090, 0.085 - 0.077 * elf
    )
    # At elf_ears = 0 the point would still fatten the round ear: it grows out of it instead.
    outline = torch.lerp(ear, s.smooth_union(ear, point, 0.03), elf.clamp(0, 1))
    image = s.paint(image, f.skin * 0.94, s.cover(outline, f.edge))
    inner = s.taper(
        ax, f.y, width + 0.02, 0.04, width + 0.025 + 0.15 * elf, 0.01 - 0.20 * elf, 0.042, 0.038 - 0.03 * elf
    )
    return f.shade(s.cover(inner, 0.03), image, 0.22)


def draw_face(f: Frame, image: Tensor) -> Tensor:
    """The skin, shaded to one side, and the cheeks."""
    side = 1.02 - 0.10 * (f.x / 0.45).clamp(-1, 1) - 0.10 * (1 - (-f.face / 0.16).clamp(0, 1)) ** 2
    image = s.paint(image, f.skin * side[:, None], s.cover(f.face, f.edge))
    rosy = torch.tensor([0.90, 0.38, 0.36], device=image.device)[None, :, None, None]
    cheek = torch.exp(-(((f.feature_x.abs() - 0.26) / 0.09) ** 2) - ((f.y - 0.17) / 0.075) ** 2)
    strength = (0.16 + 0.16 * f.a["smile"] + 0.06 * f.a["chubby"]) * cheek * s.cover(f.face, f.edge)
    return s.paint(image, rosy, strength)


def draw_age_lines(f: Frame, image: Tensor) -> Tensor:
    """Wrinkles by age, and the double chin."""
    old = smoothstep(f.a["age"], 0.15, 1.0)
    ax, line = f.feature_x.abs(), 0.006
    inside = s.cover(f.face, f.edge)
    forehead = s.union(
        *(s.arc(f.feature_x, f.y, 0.0, y, w, -0.02, line) for y, w in ((-0.30, 0.15), (-0.245, 0.18)))
    )
    folds = s.union(
        s.taper(ax, f.y, 0.085, 0.145, 0.185, 0.275, 0.008, 0.006),
        s.taper(ax, f.y, 0.185, 0.275, 0.195, 0.355, 0.006, 0.003),
    )
    feet = s.union(
        *(
            s.taper(ax, f.y, 0.315, -0.005 + d, 0.385, -0.015 + 2.6 * d, 0.006, 0.002)
            for d in (-0.02, 0.0, 0.02)
        )
    )
    bags = s.arc(ax, f.y, 0.185, 0.075, 0.075, 0.022, 0.007)
    image = f.shade(s.cover(forehead, f.edge * 1.5) * inside, image, 0.42 * old)
    image = f.shade(s.cover(folds, f.edge * 1.5) * inside, image, 0.50 * old)
    image = f.shade(s.cover(feet, f.edge * 1.5) * inside, image, 0.42 * old)
    image = f.shade(s.cover(bags, f.edge * 2.0) * inside, image, 0.38 * old)
    double_chin = s.arc(f.x, f.y, 0.0, 0.455, 0.17, 0.045, 0.008)
    return f.shade(s.cover(double_chin, f.edge * 2) * inside, image, 0.35 * f.a["chubby"])


def draw_nose(f: Frame, image: Tensor) -> Tensor:
    """Bridge, tip and base."""
    x = f.feature_x - 0.03 * (f.a["turn"] - 0.5) * 2
    bridge = s.taper(x, f.y, 0.035, -0.01, 0.050, 0.125, 0.012, 0.030)
    image = f.shade(s.cover(bridge, 0.07), image, 0.13)
    tip = torch.exp(-(((x + 0.012) / 0.030) ** 2) - ((f.y - 0.115) / 0.035) ** 2)
    image = (image + 0.10 * tip[:, None]).clamp(0, 1)
    base = s.arc(x, f.y, 0.0, 0.150, 0.058, 0.020, 0.009)
    return f.shade(s.cover(base, f.edge * 1.3), image, 0.42)


def draw_mouth(f: Frame, image: Tensor) -> Tensor:
    """Lips, and between them teeth where a smile parts them."""
    smile, lipstick = f.a["smile"], f.a["lipstick"]
    thin = 1 - 0.35 * f.a["age"]
    half_width = 0.140 + 0.080 * smile
    x = f.feature_x - 0.015 * (f.a["turn"] - 0.5) * 2
    u = x / half_width
    hump = (1 - u**2).clamp(min=0)
    line = 0.318 - 0.050 * smile + (-0.003 + 0.092 * smile) * hump  # where the lips meet
    gap = 0.085 * smoothstep(smile, 0.35, 1.0) * hump  # the open mouth, below that line
    up = (0.034 + 0.012 * lipstick) * thin * hump.sqrt().clamp(min=0)
    down = (0.044 + 0.014 * lipstick) * thin * hump.sqrt().clamp(min=0)
    line = line - 0.45 * gap
    across = (u.abs() - 1) * half_width
    lips = s.intersect(torch.maximum(line - up - f.y, f.y - (line + gap + down)), across)
    natural = f.skin * torch.tensor([0.86, 0.62, 0.60], device=image.device)[None, :, None, None]
    lip_colour = torch.lerp(natural, colour(LIPSTICK, image.device), lipstick[:, None] * 0.92)
    image = s.paint(image, lip_colour, s.cover(lips, f.edge * 1.2))
    opening = s.intersect(torch.maximum(line - f.y, f.y - (line + gap)), across)
    image = s.paint(
        image,
        colour((0.30, 0.07, 0.09), image.device),
        s.cover(opening, f.edge) * (gap / f.edge).clamp(0, 1),
    )
    teeth = s.intersect(opening, f.y - (line + 0.62 * gap))
    image = s.paint(
        image,
        colour((0.98, 0.97, 0.94), image.device),
        s.cover(teeth, f.edge) * ((gap - 0.004) / f.edge).clamp(0, 1),
    )
    closed = 1 - smoothstep(smile, 0.35, 0.6)
    seam = s.intersect((f.y - line).abs() - 0.006, across)
    image = f.shade(s.cover(seam, f.edge * 1.3), image, 0.50 * closed)
    dimple = s.taper(x.abs(), f.y, half_width + 0.020, 0.245, half_width + 0.030, 0.300, 0.008, 0.004)
    return f.shade(s.cover(dimple, f.edge * 2), image, 0.30 * smile)


def draw_beard(f: Frame, image: Tensor) -> Tensor:
    """From the sideburns down, around the mouth."""
    # Beard above the face's lower edge, below a line from sideburn to moustache, around the mouth.
    ax = (f.feature_x / 0.42).abs()
    upper = f.y - (0.225 - 0.030 * torch.cos(7.0 * f.feature_x) - 0.30 * ax**3)
    jaw = s.intersect(f.face - 0.045, -upper)
    half_width = 0.150 + 0.080 * f.a["smile"]
    mouth = s.ellipse(f.feature_x, f.y, 0.0, 0.318, half_width + 0.01, 0.070 + 0.030 * f.a["smile"])
    region = s.intersect(jaw, -mouth)
    grain = 0.90 + 0.07 * torch.sin(62 * f.x + 14 * f.x * f.y) + 0.05 * torch.sin(23 * f.y + 9 * f.x)
    coverage = s.cover(region, 0.05) * f.a["beard"] * 0.96
    return s.paint(image, (f.hair * 0.82 * grain[:, None]).clamp(0, 1), coverage)


def draw_eyes(f: Frame, people: People, image: Tensor) -> Tensor:
    """Whites, irises that look one way, pupils, glints, lids and lashes."""
    grow = 1 + 0.55 * f.a["big_eyes"]
    ax, cx, cy = f.feature_x.abs(), 0.188, -0.015
    rx = 0.092 * grow
    ry = 0.058 * grow * (1 - 0.16 * f.a["smile"]) * (1 - 0.14 * f.a["age"])
    eye = s.ellipse(ax, f.y, cx, cy, rx, ry)
    socket = s.cover(s.ellipse(ax, f.y, cx, cy - 0.015, rx + 0.03, ry + 0.03), 0.06)
    image = f.shade(socket, image, 0.12)
    image = s.paint(image, colour((0.98, 0.97, 0.96), image.device), s.cover(eye, f.edge))
    # Both eyes look the same way: the iris sits in each eye's own, unmirrored coordinates.
    side = torch.sign(f.feature_x)
    local = f.feature_x - side * cx
    gaze = 0.020 * (f.a["turn"] - 0.5) * 2
    iris = s.intersect(s.ellipse(local, f.y, gaze, cy, 0.050 * grow, 0.050 * grow), eye)
    image = s.paint(image, s.ramp(people["eye_colour"], EYES), s.cover(iris, f.edge))
    pupil = s.intersect(s.ellipse(local, f.y, gaze, cy, 0.022 * grow, 0.022 * grow), eye)
    image = s.paint(image, colour((0.05, 0.04, 0.05), image.device), s.cover(pupil, f.edge))
    glint = s.ellipse(local, f.y, gaze - 0.018 * grow, cy - 0.020 * grow, 0.013 * grow, 0.013 * grow)
    image = s.paint(image, colour((1.0, 1.0, 1.0), image.device), s.cover(glint, f.edge) * 0.95)
    lid = s.arc(ax, f.y, cx, cy, rx, -ry, 0.010 + 0.005 * (1 - f.a["male"]))
    image = s.paint(image, colour((0.12, 0.08, 0.08), image.device), s.cover(lid, f.edge) * 0.92)
    lash = s.taper(ax, f.y, cx + rx * 0.95, cy - 0.005, cx + rx + 0.035, cy - 0.035, 0.010, 0.004)
    lashes = s.cover(lash, f.edge) * 0.9 * (1 - f.a["male"])
    return s.paint(image, colour((0.12, 0.08, 0.08), image.device), lashes)


def draw_brows(f: Frame, image: Tensor) -> Tensor:
    """Brows, lifted over big eyes."""
    thick = 0.014 + 0.012 * f.a["male"]
    lift = 0.045 * f.a["big_eyes"]
    brow = s.arc(f.feature_x.abs(), f.y, 0.190, -0.135 - lift, 0.105, -0.032, thick)
    return s.paint(image, f.hair * 0.62, s.cover(brow, f.edge * 1.4) * 0.92)


def draw_front_hair(f: Frame, image: Tensor) -> Tensor:
    """What of the hair is before the face, by style."""
    width = 0.480 - 0.055 * f.a["face_shape"] + 0.025 * f.a["chubby"]
    skull = s.ellipse(f.x, f.y, 0.0, -0.12, width, 0.48)
    arch = f.y - (-0.34 + 0.95 * f.x.abs() ** 2.4)
    side_part = f.y - (-0.36 + 0.30 * (f.x + 0.16).abs() + 0.55 * f.x.abs() ** 2.2)
    fringe = f.y - (-0.255 + 0.70 * f.x.abs() ** 2.2 + 0.012 * torch.sin(34 * f.x))
    short = s.intersect(skull, side_part)
    spikes = [s.intersect(skull, arch)]
    for i in range(7):
        x0 = -0.33 + 0.11 * i
        tip_y = -0.73 + 0.9 * abs(x0) ** 2
        spikes.append(s.taper(f.x, f.y, x0, -0.48 + 0.6 * x0**2, x0 * 1.25 + 0.03, tip_y, 0.085, 0.006))
    curls = [s.intersect(skull, f.y + 0.36 - 0.8 * f.x.abs() ** 2.4)]
    for i in range(6):
        x0 = -0.32 + 0.128 * i
        curls.append(s.ellipse(f.x, f.y, x0, -0.385 + 1.0 * abs(x0) ** 2.2, 0.085, 0.085))
    curtain = s.intersect(s.ellipse(f.x, f.y, 0.0, -0.04, width + 0.035, 0.56),
                          -s.ellipse(f.x, f.y, 0.02, 0.22, width - 0.085, 0.60), f.y - 0.42)  # fmt: skip
    bob = s.union(s.intersect(skull, fringe), s.intersect(curtain, f.y - 0.10))
    long = s.union(s.intersect(skull, arch), s.intersect(curtain, f.y - 0.10))
    distances = {
        "short": short,
        "spiky": s.union(*spikes),
        "curly": s.union(*curls),
        "bob": bob,
        "long": long,
    }
    return s.paint(image, _hair_colour(f), _by_style(f, distances))


def draw_glasses(f: Frame, image: Tensor) -> Tensor:
    """Lenses, frames and temples."""
    grow = 0.035 * f.a["big_eyes"]
    ax = f.feature_x.abs()
    lens = s.box(ax, f.y, 0.192, -0.005, 0.140 + grow, 0.108 + grow, 0.075)
    bridge = s.arc(f.feature_x, f.y, 0.0, -0.015, 0.060 - grow, -0.022, 0.013)
    temple = s.taper(ax, f.y, 0.325 + grow, -0.030, 0.45, -0.045, 0.013, 0.011)
    frame = s.union(lens.abs() - 0.014, bridge, temple)
    image = s.paint(
        image, colour((0.93, 0.97, 1.0), image.device), s.cover(lens, f.edge) * 0.14 * f.a["glasses"]
    )
    return s.paint(
        image, colour((0.10, 0.09, 0.11), image.device), s.cover(frame, f.edge) * 0.97 * f.a["glasses"]
    )
