"""States are told apart by shape, word and colour, also by people who see fewer colours."""

import re
from itertools import combinations
from pathlib import Path

import pytest

WEB = Path(__file__).parents[3] / "web"
STYLE = (WEB / "src" / "style.css").read_text()
PARTS = (WEB / "src" / "ui" / "parts.tsx").read_text()
BLINDNESSES = {  # Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
TOGETHER = (  # states of one kind of thing, which stand side by side
    "success failed upstream_failed running queued ready deferred up_for_retry skipped cancelled",
    "success failed none",
    "running queued failed success cancelled paused",
    "pending consumed filtered expired unseen skipped",
)
COLOURS = ("success", "failed", "running", "queued", "deferred", "retry", "skipped", "upstream")
BACKS = ("back", "raised", "soft", "softer")
TEXT, SHAPE, APART = 4.5, 3.0, 12.0


def palettes():
    """Return the variables of light, and of dark by the system's choice and by the person's."""
    found = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in STYLE.split("{")]
    light, *dark = [each for each in found if len(each) > len(COLOURS)]
    return light, dark


def linear(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def as_seen(colour, matrix):
    rgb = linear(colour)
    mixed = [sum(each * part for each, part in zip(row, rgb, strict=True)) for row in matrix]
    return [min(1, max(0, part)) for part in mixed]


def luminance(rgb):
    return sum(part * share for part, share in zip(rgb, (0.2126, 0.7152, 0.0722), strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1, 1.089)
    x, y, z = (
        sum(each * part for each, part in zip(row, rgb, strict=True)) / most
        for row, most in zip(rows, white, strict=True)
    )
    x, y, z = (
        each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def apart(one, other):
    """Return the distance of two colours in CIELAB: below 2.3 nobody tells them apart."""
    return sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5


def test_dark_is_the_same_however_it_is_chosen():
    light, (by_system, by_choice) = palettes()
    assert by_system == by_choice
    assert light.keys() == by_choice.keys()


@pytest.mark.parametrize("blindness", BLINDNESSES)
def test_states_are_legible_and_success_is_no_failure_in_every_eye(blindness):
    matrix = BLINDNESSES[blindness]
    light, (dark, _) = palettes()
    for palette in (light, dark):
        for name in COLOURS:
            for back in BACKS:
                whole = contrast(linear(palette[name]), linear(palette[back]))
                assert whole >= TEXT, (name, back, whole)
                seen = contrast(as_seen(palette[name], matrix), as_seen(palette[back], matrix))
                assert seen >= SHAPE, (blindness, name, back, seen)
        for good, bad in (("success", "failed"), ("success", "upstream"), ("running", "failed")):
            far = apart(as_seen(palette[good], matrix), as_seen(palette[bad], matrix))
            assert far >= APART, (blindness, good, bad, far)


def test_every_state_has_a_shape_that_no_other_of_its_kind_has():
    body = PARTS[PARTS.index("const SHAPES") :]
    shapes = dict(re.findall(r'^  (\w+): "([^"]+)",$', body[: body.index("};")], re.MULTILINE))
    for kind in TOGETHER:
        for one, other in combinations(kind.split(), 2):
            assert shapes.get(one, "a dot") != shapes.get(other, "a dot"), (one, other)
    # The word and the shape stand in the one component that draws states.
    drawn = PARTS[PARTS.index("export function State") : PARTS.index("const SHAPES")]
    assert "<Shape name={name} />" in drawn
    assert "{word ??" in drawn
