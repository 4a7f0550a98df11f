"""The report stage: from what the other stages left to the files that are submitted.

report.html and MODEL_CARD.md are templates/ filled with what the report knows. The page is one file
that needs nothing else, from the score down to how to rebuild it. The card is after Mitchell et
al., "Model cards for model reporting", FAT* 2019, under the front matter that model hubs read
(huggingface.co/docs/hub/model-cards): the results are in its `model-index`. Class names and file
names are other people's words: every text is escaped on its way in.
"""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup
from PIL import Image

from weighin.data.listing import Listing
from weighin.data.shards import open_images, shards_of
from weighin.files import canonical_json, write_bytes
from weighin.grading.score import over_limits
from weighin.images import UnreadableImageError, decode
from weighin.params import Params
from weighin.progress import say
from weighin.report import formatting
from weighin.report.evaluation import (
    CORRUPTIONS,
    DIGITS,
    Evaluation,
    Results,
    Robustness,
    calibrate,
    confused_pairs,
    evaluate_splits,
    metrics,
    robustness,
    weakest_first,
    worst_mistakes,
)
from weighin.report.figures import Chart, draw, tables
from weighin.report.formatting import TEMPLATES, environment, inline, measured, percent, signed
from weighin.report.inputs import PAIRS, Inputs, ReportData, read
from weighin.report.provenance import Json, build_definition, provenance, versions
from weighin.search.trials import AXES, StudyRecord

PLOTS = "plots"
NUMBER = re.compile(r"[-+−–]?[\d.,]*( × [\d.,]+)*( %)?")
MARKS = re.compile(r"([\\`*_\[\]|~#$])")
TASK = "image-classification"
REBUILD = "dvc repro"
GRADE = "python -m weighin.grading submission/model.onnx data/test graded --contest params.yaml"
EXAMPLES = 3  # file names shown for a kind of fault
FRONT = 12  # rows of a table of trials that is shown unasked
MANY, FEW = 30, 20  # classes of which a table shows all; rows that it shows of more
SIDE = 192  # pixels of a thumbnail: sharp at the page's 7 rem on a dense screen

Rows = list[list[str]]


def write_report(inputs: Inputs, params: Params, out: Path) -> None:
    """Write metrics.json, report.html, MODEL_CARD.md, provenance.json and plots/ into `out`.

    Everything is computed before the first byte is written. The bytes follow from the inputs'
    contents and the parameters alone, in a pinned process (`weighin.determinism`).

    Raises:
        DataError: an input is missing or is not what its stage writes.
        ModelError, HiddenWorkError: the model cannot be graded.
        OutputError: `out` cannot be written.
    """
    data = read(inputs)
    for note in data.test_notes:
        say(f"test: {note}")
    results = Results(
        data,
        params,
        evaluate_splits(data, params),
        calibrate(data.validation) if data.validation else None,
        robustness(data.model, inputs.prepare) if data.validation else None,
    )
    charts = draw(results)
    definition = build_definition(inputs, params)
    made = {
        "metrics.json": canonical_json(metrics(results)),
        "report.html": page(results, charts, inputs.images, definition),
        "MODEL_CARD.md": card(results),
        **{f"{PLOTS}/{name}.svg": chart.svg for name, chart in charts.items()},
        **{f"{PLOTS}/{name}": text for name, text in tables(results).items()},
    }
    files = {name: text.encode() for name, text in made.items()}
    files["provenance.json"] = canonical_json(provenance(inputs, definition, files)).encode()
    for name, text in files.items():
        write_bytes(out / name, text)
    for old in set((out / PLOTS).iterdir()) - {out / name for name in files}:
        old.unlink()  # a figure of a stage that is now off


def page(results: Results, charts: dict[str, Chart], images: Path, definition: Json) -> str:
    """Return the page; `images` is the folder of the mistakes, `definition` that of the build."""
    data, params = results.data, results.params
    pictures = open_images(images) if shards_of(images) else Listing(images)
    mistakes = worst_mistakes(data.validation, params.report.mistakes) if data.validation else []
    pins = definition["internalParameters"]["environment"]
    return _render(
        "page.html",
        results,
        charts=charts,
        title=f"Weigh-in: {len(data.classes)} classes, {data.cost.macs:,} MACs",
        quality={split: _quality(one, results) for split, one in results.evaluations.items()},
        sizes=_sizes(results),
        score_parts=_score_parts(results.evaluations),
        faults=_faults(data),
        sheets=_sheets(results) if params.report.sheets else [],
        recipe=_flat(data.recipe or {}),
        layers=_layers(data),
        classes={split: _classes(one) for split, one in results.evaluations.items()},
        confused={split: _confused(one) for split, one in results.evaluations.items()},
        worst=[(mistake, thumbnail(pictures, mistake.name)) for mistake in mistakes],
        corrupted_examples=_examples(results.robustness),
        hashes=_hashes(definition),
        pins=sorted(pins.items()),
        front=_front(data.search),
        axis=AXES[data.search.axis] if data.search else "",
    )


