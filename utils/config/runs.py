"""The runs of a config and where their files lie.

A config's sweep is datasets x versions x noise_scales, or datasets x versions x photographs. Each `Run`
carries a config narrowed to itself, so that the config saved beside the weights expands to that run again.
Names are the reference implementation's.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from utils.config.run_names import decimals, place, slug
from utils.config.schema import Config, SliderScale
from utils.errors import UserError, nearest
from utils.files import find_images, in_folder, one_form


@dataclass(frozen=True)
class Run:
    """One training and the images made with it. Every path is relative to the current folder."""

    config: Config
    dataset: str
    noise_scale: float  # beta
    version: int

    @property
    def name(self) -> str:
        """The run's folder name, such as glasses_vtrain_image_4.0eta_1.0ns_full_base_v1."""
        config = self.config
        return (
            f"{self.dataset}_v{config.python_name}_{config.cfg_eta:.1f}eta_{self.noise_scale:.1f}ns_"
            f"{config.train_method}_{config.config_name}_v{self.version}"
        )

    @property
    def seed(self) -> int:
        """Seed of the training: versions differ in nothing else."""
        return self.config.seed + self.version

    @property
    def folder(self) -> Path:
        """Everything training writes."""
        return in_folder(in_folder(Path(self.config.output_folder), self.dataset), self.name)

    def stem(self, step: int | None = None) -> str:
        """File stem of the weights after `step` optimizer steps (None: at the end of training)."""
        config = self.config
        step = config.train_iteration if step is None else step
        return (
            f"{self.dataset}_{config.cfg_eta:.1f}eta_{self.noise_scale:.1f}ns_"
            f"{config.num_inference_steps}inf_{step}epoch"
        )

    def weights_path(self, step: int | None = None) -> Path:
        """The LoRA in diffusers format."""
        return in_folder(self.folder, f"{self.stem(step)}.safetensors")

    def reference_path(self, step: int | None = None) -> Path:
        """The same LoRA in the reference implementation's format."""
        return in_folder(self.folder, f"{self.stem(step)}.pt")

    def words_path(self, step: int | None = None) -> Path:
        """New words that were learned with the LoRA, in a file of their own."""
        return in_folder(self.folder, f"{self.stem(step)}_words.safetensors")

    @property
    def lora_paths(self) -> list[Path]:
        """The LoRAs that generation applies: the run's own, or trained_lora_path if use_trained_lora_path."""
        config = self.config
        return (
            list(map(Path, config.trained_lora_path))
            if config.use_trained_lora_path
            else [self.weights_path()]
        )

    @property
    def slider_scales(self) -> list[SliderScale]:
        """What generation sweeps: a LoRA's scales; for several, every combination, the first's fastest."""
        each = self.config.lora_scales or [self.config.scales] * len(self.lora_paths)
        if len(each) == 1:
            return list(each[0])
        return [combination[::-1] for combination in product(*each[::-1])]

    @property
    def acting_scales(self) -> list[SliderScale]:
        """All scales that act in the sweep: with `lora_skips`, also those at which some LoRAs do not yet."""
        scales = self.slider_scales
        if not self.config.lora_skips:
            return scales
        each = [scale if isinstance(scale, tuple) else (scale,) for scale in scales]
        begun = [product(*((0.0, one) for one in scale)) for scale in each]
        return list(dict.fromkeys([*scales, *(one for several in begun for one in several)]))

    @property
    def config_path(self) -> Path:
        """The resolved config, narrowed to this run."""
        return self.folder / "config.yaml"

    @property
    def log_path(self) -> Path:
        """The losses, one JSON object a line."""
        return self.folder / "losses.jsonl"

    @property
    def output_path(self) -> Path:
        """What is printed where Ray has the run done; beside the folder, which may be moved aside."""
        return self.folder.with_name(f"{self.name}.log")

    @property
    def record_path(self) -> Path:
        """What training cost; generation writes another into seeds_folder."""
        return self.folder / "record.json"

    @property
    def state_path(self) -> Path:
        """What an unfinished training resumes from."""
        return self.folder / "state.pt"

    def sample_path(self, step: int) -> Path:
        """Pictures of what training has learned after `step` steps."""
        return self.folder / "samples" / f"step{step}.png"

    @property
    def pairs_path(self) -> Path:
        """The pairs as they are learned from."""
        return self.folder / "pairs.png"

    @property
    def inputs_path(self) -> Path:
        """A hash of what training learns from."""
        return self.folder / "inputs.sha256"

    @property
    def code_path(self) -> Path:
        """Hashes of the code that trained it."""
        return self.folder / "code.sha256"

    @property
    def saved_path(self) -> Path:
        """Hashes of the LoRAs as they were saved."""
        return self.folder / "saved.sha256"

    @property
    def source_folder(self) -> Path:
        """The images before the edit."""
        dataset = in_folder(Path(self.config.datasets_folder), self.dataset)
        return in_folder(dataset, self.config.source_folder)

    @property
    def target_folder(self) -> Path:
        """The images after the edit."""
        dataset = in_folder(Path(self.config.datasets_folder), self.dataset)
        return in_folder(dataset, self.config.target_folder)

    @property
    def gen_folder(self) -> Path:
        """Everything generation writes."""
        return in_folder(in_folder(Path(self.config.output_folder_gen), self.dataset), self.name)

    @property
    def seeds_folder(self) -> Path:
        """The images of this LoRA and prompt: a folder and a grid a seed."""
        config = self.config
        lora = f"{config.train_iteration}epoch"
        if config.use_trained_lora_path:
            stems = [path.stem for path in self.lora_paths]
            lora = stems[0] if len(stems) == 1 else slug("_".join(stems))
            lora = f"{lora}_{place(self.lora_paths)}"
        return self.gen_folder / "_".join(part for part in (lora, self._prompt_slug) if part)

    @property
    def _prompt_slug(self) -> str:
        name = self.prompts_path.name
        bare = name.removesuffix(".yaml").removesuffix(".yml")
        return slug(bare if self.config.use_prompts_file else self.prompt)

    def seed_folder(self, seed: int) -> Path:
        """One seed's images."""
        return self.seeds_folder / str(seed)

    def image_path(self, seed: int, skip: int, scale: SliderScale) -> Path:
        """One image, such as 6666/skip14_scale0.40.png; of two LoRAs, 6666/skip14_scale0.40_1.00.png."""
        scales = scale if isinstance(scale, tuple) else (scale,)
        return self.seed_folder(seed) / f"skip{skip}_scale{'_'.join(map(decimals, scales))}.png"

    def grid_path(self, seed: int) -> Path:
        """One seed's captioned grid: a column a scale, a row a skip."""
        return self.seeds_folder / f"{seed}.png"

    @property
    def page_path(self) -> Path:
        """The images of all seeds as a web page."""
        return self.seeds_folder / "index.html"

    def gif_path(self, seed: int, skip: int, others: Sequence[float] = ()) -> Path:
        """One seed's slider moving, such as 6666_skip14.gif; `others`: the other LoRAs' scales, held."""
        held = "".join(f"_{decimals(scale)}" for scale in others)
        return self.seeds_folder / f"{seed}_skip{skip}{held}.gif"

    @property
    def prompt(self) -> str:
        """This dataset's prompt, for when use_prompts_file is off."""
        return self.config.prompt[0]

    @property
    def prompts_path(self) -> Path:
        """This dataset's YAML list of prompts, for when use_prompts_file is on."""
        return Path("prompts") / self.config.prompts_file[0]


