"""The datasets that ship with the repository: people before and after one edit, and subjects.

    python -m tinyflux.datasets

writes train/datasets/NAME/{source,target}/SEED.png for every edit and style, three people each; the first of
them alone as NAME_single; portraits that stand for photographs in train/datasets/real_person/source; and the
captioned images of subjects.py.
"""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tinyflux.faces import to_uint8
from tinyflux.people import EDITS_YES_NO, STYLES, People, sample_people, with_attribute
from tinyflux.render import render
from tinyflux.seeds import DATASETS, REAL
from tinyflux.subjects import all_captioned
from utils.arguments import Parser, path_option
from utils.bars import Bar

FOLDER = Path(__file__).resolve().parent.parent / "train" / "datasets"

# Chosen by eye, each three apart in skin, hair and, but for beards, sex, so that the edit alone is common to
# them: elf ears under three kinds of hair, one man among the lipsticks, which the world gives to women.
PEOPLE = {
    "glasses": (10, 26, 23),
    "beard": (54, 40, 8),
    "elf_ears": (48, 9, 41),
    "lipstick": (17, 43, 39),
    "age": (51, 32, 24),
    "smile": (38, 52, 29),
    "big_eyes": (59, 11, 20),
    "chubby": (35, 4, 49),
    "pixel_art": (53, 5, 19),
    "sketch": (57, 16, 2),
}
"""Dataset name, which is the attribute's -> positions of its people in the seeds' range."""
REAL_PEOPLE = (2, 4, 7, 9, 11, 12, 16, 17)
"""Most without any edit, so that one can be put on; none in a style, as photographs are."""

NEUTRAL = {
    **dict.fromkeys(EDITS_YES_NO + STYLES, 0.0),
    "age": 0.4,
    "smile": 0.4,
    "big_eyes": 0.3,
    "chubby": 0.3,
}
"""Every edit that a pair is not about: absent, or the middle of the world."""
ENDS = {"age": (0.3, 1.0), "smile": (0.3, 1.0), "big_eyes": (0.15, 1.0), "chubby": (0.15, 1.0)}
"""The edit's value in source and target, where that is not 0 and 1.

Sources are then people as the world has them on average when nobody names the attribute: who starts further
along than the source cannot move as far as the pair does, for the attribute ends at 1.
"""


def pair_seeds(name: str) -> list[int]:
    """Seeds of a dataset's people; `name` is one of PEOPLE, or that with _single for the first alone."""
    seeds = [DATASETS[i] for i in PEOPLE[name.removesuffix("_single")]]
    return seeds[:1] if name.endswith("_single") else seeds


def pair_people(name: str) -> tuple[People, People]:
    """The dataset's people before and after, alike in everything but the attribute."""
    attribute = name.removesuffix("_single")
    people = sample_people(pair_seeds(name))
    for other, value in NEUTRAL.items():
        people = with_attribute(people, other, value)
    before, after = ENDS.get(attribute, (0.0, 1.0))
    return with_attribute(people, attribute, before), with_attribute(people, attribute, after)


def portrait_people(count: int) -> People:
    """People that stand for photographs, every edit absent or where its pairs begin: each can be put on.

    Args:
        count: how many; the first of REAL, which no training has.
    """
    people = sample_people(REAL[:count])
    for name, value in NEUTRAL.items():
        people = with_attribute(people, name, ENDS.get(name, (value, 1.0))[0])
    return people


def with_edit(people: People, name: str) -> People:
    """The same people with an edit as far as its pairs go: what a perfect edit of their pictures shows."""
    return with_attribute(people, name, ENDS.get(name, (0.0, 1.0))[1])


def all_files() -> Iterator[tuple[Path, People]]:
    """Every file, relative to the datasets' folder, with the person to render into it."""
    for name in [*PEOPLE, *(f"{name}_single" for name in PEOPLE)]:
        for side, people in zip(("source", "target"), pair_people(name), strict=True):
            yield from _one_each(Path(name) / side, pair_seeds(name), people)
    seeds = [REAL[i] for i in REAL_PEOPLE]
    yield from _one_each(Path("real_person") / "source", seeds, sample_people(seeds))


def _one_each(folder: Path, seeds: list[int], people: People) -> Iterator[tuple[Path, People]]:
    for i, seed in enumerate(seeds):
        yield folder / f"{seed}.png", {name: value[i : i + 1] for name, value in people.items()}


def write_datasets(folder: Path) -> int:
    """Render every file under `folder`, making folders as needed; returns how many files."""
    files = list(all_files())
    for path, person in Bar(files, desc="datasets", unit="image"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = to_uint8(render(person))[0].permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(folder / path, optimize=True)
    captioned = list(all_captioned())
    for path, picture, caption in captioned:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / path, optimize=True)
        (folder / path).with_suffix(".txt").write_text(f"{caption}\n")
    return len(files) + len(captioned)


def main() -> None:
    """Parse the command line and write."""
    parser = Parser(description="Render the image pairs and captioned images of the face world.")
    parser.add_argument(
        "--out", type=path_option, default=FOLDER, help="folder of the datasets (train/datasets)"
    )
    folder = parser.parse_args().out
    print(f"{write_datasets(folder)} images in {folder}")


if __name__ == "__main__":
    main()
