"""ClusterRetri and SBKA, step by step what a transcription of their formulas in NumPy gives.

The encoder is one matrix, so that every gradient can be written out by hand.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import zsbir_fast as zf
from zsbir_fast.encoders.encoder import Encoder, Features
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.methods.regularisers import StepNoise
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.run_config import RunConfig

CLASSES = ("cat", "dog", "piano", "car")
PIXELS, WIDTH, HASH, BATCH = 12, 6, 5, 9
OPTIM = zf.OptimConfig(lr_backbone=0.01, lr_head=0.02, weight_decay=0.05)


class OneMatrix(Encoder):
    def __init__(self, classes=1000):
        super().__init__(width=WIDTH, image_size=2, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.matrix = nn.Linear(PIXELS, WIDTH, bias=False)
        self.top = nn.Linear(WIDTH, classes)

    @property
    def head(self):
        return self.top

    def logits(self, global_):
        return self.top(global_)

    def forward(self, images):
        features = self.matrix(images.flatten(1))
        return Features(features[:, None], features)


@pytest.fixture(autouse=True)
def one_matrix(monkeypatch):
    monkeypatch.setattr(EncoderOptions, "build", lambda self, head=False: OneMatrix())


def make(method, **options):
    torch.manual_seed(0)
    model = method(CLASSES, **options).double()
    with torch.no_grad():  # the copy was made of the start: now the student is another one
        for parameter in model.encoder.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    noises = [torch.randn(BATCH, model.width, dtype=torch.float64) for _ in range(4)]
    model._noise = SimpleNamespace(draw=lambda step, like: noises[step])
    return model, [noise.numpy() for noise in noises]


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 3, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, len(CLASSES), (BATCH,), generator=generator)
    is_photo = torch.tensor([False, False, True, True, False, True, True, True, True])
    return {"images": images, "labels": labels, "is_photo": is_photo}


def at(step):
    return zf.Progress(step=step, epoch=step // 2, total_steps=4, epochs=2)


def softmax(rows):
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def numpy_state(model):
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    frozen = {name: model.frozen.get_buffer(f"tensor_{index}").numpy()
              for index, name in model.frozen.names.items()}  # fmt: skip
    return state, frozen


class Transcription:
    """Losses and gradients of docs/methods.md, by hand."""

    def __init__(self, model, *, hashed):
        self.w, self.frozen = numpy_state(model)
        self.hashed = hashed
        self.prior = (zf.imagenet_similarity(CLASSES) * 0.3).double().numpy()
        self.moments = {}

    def student(self, given, noise, teacher_logits, *, align=0.1):
        w, x = self.w, given["images"].flatten(1).numpy()
        y, photo = given["labels"].numpy(), given["is_photo"].numpy()
        f = x @ w["encoder.matrix.weight"].T
        h = f @ w["projection.weight"].T + w["projection.bias"] if self.hashed else f
        o = h @ w["classifier.weight"].T + w["classifier.bias"]
        z = f[photo] @ w["encoder.top.weight"].T + w["encoder.top.bias"]
        target = softmax(teacher_logits + self.prior[y[photo]])
        n = softmax(noise)
        parts = {
            "cls": -np.log(softmax(o)[np.arange(BATCH), y]).mean(),
            "distill": -(target * np.log(softmax(z))).sum(1).mean(),
            "align": (n * np.log(n / softmax(h))).sum(1).mean(),
        }
        d_o = (softmax(o) - np.eye(len(CLASSES))[y]) / BATCH
        d_h = d_o @ w["classifier.weight"] + align * (softmax(h) - n) / BATCH
        d_z = (softmax(z) - target) / photo.sum()
        d_f = d_h @ w["projection.weight"] if self.hashed else d_h.copy()
        gradients = {"classifier.weight": d_o.T @ h, "classifier.bias": d_o.sum(0)}
        if self.hashed:
            gradients |= {"projection.weight": d_h.T @ f, "projection.bias": d_h.sum(0)}
        loss = parts["cls"] + parts["distill"] + align * parts["align"]
        return loss, parts, gradients, d_f, d_z, (x, f, z, photo)

    def encoder_gradients(self, d_f, d_z, passed):
        x, f, _, photo = passed
        d_f = d_f.copy()
        d_f[photo] += d_z @ self.w["encoder.top.weight"]
        return {
            "encoder.matrix.weight": d_f.T @ x,
            "encoder.top.weight": d_z.T @ f[photo],
            "encoder.top.bias": d_z.sum(0),
        }

    def taught(self, given):
        """The teacher's features of the photos."""
        x = given["images"].flatten(1).numpy()[given["is_photo"].numpy()]
        return x @ self.frozen["matrix.weight"].T

    def adam(self, gradients, rates):
        for name, gradient in gradients.items():
            weight = self.w[name]
            if weight.ndim > 1:
                gradient = gradient + OPTIM.weight_decay * weight
            first, second, step = self.moments.get(name, (0, 0, 0))
            first, second, step = (
                0.9 * first + 0.1 * gradient,
                0.999 * second + 0.001 * gradient**2,
                step + 1,
            )
            self.moments[name] = first, second, step
            scaled = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            rate = next(rate for start, rate in rates.items() if name.startswith(start))
            self.w[name] = weight - rate * first / (1 - 0.9**step) / scaled