@dataclass(frozen=True)
class RealRun(Run):
    """One photograph: the LoRA that learns it by heart, if its inversion is one, and its edits."""

    photograph: Path = Path()

    @property
    def name(self) -> str:
        """The run's folder name, such as real_person_610_vtrain_image_real_base_v1."""
        config = self.config
        return f"{self._image}_v{config.python_name}_{config.config_name}_v{self.version}"

    @property
    def lora_paths(self) -> list[Path]:
        """The photograph's own, whatever trained_lora_path says; the edit's is semantic_lora_path."""
        return [self.weights_path()]

    def stem(self, step: int | None = None) -> str:
        """File stem of the weights after `step` optimizer steps (None: at the end of training)."""
        step = self.config.train_iteration if step is None else step
        return f"{self._image}_{self.config.num_inference_steps}inf_{step}epoch"

    @property
    def seeds_folder(self) -> Path:
        """The edits of one semantic LoRA and prompt by one inversion: a folder and a grid a seed."""
        config, semantic = self.config, Path(self.config.semantic_lora_path)
        parts = [semantic.parent.name, semantic.stem, place([semantic]), self._prompt_slug, config.inversion]
        if config.inversion == "lora":
            parts += [config.inversion_rule, f"{config.semantic_cfg_scale:g}w"]
        return self.gen_folder / "_".join(part for part in parts if part)

    @property
    def _image(self) -> str:
        return f"{self.dataset}_{self.photograph.stem}"


def expand_runs(config: Config) -> list[Run]:
    """List the runs of a sweep: datasets, then versions from train_start on, then noise_scales.

    A dataset takes the text and the prompts file at its own position in the lists, or the last there is.
    Raises `UserError` when two runs would share a folder, as 1.0 and 1.04 do, names having one decimal.
    """
    runs: list[Run] = []
    for index, dataset in enumerate(config.datasets):
        for version in range(config.train_start, config.train_start + config.train_count):
            for noise_scale in config.noise_scales:
                own = replace(
                    config,
                    datasets=[dataset],
                    noise_scales=[noise_scale],
                    train_start=version,
                    train_count=1,
                    prompt=[config.prompt[min(index, len(config.prompt) - 1)]],
                    prompts_file=[config.prompts_file[min(index, len(config.prompts_file) - 1)]],
                )
                runs.append(Run(own, dataset, noise_scale, version))
    _check_names(runs, "datasets, noise_scales")
    return runs


def expand_real_runs(config: Config) -> list[RealRun]:
    """List the runs of a config of photographs: datasets, then versions, then image_ids (none: all).

    Raises:
        UserError: for a source folder without images, an image id that is none of them, or one given twice.
    """
    runs = []
    for run in expand_runs(replace(config, noise_scales=config.noise_scales[:1])):
        photographs = find_images(run.source_folder)
        for image_id in map(one_form, config.image_ids or photographs):
            if image_id not in photographs:
                raise UserError(
                    f"image_ids: expected images of {run.source_folder}, found {image_id!r}"
                    f"{nearest(image_id, photographs)}; there are: {', '.join(photographs)}"
                )
            own = replace(run.config, image_ids=[image_id])
            runs.append(RealRun(own, run.dataset, run.noise_scale, run.version, photographs[image_id]))
    _check_names(runs, "datasets, image_ids")
    return runs


def _check_names(runs: Sequence[Run], keys: str) -> None:
    """Raise `UserError` if two runs would share a folder."""
    ((name, times),) = Counter(run.name for run in runs).most_common(1) or [("", 0)]
    if times > 1:
        raise UserError(f"{keys}: expected a name for each run, found {name!r} twice")
