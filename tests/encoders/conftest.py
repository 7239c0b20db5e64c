from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="session")
def two_block_clip(tmp_path_factory):
    """An open_clip model with two blocks of width 64, 16 patches and features of width 24."""
    import open_clip

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 8, "vocab_size": 99, "width": 32, "heads": 1, "layers": 1,
        },
    }  # fmt: skip
    path = tmp_path_factory.mktemp("clip") / "zsbir-two-block-clip.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return "open_clip:zsbir-two-block-clip"
