"""The renderer as the daemon uses it."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.errors import RenderError
from pipeline.mesh.framing import Framing
from pipeline.mesh.masks import distance_outside, outline
from pipeline.mesh.renderer import MeshPortrait, MeshRenderer
from pipeline.ports import Renderer
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls, FaceLandmarks, Portrait
from tests.fakes import faces
from tests.fakes.looks import difference
from tests.pipeline.mesh.conftest import SIZE_PX, Draw


def random_controls(seed: int, count: int = 6, head_deg: float = 12.0) -> FaceControls:
    """A few controls at random strength, and a head pose."""
    rng = np.random.default_rng(seed)
    weights = np.zeros(len(ARKIT_BLENDSHAPES), np.float32)
    weights[rng.choice(len(weights), count, replace=False)] = rng.random(count)
    return FaceControls(weights, *rng.uniform(-head_deg, head_deg, 3))


def test_names_itself_as_a_renderer(renderer: MeshRenderer) -> None:
    """It fits the port, calls itself `mesh` and runs on the CPU."""
    port: Renderer = renderer
    assert (port.name, port.device) == ("mesh", "cpu")
    port.close()
    port.close()


def test_zero_controls_show_the_portrait(draw: Draw) -> None:
    """With nothing asked of the face, the frame is the portrait at the frame's size."""
    portrait = cv2.resize(faces.astronaut().image, SIZE_PX, interpolation=cv2.INTER_AREA)
    assert difference(draw(), portrait).max() <= 2


@pytest.mark.parametrize("size_px", [(256, 256), (640, 360), (300, 500)])
def test_any_size_shows_the_portrait_undistorted(
    renderer: MeshRenderer, prepared: MeshPortrait, size_px: tuple[int, int]
) -> None:
    """Another size or shape of frame shows the part round the face, at the same proportions."""
    frame = renderer.render(prepared, FaceControls(), size_px)
    assert frame.shape == (size_px[1], size_px[0], 3)
    assert frame.dtype == np.uint8
    framing = Framing.of(faces.astronaut(), size_px)
    assert framing.across / framing.down == pytest.approx(size_px[0] / size_px[1], rel=0.01)
    assert difference(frame, framing.still(faces.astronaut())).mean() < 1.0


def test_the_same_controls_give_the_same_bytes(
    renderer: MeshRenderer, prepared: MeshPortrait
) -> None:
    """A frame depends on its controls alone: not on the frames before it, nor on who prepared."""
    controls = random_controls(1)
    first = renderer.render(prepared, controls, SIZE_PX)
    for seed in range(2, 6):
        renderer.render(prepared, random_controls(seed), SIZE_PX)
    assert np.array_equal(renderer.render(prepared, controls, SIZE_PX), first)
    again = MeshRenderer().prepare(faces.astronaut())
    assert np.array_equal(renderer.render(again, controls, SIZE_PX), first)


def test_every_control_shows(draw: Draw) -> None:
    """Each ARKit control changes the face, but for the tongue, of which a photo shows nothing."""
    still = draw()
    silent = {
        name for name in ARKIT_BLENDSHAPES if difference(draw(**{name: 1.0}), still).max() < 12
    }
    assert silent == {"tongueOut"}


@pytest.mark.parametrize("seed", range(5))
def test_background_stays_untouched(draw: Draw, seed: int) -> None:
    """Beyond the hair, whatever the face does, every pixel stays what it was, bit for bit."""
    framing = Framing.of(faces.astronaut(), SIZE_PX)
    face = framing.face(faces.astronaut(), 1)
    ys, xs = np.mgrid[0 : SIZE_PX[1], 0 : SIZE_PX[0]]
    pixels = np.stack([xs, ys], axis=-1).astype(np.float32)
    beyond = distance_outside(outline(face), face.to_face(pixels)) > 0.85
    assert 0.2 < beyond.mean() < 0.8
    controls = random_controls(seed, count=20, head_deg=40.0)
    frame = draw(**controls.as_mapping())
    assert np.array_equal(frame[beyond], draw()[beyond])


def test_hair_and_neck_stay_under_expressions(draw: Draw) -> None:
    """Expressions end at the face: hair above it and the collar below it do not move."""
    framing = Framing.of(faces.astronaut(), SIZE_PX)
    face = framing.face(faces.astronaut(), 1)
    frame = draw(browInnerUp=1, mouthSmileLeft=1, mouthSmileRight=1, jawOpen=0.3)
    changed = difference(frame, draw())
    crown = face.to_pixels(np.float32([0.0, -1.75]))
    collar = face.to_pixels(np.float32([0.0, 2.55]))
    for x, y in (crown, collar):
        around = changed[int(y) - 8 : int(y) + 8, int(x) - 40 : int(x) + 40]
        assert around.max() <= 1


def test_transitions_have_no_pops(renderer: MeshRenderer, prepared: MeshPortrait) -> None:
    """From neutral to surprised to sad in 30 frames, no pixel jumps and no step stands out."""
    neutral = FaceControls()
    surprised = FaceControls.of(
        browInnerUp=0.75, browOuterUpLeft=0.8, browOuterUpRight=0.8, eyeWideLeft=0.75,
        eyeWideRight=0.75, jawOpen=0.5, pitch=-4,
    )  # fmt: skip
    sad = FaceControls.of(
        browInnerUp=0.76, mouthFrownLeft=0.7, mouthFrownRight=0.7, mouthShrugLower=0.3,
        eyeBlinkLeft=0.18, eyeBlinkRight=0.18, eyeLookDownLeft=0.25, eyeLookDownRight=0.25,
        pitch=6, roll=4,
    )  # fmt: skip
    path = [mixed(neutral, surprised, t) for t in np.linspace(0, 1, 15, endpoint=False)]
    path += [mixed(surprised, sad, t) for t in np.linspace(0, 1, 16)]
    frames = [renderer.render(prepared, controls, SIZE_PX) for controls in path]
    steps = [difference(a, b) for a, b in pairwise(frames)]
    means = np.array([step.mean() for step in steps])
    for half in (means[:15], means[15:]):
        assert half.max() < 1.6 * np.median(half)
        assert half.min() > 0.5 * np.median(half)
    assert max(np.percentile(step, 99.9) for step in steps) < 90