def card(results: Results) -> str:
    """Return the model card as Markdown; names are shown as they are, never as markup."""
    weakest = {split: weakest_first(one.table) for split, one in results.evaluations.items()}
    front = yaml.safe_dump(_front_matter(results), sort_keys=False)
    return _render("card.md", results, weakest=weakest, front_matter=Markup(front))


def _render(template: str, results: Results, **values: Any) -> str:
    templates = environment(TEMPLATES)
    templates.filters |= {
        "inline": inline,
        "interval": formatting.interval,
        "jpeg": lambda data: f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}",
        "measured": measured,
        "number_columns": number_columns,
        "percent": percent,
        "plain": plain,
        "several": formatting.several,
        "study_summary": formatting.study_summary,
        "under_floor": formatting.under_floor,
    }
    data, params = results.data, results.params
    text = templates.get_template(template).render(
        data=data,
        params=params,
        evaluations=results.evaluations,
        corrupted=results.robustness,
        corruptions=_corruptions(results.robustness),
        rules=formatting.rules(params.contest),
        over_limits=_over_limits(results),
        macs_share=formatting.macs_share(data, params.contest),
        dataset_summary=formatting.dataset_summary(data),
        compression_summary=formatting.compression_summary(data),
        export_reason=formatting.export_reason(data),
        versions=sorted(versions().items()),
        SPLITS=formatting.SPLITS,
        SEEN=formatting.SEEN,
        UNMEASURED=formatting.UNMEASURED,
        MANY=MANY,
        FEW=FEW,
        FRONT=FRONT,
        REBUILD=REBUILD,
        GRADE=GRADE,
        SCORED=f"{GRADE} --truth data/test_truth.csv",
        **values,
    )
    return text.lstrip()


def plain(text: str) -> Markup:
    """Return a name as Markdown that shows it: no HTML, no emphasis, no table cell of its own."""
    return Markup(MARKS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False)))


def thumbnail(images: Listing, name: str) -> bytes | None:
    """Return a picture as a JPEG of at most SIDE pixels a side; None if it cannot be read."""
    try:
        image = Image.fromarray(decode(images.read(name)).pixels)
    except (OSError, UnreadableImageError):
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    return _jpeg(image, quality=80)