def assert_same(model, expected):
    for name, value in model.state_dict().items():
        if name in expected:
            np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_clusterretri_is_its_formulas():
    model, noises = make(zf.ClusterRetri, width=HASH)
    by_hand = Transcription(model, hashed=True)
    (optimizer,) = model.optimizers(OPTIM)
    for step in range(4):
        given = batch(step)
        losses = model.losses(given, at(step))
        taught = by_hand.taught(given) @ by_hand.frozen["top.weight"].T + by_hand.frozen["top.bias"]
        loss, parts, gradients, *rest = by_hand.student(given, noises[step], taught)
        gradients |= by_hand.encoder_gradients(*rest)
        assert losses.per_optimizer[0].item() == pytest.approx(loss, rel=1e-9)
        assert {k: v.item() for k, v in losses.parts.items()} == pytest.approx(parts, rel=1e-9)
        optimizer.zero_grad()
        losses.per_optimizer[0].backward()
        for name, gradient in gradients.items():
            found = dict(model.named_parameters())[name].grad
            np.testing.assert_allclose(found, gradient, rtol=1e-6, atol=1e-12, err_msg=name)
        optimizer.step()
        by_hand.adam(gradients, {"encoder": OPTIM.lr_backbone, "": OPTIM.lr_head})
        assert_same(model, by_hand.w)


@pytest.mark.parametrize("detach", [True, False])
def test_sbka_is_its_formulas_in_both_phases(detach):
    model, noises = make(zf.SBKA, one_way_epochs=1, teacher_lr=0.03, detach_targets=detach)
    by_hand = Transcription(model, hashed=False)
    before = {name: value.copy() for name, value in by_hand.w.items()}
    optimizers = model.optimizers(OPTIM)
    identity = zf.ModelIdentity.of("sbka", {}, CLASSES)
    module = MethodModule(model, OPTIM, RunConfig(epochs=2, steps_per_epoch=2), identity)
    for step in range(4):
        given = batch(step)
        losses = model.losses(given, at(step))
        f_0 = by_hand.taught(given)
        z_t = f_0 @ by_hand.w["teacher_head.weight"].T + by_hand.w["teacher_head.bias"]
        loss, parts, gradients, d_f, d_z, passed = by_hand.student(given, noises[step], z_t)
        photo = passed[3]
        of_teacher = {}
        if step >= 2:
            target = softmax(passed[2] + by_hand.prior[given["labels"].numpy()[photo]])
            log_p = np.log(softmax(z_t))
            parts["teach"] = -(target * log_p).sum(1).mean()
            d_t = (softmax(z_t) - target) / photo.sum()
            of_teacher = {"teacher_head.weight": d_t.T @ f_0, "teacher_head.bias": d_t.sum(0)}
            if not detach:  # the gradient of the teacher's loss reaches the student, too
                g = -log_p / photo.sum()
                d_z = d_z + target * (g - (target * g).sum(1, keepdims=True))
                loss += parts["teach"]
        gradients |= by_hand.encoder_gradients(d_f, d_z, passed)
        first, second = losses.per_optimizer
        assert first.item() == pytest.approx(loss, rel=1e-9)
        assert (second is None) == (step < 2)
        assert {k: v.item() for k, v in losses.parts.items()} == pytest.approx(parts, rel=1e-9)
        module._pass_back(losses, optimizers)
        for name, parameter in model.named_parameters():
            wanted = {**gradients, **of_teacher}.get(name)
            if wanted is not None:
                np.testing.assert_allclose(parameter.grad, wanted, rtol=1e-6, atol=1e-12)
            else:
                assert parameter.grad is None, name
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        by_hand.adam(
            {**gradients, **of_teacher},
            {"encoder": OPTIM.lr_backbone, "teacher": 0.03, "": OPTIM.lr_head},
        )
        assert_same(model, by_hand.w)
        moved = not np.array_equal(by_hand.w["teacher_head.weight"], before["teacher_head.weight"])
        assert moved == (step >= 2)


