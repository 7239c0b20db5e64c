"""``zsbir eval``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsbir_fast._words import reason
from zsbir_fast.cli.parsing import Parser

if TYPE_CHECKING:
    from zsbir_fast.metrics.result import RetrievalResult
    from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker
    from zsbir_fast.ranking.rerank import RerankOptions
    from zsbir_fast.runs.outcome import Outcome
    from zsbir_fast.runs.rerank_choice import RerankSetting
    from zsbir_fast.runs.unseen import Embedded

_FILES = ("report.html", "metrics.json", "per_class.csv")
_EXAMPLES = """\
  zsbir eval --model zsbir-quickstart/model
  zsbir eval --model runs/mine/checkpoints/best.ckpt --protocol sake
  zsbir eval --model runs/mine/model --data.name sketchy-21 --data.root /data/Sketchy
  zsbir eval --queries q.npz --gallery g.npz --ks 100 200 --compare
  zsbir eval --queries q.npz --gallery g.npz --metric euclidean --out results

an .npz holds 'embeddings' [n, D] and 'labels' [n] (whole numbers or text):
  numpy.savez("q.npz", embeddings=sketch_embeddings, labels=sketch_labels)"""


def build_parser() -> Parser:
    """Build the parser.

    Returns:
        The parser.
    """
    from zsbir_fast.metrics.protocols import PROTOCOLS
    from zsbir_fast.ranking.rerank import RerankOptions

    parser = Parser(
        "eval",
        description="Evaluate a trained model on the unseen classes of a benchmark, or embeddings "
        "of any\norigin. The table says which definition of the metrics was used.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--model", type=str | None, help="folder with an exported model, or a .ckpt file"
    )
    parser.add_argument("--queries", type=str | None, help=".npz with the queries' embeddings")
    parser.add_argument("--gallery", type=str | None, help=".npz with the gallery's embeddings")
    parser.add_argument(
        "--allow-seen",
        action="store_true",
        help="go on where the model was trained on classes of the test; every output says so",
    )
    parser.add_argument(
        "--data.name", type=str | None, help="benchmark; unset: that of the model's run"
    )
    parser.add_argument("--data.root", type=str | None, help="its folder; unset: that of the run")
    parser.add_argument("--data.layout", choices=["auto", "lists", "folders"])
    parser.add_argument(
        "--data.unseen", type=list[str] | None, help="unseen classes, for data of your own"
    )
    for side, images in (("sketch", "sketches"), ("photo", "photos")):
        parser.add_argument(
            f"--data.{side}_folders",
            type=list[str] | None,
            help=f"folders below the root that hold class folders of {images}",
        )
    parser.add_argument("--data.eval_batch_size", type=int, default=64, help="images per pass")
    parser.add_argument("--data.workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="standard")
    parser.add_argument(
        "--metric",
        choices=["cosine", "euclidean", "dot"],
        help="rank embeddings by this; unset: as the model ranks, or by cosine",
    )
    parser.add_argument("--rerank", type=RerankOptions, default=RerankOptions())
    parser.add_argument("--ks", type=int, nargs="+", help="cut-offs (default: 100 200)")
    parser.add_argument("--compare", action="store_true", help="show every definition in use")
    parser.add_argument(
        "--out", type=str | None, help="write metrics.json, per_class.csv and report.html here"
    )
    parser.add_argument("--device", default="cpu", help="where the model runs, e.g. cuda")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``eval``.

    Raises:
        ValueError: a file is damaged or of another kind, or the model knows unseen classes.
        FileNotFoundError: a file is missing.
    """
    parser = build_parser()
    arguments = parser.parse(argv)
    features = arguments.queries is not None or arguments.gallery is not None
    if features == (arguments.model is not None):
        parser.error("give either --model, or --queries and --gallery")
    if features and (arguments.queries is None or arguments.gallery is None):
        parser.error("--queries and --gallery go together")

    from zsbir_fast.ranking.rerank import RerankOptions
    from zsbir_fast.runs.baselines import chance_level, usual_ks
    from zsbir_fast.runs.finish import write_outcome
    from zsbir_fast.runs.outcome import Outcome
    from zsbir_fast.runs.rerank_choice import RerankSetting
    from zsbir_fast.runs.results import result_table, table_text

    start = time.perf_counter()
    options = RerankOptions(**parser.section(arguments, "rerank"))
    if features:
        embedded, title = _from_files(arguments, options)
        rerank = RerankSetting(options)
    else:
        embedded, title, rerank = _from_model(arguments, options)
    row = "features" if features else "trained"
    ks = tuple(arguments.ks) if arguments.ks else usual_ks(len(embedded.gallery))
    labels = (embedded.query_labels, embedded.gallery_labels)
    outcome = Outcome(
        title=title,
        lead=f"Evaluated under {arguments.protocol}, ranked by {embedded.ranker.name}.",
        of_what=_of_what(title, embedded),
        results={
            "chance": chance_level(*labels, ks=ks),
            **embedded.rows(row, protocol=arguments.protocol, ks=ks, progress=True),
        },
        embedded=embedded,
        reranked=embedded.rerank(rerank, protocol=arguments.protocol, ks=ks),
        settings={key: value for key, value in arguments.as_flat().__dict__.items() if value},
    )
    result = outcome.result
    sizes = f"{title}: {len(embedded.queries)} queries, {len(embedded.gallery)} gallery items"
    lines = [sizes, table_text(result_table("", _shown(outcome))), result.definition]
    lines += outcome.rankings
    if embedded.leak.names:
        lines.append(embedded.leak.note)
    facts: dict[str, Any] = {}
    if arguments.compare:
        table, facts["definitions"] = _compare(embedded, ks)
        lines.append(f"the same ranking under every definition in use:\n\n{table}")
    if arguments.out is not None:
        out = Path(os.path.expanduser(arguments.out))
        facts["seconds"] = round(time.perf_counter() - start, 1)
        write_outcome(out, outcome, **facts)
        lines.append("\n".join(str(out / name) for name in _FILES))
    _print("\n\n".join(lines))