def number_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return which columns hold numbers alone: they line up right."""
    return [all(NUMBER.fullmatch(row[k]) for row in rows) for k in range(len(header))]


def _quality(found: Evaluation, results: Results) -> Rows:
    """Return (name, value, note) of the figures that decide: score, F1, distance to the floor."""
    score, f1 = found.score.value, found.table.f1
    rows = [
        [
            "Score",
            measured(score),
            f"95 %: {formatting.interval(found.score_low, found.score_high)}",
        ],
        ["Macro F1", measured(f1), f"95 %: {formatting.interval(found.risk.low, found.risk.high)}"],
    ]
    floor = formatting.rules(results.params.contest).floor
    if floor is not None:
        note = f"{formatting.under_floor(found)} under it"
        rows.append([f"Above the floor of {floor:g}", signed(f1 - floor), note])
    return rows


def _sizes(results: Results) -> Rows:
    cost, (height, width) = results.data.cost, results.data.model.size
    share = formatting.macs_share(results.data, results.params.contest)
    return [
        ["MACs an image", f"{cost.macs:,}", share],
        ["Parameters", f"{cost.parameters:,}", f"input {height} × {width} pixels"],
        ["Size of the file", f"{cost.bytes:,} bytes", ""],
        ["Memory", f"{cost.memory:,} bytes", "activations of an image, at their peak"],
        *(["Out of the contest", fault, ""] for fault in _over_limits(results).values()),
    ]


def _over_limits(results: Results) -> dict[str, str]:
    return over_limits(results.params.contest, results.data.cost)


def _score_parts(evaluations: Mapping[str, Evaluation]) -> Rows:
    scores = [found.score for found in evaluations.values()]
    parts = [*scores[0].parts] if scores else []
    rows = [
        [formatting.SCORE_PARTS.get(part, part), *(measured(score.parts[part]) for score in scores)]
        for part in parts
    ]
    return [*rows, ["score", *(measured(score.value) for score in scores)]]


def _faults(data: ReportData) -> Rows:
    rows = []
    for fault, many in data.dataset.fault_counts.items():
        listed = [row for row in data.dataset.faults if row.fault == fault]
        done = ", ".join(dict.fromkeys(row.done for row in listed))
        names = ", ".join(row.name for row in listed[:EXAMPLES])
        rows.append([fault, f"{many:,}", done, names + (", …" if many > EXAMPLES else "")])
    return rows


def _front(found: StudyRecord | None) -> Rows:
    if found is None:
        return []
    return [
        [
            f"{trial.number}{' (chosen)' if trial.number == found.chosen else ''}",
            f"{found.cost(trial):,}",
            measured(trial.f1),
            measured(trial.score),
            measured(trial.expected),
            percent(trial.under_floor or 0),
        ]
        for trial in found.contenders()
    ]


def _layers(data: ReportData) -> Rows:
    return [
        [
            layer.path,
            f"{layer.macs_before:,}",
            f"{layer.macs_after:,}",
            layer.method or "–",
            " × ".join(map(str, layer.ranks or ())),
            measured(layer.error, 3),
            measured(layer.sensitivity),
            " × ".join(map(str, layer.shape)),
        ]
        for layer in data.layers
    ]


def _classes(found: Evaluation) -> Rows:
    return [
        [
            row.name,
            measured(row.f1, 3),
            measured(row.precision, 3),
            measured(row.recall, 3),
            f"{row.images:,}",
            f"{row.predicted:,}",
        ]
        for row in weakest_first(found.table)
    ]


def _confused(found: Evaluation) -> Rows:
    return [
        [true, label, f"{images:,}", percent(share)]
        for true, label, images, share in confused_pairs(found.table, FEW)
    ]


def _sheets(results: Results) -> list[tuple[str, Path]]:
    """Return the contact sheets shown: all, or those of the weakest classes, and the pairs."""
    sheets, found = results.data.sheets, results.evaluations
    if len(sheets) <= MANY:
        return [*sheets]
    weakest = next((weakest_first(one.table) for one in found.values()), [])
    shown = {row.name for row in weakest[:FEW]}
    return [(name, path) for name, path in sheets if name in shown or path.name == PAIRS]


def _corruptions(found: Robustness | None) -> Rows:
    if found is None:
        return []
    return [
        [kind, CORRUPTIONS[kind][0], measured(f1), signed(f1 - found.clean)]
        for kind, f1 in found.f1.items()
    ]


def _examples(found: Robustness | None) -> list[tuple[str, float, bytes]]:
    if found is None:
        return []
    pictures = {
        kind: _jpeg(Image.fromarray(pixels), quality=95, subsampling=0)
        for kind, pixels in found.example.items()
    }
    shown = [("as it is", found.clean, pictures["clean"])]
    return shown + [(kind, f1, pictures[kind]) for kind, f1 in found.f1.items()]


def _jpeg(image: Image.Image, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _hashes(definition: Json) -> Rows:
    return [
        [row["name"], method, digest]
        for row in definition["resolvedDependencies"]
        for method, digest in row["digest"].items()
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Rows:
    rows: Rows = []
    for name in sorted(values):
        value = values[name]
        inner = isinstance(value, Mapping)
        rows += _flat(value, f"{prefix}{name}.") if inner else [[prefix + name, str(value)]]
    return rows


def _front_matter(results: Results) -> dict[str, Any]:
    seen = results.params.train.all_data  # figures on seen images have no place among results
    found = [
        _result(results, split, one)
        for split, one in results.evaluations.items()
        if split != "validation" or not seen
    ]
    matter = {
        "library_name": "onnx",
        "pipeline_tag": TASK,
        "tags": ["onnx", TASK, "lightweight", "reproducible"],
        "metrics": ["f1", "accuracy"],
    }
    index = [{"name": "weighin", "results": found}]
    return {**matter, "model-index": index} if found else matter


def _result(results: Results, split: str, found: Evaluation) -> dict[str, Any]:
    cost = results.data.cost
    values = [
        ("f1", "Macro F1", round(found.table.f1, DIGITS)),
        ("accuracy", "Accuracy", round(found.table.accuracy, DIGITS)),
        ("score", f"Score ({results.params.contest.score})", round(found.score.value, DIGITS)),
        ("macs", "MACs", cost.macs),
        ("parameters", "Parameters", cost.parameters),
    ]
    return {
        "task": {"type": TASK, "name": "Image classification"},
        "dataset": {"type": "imagefolder", "name": formatting.SPLITS[split], "split": split},
        "metrics": [{"type": kind, "name": name, "value": value} for kind, name, value in values],
    }