def test_first_movement_is_small(draw: Draw) -> None:
    """Leaving the portrait's own face is gradual: a hair of any control changes next to nothing."""
    still = draw()
    for name in ("jawOpen", "eyeBlinkLeft", "eyeLookUpLeft", "eyeWideLeft", "mouthFrownLeft"):
        assert np.percentile(difference(draw(**{name: 0.01}), still), 99.9) < 25


def test_a_mixture_lies_between(renderer: MeshRenderer, prepared: MeshPortrait) -> None:
    """Half of each of two faces looks like neither, and nearer to both than they are."""
    happy = FaceControls.of(mouthSmileLeft=0.9, mouthSmileRight=0.9, cheekSquintLeft=0.7)
    angry = FaceControls.of(browDownLeft=0.9, browDownRight=0.9, mouthPressLeft=0.6)
    a, b, middle = (
        renderer.render(prepared, controls, SIZE_PX).astype(float)
        for controls in (happy, angry, mixed(happy, angry, 0.5))
    )
    apart = np.abs(a - b).mean()
    assert 0.2 * apart < np.abs(a - middle).mean() < 0.9 * apart
    assert 0.2 * apart < np.abs(b - middle).mean() < 0.9 * apart


def test_a_mirror_image_moves_as_the_mirror_does(draw: Draw) -> None:
    """Left and right are treated alike: the mirrored face with mirrored controls is the mirror."""
    renderer = MeshRenderer()
    prepared = renderer.prepare(faces.mirrored())
    controls = {"mouthSmileLeft": 0.8, "eyeBlinkRight": 0.7, "browDownLeft": 0.6, "yaw": 8.0}
    swapped = {"mouthSmileRight": 0.8, "eyeBlinkLeft": 0.7, "browDownRight": 0.6, "yaw": -8.0}
    mirror = renderer.render(prepared, FaceControls.of(**swapped), SIZE_PX)[:, ::-1]
    assert difference(draw(**controls), mirror).mean() < 1.0


@pytest.mark.parametrize(
    "portrait",
    [
        pytest.param(faces.turned(8.0), id="turned"),
        pytest.param(faces.scaled(384), id="small"),
        pytest.param(faces.toned(lambda image: image * 0.45), id="dark"),
        pytest.param(
            faces.toned(lambda image: np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)),
            id="grey",
        ),
    ],
)
def test_other_pictures_animate(portrait: Portrait) -> None:
    """Turned, small, dark and grey pictures blink, open the mouth and keep their background."""
    renderer = MeshRenderer()
    prepared = renderer.prepare(portrait)
    still = renderer.render(prepared, FaceControls(), SIZE_PX)
    face = Framing.of(portrait, SIZE_PX).face(portrait, 1)
    controls = FaceControls.of(eyeBlinkLeft=1, eyeBlinkRight=1, jawOpen=0.6, mouthPucker=0.3)
    changed = difference(renderer.render(prepared, controls, SIZE_PX), still)
    assert changed[:20].max() == 0
    for spot in (*face.irises[:, :2], face.points[66]):
        x, y = spot.astype(int)
        assert changed[y - 6 : y + 6, x - 6 : x + 6].mean() > 10
    if portrait.name == "toned" and (still[..., 0] == still[..., 1]).all():
        open_mouth = renderer.render(prepared, FaceControls.of(jawOpen=0.8), SIZE_PX)
        assert np.ptp(open_mouth.astype(int), axis=-1).max() <= 3


def test_refuses_what_it_cannot_draw(renderer: MeshRenderer, prepared: MeshPortrait) -> None:
    """Another renderer's portrait, an absurd size and landmarks of no face are render errors."""
    with pytest.raises(RenderError):
        renderer.render(object(), FaceControls(), SIZE_PX)
    with pytest.raises(RenderError):
        renderer.render(prepared, FaceControls(), (8, 100_000))
    flat = FaceLandmarks(np.full((68, 2), 50.0), np.full((2, 3), 50.0), "file")
    with pytest.raises(RenderError):
        renderer.prepare(Portrait("flat", faces.astronaut().image, flat, "flat"))
    upside_down = faces.astronaut().landmarks.points * [1, -1] + [0, 831]
    landmarks = FaceLandmarks(upside_down, faces.astronaut().landmarks.irises, "file")
    with pytest.raises(RenderError):
        renderer.prepare(Portrait("down", faces.astronaut().image, landmarks, "down"))


def test_keeps_only_a_few_sizes(renderer: MeshRenderer, prepared: MeshPortrait) -> None:
    """Frames in ever new sizes do not pile up memory; the newest sizes stay ready."""
    for side in (64, 72, 80, 88):
        renderer.render(prepared, FaceControls(), (side, side))
    assert len(prepared.rigs) <= 3
    assert (88, 88) in prepared.rigs
    prepared.rig(SIZE_PX)


def mixed(a: FaceControls, b: FaceControls, share: float) -> FaceControls:
    """Controls on the way from one face to another."""

    def between(x: float, y: float) -> float:
        return float(x * (1 - share) + y * share)

    return FaceControls.clamped(
        a.weights * (1 - share) + b.weights * share,
        between(a.pitch, b.pitch),
        between(a.yaw, b.yaw),
        between(a.roll, b.roll),
    )
