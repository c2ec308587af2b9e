"""What holds for every datagram, whatever comes to the VMC port."""

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.marionette import Marionette, VmcError, angles
from adapters.osc import MAX_MESSAGES, OscError, arguments, split
from pipeline.types import HEAD_LIMIT_DEG, DirectControls, FaceControls
from tests.fakes.performer import APPLY, bone, bundle, message, raw_bundle, value

HEAD = b"#bundle\0" + bytes(7) + b"\1"
ADDRESSES = ("/VMC/Ext/Blend/Val", "/VMC/Ext/Blend/Apply", "/VMC/Ext/Bone/Pos", "/VMC/Ext/OK", "/a")
NAMES = ("jawOpen", "Joy", "A", "Blink_L", "lookLeft", "Head", "Neck", "Hips", "none of these")

singles = st.floats(width=32)
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.sampled_from(NAMES) | st.text(letters, max_size=8)
parts = texts | singles | st.integers(-(2**31), 2**31 - 1)
messages = st.builds(
    lambda address, head, rest: message(address, *head, *rest),
    st.sampled_from(ADDRESSES),
    st.lists(texts, max_size=1),
    st.lists(parts, max_size=8),
)


def damaged(whole: bytes, at: int, new: bytes, cut: int) -> bytes:
    place = at % (len(whole) + 1)
    return (whole[:place] + new + whole[place + len(new) :])[: len(whole) - cut % (len(whole) + 1)]


packets = st.recursive(
    messages | st.binary(max_size=40).map(lambda tail: b"/VMC/Ext/Blend/Val\0\0" + tail),
    lambda inner: st.lists(inner, max_size=5).map(lambda each: raw_bundle(HEAD, each)),
    max_leaves=12,
)
damage = st.builds(
    damaged, packets, st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 8)
)


def outcome_of(
    marionette: Marionette, datagram: bytes, now_s: float
) -> DirectControls | OscError | VmcError | None:
    try:
        found = split(datagram)
        controls = marionette.hear(found, now_s)
    except (OscError, VmcError) as error:
        return error
    assert len(found) <= MAX_MESSAGES
    return controls


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.lists(st.binary(max_size=200) | packets | damage, max_size=4))
def test_any_datagrams_give_a_face_or_one_kind_of_error(datagrams: list[bytes]) -> None:
    """Nothing else is raised, and what comes out is always within the limits of a face."""
    marionette = Marionette()
    for place, datagram in enumerate(datagrams):
        outcome = outcome_of(marionette, datagram, 0.3 * place)
        if isinstance(outcome, DirectControls):
            FaceControls.of(**outcome.weights, **outcome.head)
        elif outcome is not None:
            assert 0 < len(str(outcome)) < 300


@given(st.binary(max_size=200))
def test_any_bytes_are_arguments_or_one_kind_of_error(tail: bytes) -> None:
    """Whatever follows an address."""
    try:
        read = arguments(b"/a\0\0" + tail)
    except OscError:
        return
    assert all(isinstance(each, int | float | str) for each in read)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0.0, 1.0, width=32)), max_size=12))
def test_bundled_or_one_by_one_is_the_same(values: list[tuple[str, float]]) -> None:
    """How a performer packs its messages does not matter."""
    sent = [*(value(name, amount) for name, amount in values), bone("Head", "y", 10.0), APPLY]
    together, apart = Marionette(), Marionette()
    outcome = together.hear(split(bundle(bundle(*sent[:3]), *sent[3:])), 0.0)
    for each in sent:
        last = apart.hear(split(each), 0.0)
    assert outcome == last


@given(st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda q: math.hypot(*q) > 0.1))
def test_angles_are_within_limits(rotation: tuple[float, float, float, float]) -> None:
    """For every rotation there is."""
    norm = math.hypot(*rotation)
    x, y, z, w = (part / norm for part in rotation)
    assert all(abs(angle) <= HEAD_LIMIT_DEG for angle in angles((x, y, z, w)).values())
    assert angles((-x, -y, -z, -w)) == angles((x, y, z, w))


@given(*[st.floats(-40.0, 40.0)] * 3)
def test_angles_are_those_that_the_head_was_turned_by(
    pitch: float, yaw: float, roll: float
) -> None:
    """First the roll, then the pitch, then the yaw, as Unity turns."""

    def about(axis: int, degrees: float) -> list[float]:
        half = math.radians(degrees) / 2.0
        made = [0.0, 0.0, 0.0, math.cos(half)]
        made[axis] = math.sin(half)
        return made

    def after(first: list[float], second: list[float]) -> list[float]:
        (ax, ay, az, aw), (bx, by, bz, bw) = second, first
        return [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]

    x, y, z, w = after(after(about(2, roll), about(0, pitch)), about(1, yaw))
    found = angles((x, y, z, w))
    for name, angle in (("pitch", pitch), ("yaw", yaw), ("roll", roll)):
        assert math.isclose(found[name], angle, abs_tol=1e-6)
