"""Measure learned subjects: is it that one, are prompts followed, has the class moved, do images differ?

cd train
python eval_scripts/subject.py --c=train_subject
python eval_scripts/subject.py --c=train_subject "datasets=[anna,ben]" train_count=3

Images are generated: of every prompt some of the subject, and of its class some with and some without the
LoRA. Rows are pooled over a dataset's trainings; "in words" is the base under a description of the subject.

options of its own:
  --prompts FILE   .yaml, .txt (--w --h --s --d behind a prompt) or .json (prompts/prompts-subject.yaml);
                   [trigger] and [class] in it stand for the run's own words
  --images N       images a prompt (8)
  --with KEYS      KEY=VALUE ... over the config, as often as you like, of runs that were trained so: a row
                   each; runs of one dataset need names of their own, --with "prior=none config_name=none"
  --out FOLDER     where subject.csv, .json and .md go (output/eval/subjects)
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.arguments import Parser, path_option, whole
from utils.data.sample_prompts import load_sample_prompts
from utils.errors import run_cli
from utils.files import write_atomically
from utils.generation.prompts_and_seeds import check_loras
from utils.jobs.measured_rows import write_rows
from utils.jobs.prepare import list_runs, load_base, prepare
from utils.jobs.subjects import measure_subject, measure_words, pooled, prompts_in_words, prompts_of
from utils.machine import check_writable, resolve_device
from utils.training.captioned import CaptionedImages
from utils.training.methods import methods_from


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 as the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options, arguments = _options(argv)
    variants = {keys: [*arguments, *shlex.split(keys)] for keys in options.variants or [""]}
    experiments = {
        keys: prepare(own, __doc__ or "", methods_from(CaptionedImages)) for keys, own in variants.items()
    }
    runs = [(keys, run) for keys, experiment in experiments.items() for run in experiment.runs]
    first = next(iter(experiments.values()))
    if first.dry_run:
        list_runs([run for _, run in runs], lambda run: {"lora": run.lora_paths[0], "results": options.out})
        return 0
    for experiment in experiments.values():
        check_loras(experiment.runs, experiment.command("train_subject_script.py"))
    given = load_sample_prompts(options.prompts)
    check_writable(options.out)

    # here, so that the checks above come at once
    from tinyflux.who import face_subject_probe
    from utils.measure.instruments import load_tools
    from utils.measure.subjects import FACES
    from utils.report.tables import markdown_table

    sources = [CaptionedImages.of(run) for _, run in runs]
    probe = face_subject_probe() if first.config.judge == "probe" else None
    device = resolve_device(first.config.device, lambda line: print(line, file=sys.stderr))
    tools = load_tools(first.config, device, FACES)
    references = {source.path: source.pictures() for source in sources}
    prompts = [prompts_of(source, given) for source in sources]
    in_words = {}
    if probe is not None:
        for source in sources:
            words = probe.described(references[source.path])
            in_words[source.path] = prompts_in_words(given, words)
    texts = [text for each in prompts for text in each.texts]
    texts += [prompt.text for each in in_words.values() for prompt in each]
    base, embeds = load_base(first, texts)

    rows, described = [], set[Path]()
    for (keys, run), source, own in zip(runs, sources, prompts, strict=True):
        measured = options.images, tools, probe
        if source.path in in_words and source.path not in described:
            described.add(source.path)
            label, texts_of = f"{run.dataset} in words", in_words[source.path]
            rows += measure_words(run, label, base, embeds, references[source.path], texts_of, *measured)
        label = " ".join(filter(None, (run.dataset, keys)))
        rows += measure_subject(run, label, base, embeds, references[source.path], own, *measured)
        print(f"{run.name}: measured", flush=True)

    command = shlex.join(["python", "eval_scripts/subject.py", *argv])
    numbers = write_rows(pooled(rows), options.out / "subject", command)
    table = markdown_table(numbers.header, numbers.rows)
    text = "\n".join([table, *numbers.notes, "", f"    {command}", ""])
    write_atomically(options.out / "subject.md", text.encode())
    print("\n".join([table, *numbers.notes]))
    return 0


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and the arguments left for the config."""
    parser = Parser(add_help=False)
    parser.add_argument("--prompts", type=path_option, default=Path("prompts/prompts-subject.yaml"))
    parser.add_argument("--images", type=whole(1), default=8)
    parser.add_argument("--with", dest="variants", action="append")
    parser.add_argument("--out", type=path_option, default=Path("output/eval/subjects"))
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    run_cli(main)
