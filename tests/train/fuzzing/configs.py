"""Configs, command lines, prompt files and plans."""

from __future__ import annotations

from pathlib import Path
from random import Random

import yaml

from tests.train.fuzzing import Workshop, call, kind, refused_or, tree
from tests.train.fuzzing.values import NUMBERS, TRICKS, name, scalar, text, value, yaml_text
from utils.config.schema import KEYS
from utils.data.prompts import load_prompts, load_slider_prompts
from utils.study.plan import PLAN_KEYS, expand_cells, load_plan

PLAIN = {"base": "mini", "device": "cpu", "datasets": ["age"]}
SCRIPTS = ("train_image_script", "gen_image_script")
COUNTS = [key for key, of_key in KEYS.items() if of_key in (int, float)]


def write_config(shop: Workshop, content: str) -> None:
    """Write the config fuzz."""
    (shop.site / "config/fuzz.yaml").write_bytes(content.encode(errors="surrogatepass"))


def dry_run(draw: Random, shop: Workshop, *arguments: str) -> str:
    """A dry run says what is wrong in a line, or lists runs; it writes nothing."""
    before = tree(shop.site.parent)
    status, out, err = call(draw.choice(SCRIPTS), "--c=fuzz", "--dry-run", *arguments)
    assert status in (0, 2), err
    assert "Traceback" not in err
    assert tree(shop.site.parent) == before
    if status == 0:
        assert ", dry run" in out
        return "listed"
    assert err.startswith(("error: ", "usage: ")), err
    assert len(err) < 20_000, err[:300]
    return "refused"


@kind("config", 130)
def config(draw: Random, shop: Workshop) -> str:
    """Keys of any values, and some on the command line."""
    own = {name(draw): value(draw) for _ in range(draw.randint(0, 5))}
    write_config(shop, yaml.safe_dump({**PLAIN, **own}, allow_unicode=True))
    typed = [f"{name(draw)}={scalar(draw)}" for _ in range(draw.randrange(3))]
    return dry_run(draw, shop, *typed, *([text(draw)] if draw.random() < 0.2 else []))


@kind("YAML text", 100)
def any_text(draw: Random, shop: Workshop) -> str:
    """A config's file of any text."""
    write_config(shop, yaml_text(draw))
    return dry_run(draw, shop, "base=mini", "device=cpu")


@kind("command line", 100)
def command_line(draw: Random, shop: Workshop) -> str:
    """Values on the command line that are any YAML."""
    write_config(shop, yaml.safe_dump(PLAIN))
    return dry_run(draw, shop, *(f"{name(draw)}={yaml_text(draw)[:5000]}" for _ in range(draw.randint(1, 2))))


@kind("absurd number", 60)
def absurd(draw: Random, shop: Workshop) -> str:
    """Numbers of the right type, whatever they would cost."""
    own = {draw.choice(COUNTS): draw.choice(NUMBERS) for _ in range(draw.randint(1, 2))}
    if draw.random() < 0.3:
        own[draw.choice(("scales", "noise_scales", "skips"))] = [1] * draw.choice((1, 100, 10_000))
    write_config(shop, yaml.safe_dump({**PLAIN, **own}))
    return dry_run(draw, shop)


@kind("name", 50)
def names(draw: Random, shop: Workshop) -> str:
    """Names that would lead out of the output folder, or are none."""
    key, trick = draw.choice(("datasets", "config_name", "base", "--c")), draw.choice((*TRICKS, text(draw)))
    write_config(shop, yaml.safe_dump(PLAIN))
    if key == "--c":
        status, _, err = call(draw.choice(SCRIPTS), f"--c={trick}", "--dry-run")
        assert status in (0, 2), err
        return "listed" if status == 0 else "refused"
    own = {key: [trick] if key == "datasets" else trick}
    write_config(shop, yaml.safe_dump({**PLAIN, **own}))
    status, out, err = call("train_image_script", "--c=fuzz", "--dry-run")
    assert status in (0, 2), err
    for line in out.splitlines():
        if line.startswith(("  weights", "  reference")):
            path = shop.site / line.split(maxsplit=1)[1]
            assert path.resolve().is_relative_to(shop.site / "output"), path
    return "listed" if status == 0 else "refused"


@kind("prompts", 40)
def prompts(draw: Random, shop: Workshop) -> str:
    """Files of prompts, of both kinds."""
    path = shop.site / "fuzz-prompts.yaml"
    entry = {key: value(draw, 1) for key in ("target", "positive", "unconditional", "neutral", "action")}
    whole = yaml.safe_dump(draw.choice(([entry], [scalar(draw)], value(draw))), allow_unicode=True)
    content = whole if draw.random() < 0.5 else yaml_text(draw)
    path.write_bytes(content.encode(errors="surrogatepass"))
    read = draw.choice((load_prompts, load_slider_prompts))
    return "refused" if refused_or(lambda: read(path), path.name) is None else "read"


@kind("plan", 30)
def plan(draw: Random, shop: Workshop) -> str:
    """A study's plan."""
    path = shop.site / "config/fuzz.yaml"
    good = {"methods": ["train_image"], "datasets": ["age"], "base": "mini"}
    own = {draw.choice(list(PLAN_KEYS)): value(draw) for _ in range(draw.randint(1, 3))}
    whole = yaml.safe_dump({**good, **own}, allow_unicode=True)
    content = whole if draw.random() < 0.8 else yaml_text(draw)
    path.write_bytes(content.encode(errors="surrogatepass"))

    def load() -> object:
        folder = Path("config")
        return expand_cells(load_plan("fuzz", [], folder, "", ["train_image", "slider_text"]), folder)

    return "refused" if refused_or(load, "") is None else "read"


@kind("training", 6)
def training(draw: Random, shop: Workshop) -> str:
    """Numbers of the right type are trained with, or refused; nothing is written but in the output folder."""
    keys = ("seed", "lr", "alpha", "cfg_eta", "noise_scales", "guidance_scale", "train_start", "rank")
    own = {draw.choice(keys): draw.choice(NUMBERS) for _ in range(draw.randint(1, 3))}
    own |= {"train_iteration": 1, "report_to": "none"}
    write_config(shop, yaml.safe_dump({**PLAIN, "rank": 1, **own}))
    before = tree(shop.site.parent)
    status, _, err = call("train_image_script", "--c=fuzz")
    assert status in (0, 1, 2), err
    assert "Traceback" not in err, err
    written = {Path(path).relative_to(shop.site.name).parts[0] for path in tree(shop.site.parent) - before}
    assert written <= {"output"}, written
    return "done" if status == 0 else "refused"