def test_embeddings_are_unit_rows_that_the_ranker_clusters():
    model, _ = make(zf.ClusterRetri, width=HASH, ranking=zf.ClusterOptions(clusters=3), centre=True)
    model.losses(batch(0), at(0))
    model.float()
    with torch.no_grad():
        rows = [model.embed(batch(seed)["images"].float(), "photo") for seed in range(2)]
    lengths = torch.linalg.vector_norm(rows[0], dim=1)
    torch.testing.assert_close(lengths, torch.ones(BATCH))
    assert rows[0].dtype == torch.float32
    ranker = model.ranker()
    assert isinstance(ranker, zf.ClusterRanker)
    scores = ranker.scorer(rows[0])(rows[1])
    assert all(len(row.unique()) <= 3 for row in scores)


def test_the_alignment_can_come_step_by_step():
    knowledge = zf.KnowledgeOptions(align=0.1, align_ramp=0.04)
    assert [knowledge.align_factor(step) for step in range(4)] == pytest.approx(
        [0, 0.04, 0.08, 0.1]
    )
    assert zf.KnowledgeOptions().align_factor(0) == 0.1


def test_noise_follows_from_the_step_alone():
    torch.manual_seed(3)
    one = StepNoise()
    torch.manual_seed(3)
    other = StepNoise()
    like = torch.zeros(4, 5, dtype=torch.float64)
    first, again = one.draw(0, like), one.draw(0, like)
    assert not torch.equal(first, again)
    seventh = one.draw(7, like)
    assert torch.equal(other.draw(7, like), seventh)  # as after a resume
    assert torch.equal(other.draw(0, like), first)
    many = one.draw(8, torch.zeros(200, 500))
    assert many.mean().abs() < 0.01
    assert abs(many.std() - 1) < 0.01


def test_batches_are_single_images_by_a_share_of_sketches():
    benchmark = zf.load_benchmark("qd_caltech")
    model, _ = make(zf.SBKA)
    plan = model.batches(benchmark, zf.DataConfig(batch_size=12, sketch_share=1 / 3))
    sampler = plan.sampler(batches=2, seed=0, rank=0, world_size=1)
    keys = next(iter(sampler))
    items = [plan.items[key] for key in keys]
    assert [item["is_photo"] for item in items] == [False] * 4 + [True] * 8
    for item, key in zip(items, keys, strict=True):
        held = benchmark.train_photos if item["is_photo"] else benchmark.train_sketches
        row = key - item["is_photo"] * len(benchmark.train_sketches)
        assert item["labels"] == held.labels[row]
        assert item["images"].shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knowledge": {"distill": -1}}, r"distill must not be negative, got -1"),
        ({"knowledge": {"align": float("nan")}}, r"align must not be negative, got nan"),
        ({"ranking": {"clusters": 0}}, r"clusters must be at least 1, got 0"),
        ({"ranking": {"model": "kmean"}}, r"model must be one of"),
    ],
)
def test_wrong_options_are_refused(options, message):
    kinds = {"knowledge": zf.KnowledgeOptions, "ranking": zf.ClusterOptions}
    with pytest.raises(ValueError, match=message):
        make(zf.ClusterRetri, **{key: kinds[key](**value) for key, value in options.items()})


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ClusterRetri: width must be at least 1, got 0"):
        make(zf.ClusterRetri, width=0)
    with pytest.raises(ValueError, match=r"SBKA: one_way_epochs must be at least 0, got -1"):
        make(zf.SBKA, one_way_epochs=-1)
    with pytest.raises(ValueError, match=r"teacher and teacher_lr must not be negative, got -1"):
        make(zf.SBKA, teacher=-1)
    table = tmp_path / "table.json"
    similar = ", ".join(f'"{name}": {{"similar": {{}}}}' for name in CLASSES)
    table.write_text(f'{{"imagenet": ["n1", "n2"], "classes": {{{similar}}}}}')
    with pytest.raises(ValueError, match=r"a table of the 1000 classes of ImageNet, got one of 2"):
        make(zf.SBKA, knowledge=zf.KnowledgeOptions(similarity=str(table)))
