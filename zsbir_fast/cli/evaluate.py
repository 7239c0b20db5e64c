"""``zsbir eval``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsbir_fast.cli.parsing import Parser

_EXAMPLES = """\
  zsbir eval --model zsbir-quickstart/model
  zsbir eval --model runs/mine/checkpoints/best.ckpt --data.root /data/Sketchy --protocol sake
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
    parser.add_argument("--data.name", default="qd_caltech", help="benchmark")
    parser.add_argument("--data.root", type=str | None, help="its folder; unset: the bundled one")
    parser.add_argument("--data.layout", choices=["auto", "lists", "folders"], default="auto")
    parser.add_argument(
        "--data.unseen", type=list[str] | None, help="unseen classes, for data of your own"
    )
    parser.add_argument("--data.eval_batch_size", type=int, default=64, help="images per pass")
    parser.add_argument("--data.workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="standard")
    parser.add_argument("--metric", choices=["cosine", "euclidean", "dot"], default="cosine")
    parser.add_argument("--ks", type=int, nargs="+", help="cut-offs (default: 100 200)")
    parser.add_argument("--compare", action="store_true", help="show every definition in use")
    parser.add_argument("--out", type=str | None, help="write metrics.json and per_class.csv here")
    parser.add_argument("--device", default="cpu", help="where the model runs, e.g. cuda")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Args:
        argv: arguments after ``eval``.

    Raises:
        ValueError: a file is not what it should be.
        FileNotFoundError: a file is missing.
    """
    parser = build_parser()
    arguments = parser.parse(argv)
    features = arguments.queries is not None or arguments.gallery is not None
    if features == (arguments.model is not None):
        parser.error("give either --model, or --queries and --gallery")
    if features and (arguments.queries is None or arguments.gallery is None):
        parser.error("--queries and --gallery go together")

    from zsbir_fast.metrics.compare import compare_definitions
    from zsbir_fast.metrics.evaluate import evaluate_retrieval
    from zsbir_fast.training.assess import chance_level, usual_ks
    from zsbir_fast.training.results import (
        result_table,
        table_text,
        write_metrics,
        write_per_class,
    )

    start = time.perf_counter()
    pair = _from_files(arguments) if features else _from_model(arguments)
    parts = (pair.queries, pair.gallery, pair.query_labels, pair.gallery_labels)
    ks = tuple(arguments.ks) if arguments.ks else usual_ks(len(pair.gallery))
    row = "features" if features else "trained"
    results = {
        "chance": chance_level(pair.query_labels, pair.gallery_labels, ks=ks),
        row: evaluate_retrieval(
            *parts, metric=arguments.metric, protocol=arguments.protocol, ks=ks
        ),
    }
    result = results[row]
    sizes = f"{len(pair.queries)} queries, {len(pair.gallery)} gallery items"
    print_ = sys.stdout.write
    print_(f"{sizes}\n\n{table_text(result_table('', {row: result}))}\n\n{result.definition}\n")
    more: dict[str, Any] = {}
    if arguments.compare:
        table = compare_definitions(*parts, metric=arguments.metric, ks=ks)
        print_(f"\nthe same ranking under every definition in use:\n\n{table}\n")
        more["definitions"] = table.to_dict()
    if arguments.out is not None:
        out = Path(arguments.out)
        seconds = round(time.perf_counter() - start, 1)
        write_metrics(out / "metrics.json", results, **more, seconds=seconds)
        write_per_class(out / "per_class.csv", result, pair.names)
        print_(f"\n{out / 'metrics.json'}\n{out / 'per_class.csv'}\n")


def _from_files(arguments: Any) -> Any:
    from zsbir_fast.training.features import read_feature_pair

    return read_feature_pair(arguments.queries, arguments.gallery)


def _from_model(arguments: Any) -> Any:
    from zsbir_fast.data.benchmarks import load_benchmark
    from zsbir_fast.training.embedding import embed_pair
    from zsbir_fast.training.export import load_model
    from zsbir_fast.training.features import FeaturePair

    data = arguments.data
    model, _ = load_model(arguments.model)
    benchmark = load_benchmark(data.name, data.root, layout=data.layout, unseen=data.unseen)
    queries, gallery = embed_pair(
        model.to(arguments.device),
        benchmark.test_sketches,
        benchmark.test_photos,
        batch_size=data.eval_batch_size,
        workers=data.workers,
        device=arguments.device,
        progress=sys.stderr.isatty(),
    )
    return FeaturePair(
        queries=queries,
        gallery=gallery,
        query_labels=benchmark.test_sketches.labels,
        gallery_labels=benchmark.test_photos.labels,
        names=dict(enumerate(benchmark.unseen)),
    )