def _shown(outcome: Outcome) -> dict[str, RetrievalResult]:
    return {row: result for row, result in outcome.all_results.items() if row != "chance"}


def _of_what(title: str, embedded: Embedded) -> str:
    if embedded.sketches is None:
        return "Retrieval"
    kind = "Retrieval, not zero-shot," if embedded.leak.names else "Zero-shot retrieval"
    return f"{kind} by {title}"


def _compare(embedded: Embedded, ks: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """Lay out every definition in use; only rankings by embeddings have them all."""
    from zsbir_fast.metrics.compare import compare_definitions

    table = compare_definitions(
        embedded.queries,
        embedded.gallery,
        embedded.query_labels,
        embedded.gallery_labels,
        metric=_require_embeddings(embedded.ranker).metric,
        ks=ks,
    )
    return str(table), table.to_dict()


def _require_embeddings(ranker: Ranker) -> EmbeddingRanker:
    from zsbir_fast.ranking.ranker import EmbeddingRanker

    if not isinstance(ranker, EmbeddingRanker):
        raise ValueError(
            "eval: --compare must be left out for a model that ranks by scores of its own, got "
            f"one that ranks by {ranker.name}"
        )
    return ranker


def _print(text: str) -> None:
    """Print names in any script to a terminal or file of any encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _from_files(arguments: Any, options: RerankOptions) -> tuple[Embedded, str]:
    if options.kind == "auto":
        raise ValueError(
            "eval: --rerank.kind must be a rule with --queries and --gallery, got 'auto', which "
            "needs a model and the seen classes of its benchmark"
        )
    from zsbir_fast.ranking.ranker import EmbeddingRanker
    from zsbir_fast.retrieval.feature_files import read_feature_pair
    from zsbir_fast.runs.unseen import Embedded

    pair = read_feature_pair(arguments.queries, arguments.gallery)
    embedded = Embedded(**vars(pair), ranker=EmbeddingRanker(arguments.metric or "cosine"))
    return embedded, "embeddings"


def _from_model(arguments: Any, options: RerankOptions) -> tuple[Embedded, str, RerankSetting]:
    from zsbir_fast.data.benchmarks import load_benchmark
    from zsbir_fast.methods.saving import load_model
    from zsbir_fast.ranking.ranker import EmbeddingRanker
    from zsbir_fast.runs.rerank_choice import settle_rerank
    from zsbir_fast.runs.unseen import embed_unseen

    path = Path(os.path.expanduser(arguments.model))
    model, identity = load_model(path)
    places = _places(arguments.data, path, identity.benchmark)
    benchmark = load_benchmark(places.pop("name"), places.pop("root"), **places)
    ranker = model.ranker() if arguments.metric is None else EmbeddingRanker(arguments.metric)
    # Before any image is embedded.
    options.require_possible(ranker, photos=len(benchmark.test_photos))
    if arguments.compare:
        _require_embeddings(ranker)
    embedding: dict[str, Any] = {
        "batch_size": arguments.data.eval_batch_size,
        "workers": arguments.data.workers,
        "device": arguments.device,
        "progress": True,
    }
    embedded = embed_unseen(
        model,
        benchmark,
        chosen_by=identity.chosen_by,
        allow_seen=arguments.allow_seen,
        **embedding,
    )
    rerank = settle_rerank(options, model, benchmark, ranker, **embedding)
    return replace(embedded, ranker=ranker), f"{identity.method} on {benchmark.name}", rerank


def _places(given: Any, model: Path, trained_on: str) -> dict[str, Any]:
    """Say which benchmark and where: as given, else as in the run that the model lies in."""
    from zsbir_fast.methods.settings import PLACES
    from zsbir_fast.runs.settings import read_settings

    keys = ("name", "root", *PLACES)
    folder = Path(os.path.abspath(model)).parent
    run = folder if model.is_dir() else folder.parent  # <run>/model, <run>/checkpoints/x.ckpt
    chosen: dict[str, Any] = dict.fromkeys(keys)
    chosen.update(name=trained_on or None, layout="auto")
    config = run / "config.yaml"
    if config.is_file():
        try:
            data = read_settings(config).data
        except Exception as error:  # YAML of strangers: any type of error
            raise ValueError(
                f"eval: {config}, beside the model, must "
                f"be the config of its run, got: {reason(error)}"
            ) from error
        if given.name in (None, data.name):
            chosen = {key: getattr(data, key) for key in keys}
    chosen.update({key: given[key] for key in keys if given[key] is not None})
    if chosen["name"] is None:
        raise ValueError(
            f"eval: --data.name must name the benchmark, as neither {model} nor a config.yaml in "
            f"{run} says which, got none"
        )
    return chosen
