"""The words of the miniature: what its users type, what its system prompts say, and what each word means.

`prompts.py` builds sentences from these tables, `scene.py` parses them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A subject of prompts."""

    name: str
    """The system noun: "cat"."""
    category: str
    """animal, food, plant, vehicle, building or object."""
    glyph: str
    """Its character in Noto Color Emoji."""
    user_nouns: tuple[str, ...]
    """What users call it."""


@dataclass(frozen=True)
class Place:
    """A background, with its user and system phrasings."""

    name: str
    user_phrases: tuple[str, ...]
    system_phrase: str


@dataclass(frozen=True)
class Value:
    """One value of an attribute, and the modifiers that request it."""

    name: str
    modifiers: tuple[str, ...]


def _subjects(category: str, *rows: tuple[str, str, str]) -> tuple[Subject, ...]:
    return tuple(Subject(name, category, glyph, tuple(nouns.split("|"))) for name, glyph, nouns in rows)


SUBJECTS: tuple[Subject, ...] = (
    *_subjects(
        "animal",
        ("cat", "🐈", "cat|kitty|kitten"),
        ("dog", "🐕", "dog|puppy|doggo"),
        ("owl", "🦉", "owl|night owl"),
        ("penguin", "🐧", "penguin|baby penguin"),
        ("frog", "🐸", "frog|little frog"),
        ("butterfly", "🦋", "butterfly|monarch"),
        ("elephant", "🐘", "elephant|baby elephant"),
        ("fish", "🐠", "fish|tropical fish"),
        ("fox", "🦊", "fox|fox cub"),
    ),
    *_subjects(
        "food",
        ("pizza", "🍕", "pizza|pizza slice"),
        ("burger", "🍔", "burger|hamburger|cheeseburger"),
        ("strawberry", "🍓", "strawberry|berry"),
        ("donut", "🍩", "donut|doughnut"),
        ("watermelon", "🍉", "watermelon|melon slice"),
        ("pineapple", "🍍", "pineapple|ananas"),
        ("cake", "🎂", "cake|birthday cake"),
    ),
    *_subjects(
        "plant",
        ("cactus", "🌵", "cactus|cacti"),
        ("sunflower", "🌻", "sunflower|yellow flower"),
        ("rose", "🌹", "rose|red rose"),
        ("mushroom", "🍄", "mushroom|toadstool"),
        ("palm tree", "🌴", "palm tree|palm"),
        ("cherry blossom", "🌸", "cherry blossom|pink blossom"),
    ),
    *_subjects(
        "vehicle",
        ("car", "🚗", "car|automobile"),
        ("bus", "🚌", "bus|coach"),
        ("rocket", "🚀", "rocket|spaceship"),
        ("sailboat", "⛵", "sailboat|sailing boat"),
        ("train", "🚂", "train|locomotive"),
        ("tractor", "🚜", "tractor|farm tractor"),
        ("helicopter", "🚁", "helicopter|chopper"),
    ),
    *_subjects(
        "building",
        ("house", "🏠", "house|cottage"),
        ("castle", "🏰", "castle|fortress"),
        ("tent", "⛺", "tent|camping tent"),
        ("ferris wheel", "🎡", "ferris wheel|big wheel"),
        ("temple", "🏯", "temple|pagoda"),
    ),
    *_subjects(
        "object",
        ("guitar", "🎸", "guitar|electric guitar"),
        ("robot", "🤖", "robot|android"),
        ("umbrella", "☂", "umbrella|parasol"),
        ("balloon", "🎈", "balloon|party balloon"),
        ("crown", "👑", "crown|golden crown"),
        ("lantern", "🏮", "lantern|paper lantern"),
    ),
)

PLACES: tuple[Place, ...] = (
    Place("forest", ("in the woods", "among trees"), "in a forest"),
    Place("beach", ("by the sea", "on the sand"), "on a beach"),
    Place("city", ("in town", "downtown"), "in a city street"),
    Place("mountains", ("up in the hills", "by the peaks"), "in the mountains"),
    Place("desert", ("among dunes", "in the dry land"), "in a desert"),
    Place("snow", ("in winter", "on ice"), "in the snow"),
    Place("meadow", ("on the grass", "in a field"), "in a meadow"),
    Place("room", ("indoors", "at home"), "in a living room"),
)

POOR = 3
"""Index of the value that nobody prefers, in every attribute."""

ATTRIBUTES: dict[str, tuple[Value, ...]] = {
    "light": (
        Value("golden hour", ("golden hour", "warm sunlight")),
        Value("moonlight", ("moonlight", "night scene")),
        Value("studio", ("studio lighting", "bright spotlight")),
        Value("underexposed", ("underexposed", "dim lighting", "poorly lit")),
    ),
    "color": (
        Value("vivid", ("vivid colors", "vibrant palette")),
        Value("pastel", ("pastel colors", "delicate hues")),
        Value("monochrome", ("monochrome", "black and white")),
        Value("washed out", ("washed out", "faded colors", "dull tones")),
    ),
    "style": (
        Value("photo", ("realistic photo", "photorealistic")),
        Value("watercolor", ("watercolor", "painted on paper")),
        Value("oil painting", ("oil painting", "framed canvas")),
        Value("sketch", ("crude sketch", "childish doodle", "rough scribble")),
    ),
    "focus": (
        Value("sharp", ("sharp focus", "crisp edges")),
        Value("detailed", ("highly detailed", "intricate texture")),
        Value("bokeh", ("bokeh", "shallow focus")),
        Value("blurry", ("blurry", "unfocused", "motion blur")),
    ),
    "composition": (
        Value("close-up", ("close-up", "macro shot")),
        Value("wide", ("wide shot", "distant view")),
        Value("thirds", ("rule of thirds", "balanced composition")),
        Value("cropped", ("badly cropped", "out of frame", "cut off")),
    ),
}

NEUTRAL_MODIFIERS: tuple[str, ...] = ("masterpiece", "award winning", "8k", "trending online")
"""Modifiers that change nothing in the image."""

OPEN_DISTRIBUTION: tuple[float, ...] = (0.18, 0.18, 0.18, 0.46)
"""Probability of each value of an attribute that the prompt leaves open; the poor one is the most likely."""

MODIFIERS: dict[str, tuple[str, int]] = {
    modifier: (attribute, index)
    for attribute, values in ATTRIBUTES.items()
    for index, value in enumerate(values)
    for modifier in value.modifiers
}
"""Modifier to (attribute, index of its value)."""
