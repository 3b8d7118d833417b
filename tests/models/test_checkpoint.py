"""A model file gives back what was saved, and no file ever runs anything."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigunet.errors import InputError, ModelError, NotFoundError, OutputError
from bigunet.images.intensity import IntensityRule
from bigunet.models import checkpoint
from bigunet.models.card import ModelCard, default_class_names, default_colors
from bigunet.models.checkpoint import (
    describe_model,
    find_model,
    load_model,
    model_digest,
    save_model,
)
from bigunet.models.unet import UNet

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


def small(**changes):
    torch.manual_seed(0)
    return UNet(**{"in_channels": 1, "classes": 2, "width": 2, "depth": 1, **changes})


@pytest.fixture
def model():
    return small()


@pytest.fixture
def path(model, tmp_path):
    save_model(model, tmp_path / "model.pt", name="nuclei", intensity="percentile", pixel_size=0.5)
    return tmp_path / "model.pt"


def changed(path, **entries):
    """The file with entries of its dictionary replaced."""
    content = torch.load(path, weights_only=True)
    torch.save({**content, **entries}, path)
    return path


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    assert len(line) < 400 + len(str(path))
    return line


# What is saved comes back


@pytest.mark.parametrize(
    "sizes", [{}, {"in_channels": 3, "classes": 4, "width": 3, "depth": 2, "dropout": 0.25}]
)
def test_a_loaded_network_is_the_saved_one(sizes, tmp_path):
    model = small(**sizes).eval()
    save_model(model, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt")
    image = torch.rand(1, model.in_channels, 92, 92)
    assert torch.equal(loaded(image), model(image))
    assert loaded.dropout.p == model.dropout.p
    assert model_digest(loaded) == model_digest(model)
    assert loaded.card == ModelCard()
    assert loaded.card.intensity is None


def test_a_loaded_network_predicts_and_can_be_trained_on(path):
    state = torch.random.get_rng_state()
    loaded = load_model(path)
    assert not loaded.training
    assert torch.equal(torch.random.get_rng_state(), state)
    loaded.train()(torch.rand(1, 1, 36, 36)).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in loaded.parameters())


def test_settings_are_kept_and_updated(path, tmp_path):
    loaded = load_model(path)
    assert loaded.card == ModelCard(
        name="nuclei",
        intensity=IntensityRule(kind="percentile", low=1, high=99.8),
        pixel_size=0.5,
    )
    save_model(
        loaded,
        tmp_path / "again.pt",
        class_names=["glass", "nucleus"],
        class_colors=["#000000", "#FF00aa"],
        intensity=(0, 4000),
    )
    again = load_model(tmp_path / "again.pt").card
    assert (again.name, again.pixel_size) == ("nuclei", 0.5)
    assert again.class_names == ("glass", "nucleus")
    assert again.class_colors == ("#000000", "#ff00aa")
    assert again.intensity == IntensityRule(kind="range", low=0, high=4000)
    assert loaded.card.class_names == ()


def test_training_mode_and_weights_of_the_saved_model_stay(model, tmp_path):
    before = model_digest(model)
    save_model(model.train(), tmp_path / "m.pt", name="other")
    assert model.training
    assert model.card == ModelCard()
    assert model_digest(model) == before


def test_other_memory_layouts_and_types_are_saved_plain(tmp_path):
    model = small().to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "m.pt")
    assert (
        model_digest(load_model(tmp_path / "m.pt")) == model_digest(model) == model_digest(small())
    )
    half = small().to(torch.bfloat16)
    save_model(half, tmp_path / "half.pt")
    assert next(load_model(tmp_path / "half.pt").parameters()).dtype == torch.float32


# What is said to people


TOLD = {
    "instances": True,
    "diameters": (8.5, 40),
    "about": {"data": "nuclei", "licence": "CC0", "recipe": "fast", "note": ""},
    "scores": {"fluorescence": "AP@0.5 0.88", "grey": 0.5},
}


def test_what_is_told_about_a_model_is_kept(model, tmp_path):
    save_model(model, tmp_path / "m.pt", **TOLD)
    card = load_model(tmp_path / "m.pt").card
    assert (card.instances, card.diameters) == (True, (8.5, 40.0))
    assert card.about == {"data": "nuclei", "licence": "CC0", "recipe": "fast"}
    assert card.scores == TOLD["scores"]
    save_model(load_model(tmp_path / "m.pt"), tmp_path / "again.pt", instances=False, scores={})
    again = load_model(tmp_path / "again.pt").card
    assert again == replace(card, instances=False, scores={})


def test_numbers_and_names_of_numpy_are_saved_plain(model, tmp_path):
    told = {"scores": {np.str_("a"): np.float64(0.5)}, "about": {"note": np.str_("b")}}
    save_model(model, tmp_path / "m.pt", class_names=np.array(["c", "d"]), **told)
    card = load_model(tmp_path / "m.pt").card
    assert (card.scores, card.about, card.class_names) == ({"a": 0.5}, {"note": "b"}, ("c", "d"))


def test_a_file_can_be_described_later(path):
    before = load_model(path)
    describe_model(path, about={"data": "nuclei", "note": "experimental"}, scores={"grey": 0.5})
    describe_model(path, about={"note": "", "licence": "CC0"}, scores={"grey": 0.6, "stained": "-"})
    after = load_model(path)
    assert after.card.about == {"data": "nuclei", "licence": "CC0"}
    assert after.card.scores == {"grey": 0.6, "stained": "-"}
    assert replace(after.card, about={}, scores={}) == before.card
    assert model_digest(after) == model_digest(before) and after.dropout.p == before.dropout.p
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_a_description_that_is_refused_leaves_the_file(path):
    before = path.read_bytes()
    for told in ({"about": {"author": "me"}}, {"scores": {"grey": "two\nlines"}}):
        with pytest.raises(InputError):
            describe_model(path, **told)
    assert path.read_bytes() == before


def test_a_file_of_an_earlier_version_says_nothing_of_what_came_later(path):
    card = torch.load(path, weights_only=True)["card"]
    for entry in ("instances", "diameters", "about", "scores"):
        del card[entry]
    assert load_model(changed(path, card=card)).card == ModelCard(
        name="nuclei",
        intensity=IntensityRule(kind="percentile", low=1, high=99.8),
        pixel_size=0.5,
    )
    del card["gap"]
    assert "missing or unknown: 'gap'" in refusal(changed(path, card=card))


# Digest


def test_the_digest_counts_what_decides_a_prediction(model):
    seen = {model_digest(model)}
    for card in (
        ModelCard(intensity=IntensityRule(kind="range", low=0, high=255)),
        ModelCard(intensity=IntensityRule(kind="percentile", low=0, high=255 / 3)),
        ModelCard(pixel_size=0.5),
    ):
        model.card = card
        seen.add(model_digest(model))
    model.card = ModelCard()
    with torch.no_grad():
        model.head.bias[1] += 1e-6
    seen.add(model_digest(model))
    seen.add(model_digest(small(classes=3)))
    assert len(seen) == 6
    assert all(len(digest) == 64 for digest in seen)


def test_the_digest_leaves_out_what_does_not(model, path, tmp_path):
    digest = model_digest(model)
    colors = ("#000000", "#ffffff")
    model.card = ModelCard(name="x", class_names=("a", "b"), class_colors=colors, **TOLD)
    assert model_digest(model.train()) == digest == model_digest(model.eval())
    renamed = tmp_path / "renamed.pt"
    renamed.write_bytes(path.read_bytes())
    assert model_digest(load_model(renamed)) == model_digest(load_model(path))


# Writing


def test_a_file_is_replaced_whole_or_not_at_all(model, path, monkeypatch):
    before = path.read_bytes()

    def full_disk(content, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed: no space left\nmore lines")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(OutputError, match=r"no space left$"):
        save_model(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_places_that_cannot_be_written(model, tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        save_model(model, tmp_path / "none" / "m.pt")
    with pytest.raises(OutputError, match="is a folder"):
        save_model(model, tmp_path)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"name": "../labels"}, "model name"),
        ({"name": ""}, "model name"),
        ({"class_names": ["a"]}, "1 class_names for 2 classes"),
        ({"class_names": ["a", "a"]}, "different"),
        ({"class_colors": ["red", "blue"]}, "#rrggbb"),
        ({"intensity": "otsu"}, "otsu"),
        ({"intensity": (5, 1)}, "less"),
        ({"pixel_size": 0.0}, "pixel size"),
        ({"pixel_size": float("nan")}, "pixel size"),
        ({"pixel_size": "0.5"}, "pixel size"),
        ({"diameters": (0, 8)}, "diameters"),
        ({"about": {"author": "me"}}, "data, licence, recipe, note"),
        ({"scores": {"a": None}}, "score of a"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_writing(model, tmp_path, settings, line):
    with pytest.raises(InputError, match=line):
        save_model(model, tmp_path / "m.pt", **settings)
    assert not list(tmp_path.iterdir())


def test_something_else_than_a_finite_unet_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="not Linear"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "m.pt")
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(ModelError, match=r"head\.bias .* not finite"):
        save_model(model, tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


# Finding


def test_a_path_that_is_not_there_says_what_ships(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(NotFoundError, match=r"no model file 'nuclei'.*\(none in this version\)"):
        load_model("nuclei")
    (tmp_path / "weights").mkdir()
    save_model(small(), tmp_path / "weights" / "nuclei.pt", name="nuclei")
    assert find_model("nuclei") == tmp_path / "weights" / "nuclei.pt"
    assert load_model("nuclei").card.name == "nuclei"
    with pytest.raises(NotFoundError, match=r"no model file 'cells\.pt'.*\(nuclei\)"):
        load_model("cells.pt")


def test_a_file_goes_before_a_name_and_a_folder_does_not(path, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert find_model("model") == path
    assert find_model(path) == path
    with pytest.raises(ModelError, match="is a folder"):
        find_model(tmp_path)


# Files that are not ours


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in refusal(path)


def test_a_flipped_bit(path):
    content = torch.load(path, weights_only=True)
    raw = content["weights"]["head.weight"].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(raw) + 3] ^= 1
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("content", [b"not a model", b"\x80\x04N.", b"PK\x03\x04" + b"\0" * 99])
def test_no_model_at_all(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    assert "truncated, or not a file of bigunet.save_model" in refusal(tmp_path / "m.pt")


class Payload:
    """Unpickles to a call that creates a file."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (open, (str(self.proof), "w"))


@pytest.mark.parametrize("how", ["pickle", "torch", "torch legacy", "within"])
def test_a_pickle_is_never_run(path, tmp_path, how):
    proof, evil = tmp_path / "proof", tmp_path / "evil.pt"
    if how == "pickle":
        evil.write_bytes(pickle.dumps(Payload(proof)))
    elif how == "within":
        content = torch.load(path, weights_only=True)
        torch.save({**content, "card": Payload(proof)}, evil)
    else:
        torch.save(Payload(proof), evil, _use_new_zipfile_serialization=how == "torch")
    refusal(evil)
    assert not proof.exists()


def test_a_torchscript_archive_is_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its files are about
        torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "script.pt")
    assert "TorchScript" in refusal(tmp_path / "script.pt")


def test_an_export_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/models/model.json", "{}")
    assert "torch.export" in refusal(tmp_path / "model.pt2")


def test_any_other_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not one of bigunet.save_model" in refusal(tmp_path / "m.pt")


def test_an_archive_that_unpacks_to_more_than_it_is(path, tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "not one of bigunet.save_model" in refusal(bomb)


@pytest.mark.parametrize(
    "content",
    [{"a.weight": torch.zeros(2)}, [1, 2], torch.zeros(3), {}, {"format": torch.zeros(3)}],
)
def test_somebody_elses_weights(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    assert "somebody else's weights" in refusal(tmp_path / "m.pt")


@pytest.mark.skipif(not (DATA / "foreign_models").is_dir(), reason="shared data is not here")
def test_real_foreign_models_are_refused_in_one_line():
    files = sorted((DATA / "foreign_models").rglob("*.pt"))
    assert files
    assert all("somebody else's weights" in refusal(file) for file in files)


# Files of ours with something wrong


@pytest.mark.parametrize("version", [2, 0, "1", None, True, torch.zeros(9, 9)])
def test_another_version(path, version):
    assert "version" in refusal(changed(path, version=version))


def test_entries_unknown_or_missing(path):
    assert "'extra'" in refusal(changed(path, extra=1))
    content = torch.load(path, weights_only=True)
    del content["extra"], content["card"]
    torch.save(content, path)
    assert "'card'" in refusal(path)


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ({"depth": 60}, "depth 60 is outside 1 to 16"),
        ({"depth": 16, "width": 64}, "features"),
        ({"width": 10**9}, "width 1000000000 is outside"),
        ({"width": 10**18}, "width"),
        ({"classes": 257}, "classes 257 is outside 1 to 256"),
        ({"classes": 0}, "classes 0"),
        ({"depth": True}, "depth True"),
        ({"depth": 2.0}, "depth 2.0"),
        ({"in_channels": 3}, r"contract.0.0.weight are float32 (2, 1, 3, 3)"),
        ({"width": 32768}, "needs float32 (32768, 1, 3, 3)"),
        ({"depth": 2}, "weights missing"),
        ({"dropout": 2.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": "0.5"}, "dropout"),
        ({"colour": 1}, "architecture must name"),
    ],
)
def test_architectures_that_do_not_fit_build_no_network(path, sizes, line):
    content = torch.load(path, weights_only=True)
    assert line in refusal(changed(path, architecture={**content["architecture"], **sizes}))


@pytest.mark.parametrize(
    ("card", "line"),
    [
        (None, "not a table"),
        ({"name": "../../etc"}, "model name"),
        ({"name": 3}, "model name"),
        ({"name": "line\nline" * 1000}, "model name"),
        ({"pixel_size": torch.ones(9, 9)}, "pixel size"),
        ({"pixel_size": -1.0}, "pixel size"),
        ({"border": "reflect"}, "border"),
        ({"class_names": ["a"]}, "1 class_names for 2 classes"),
        ({"class_colors": [1, 2]}, "class_colors"),
        ({"intensity": {"kind": "range", "low": 3, "high": 2}}, "low must be less"),
        ({"intensity": {"kind": "range"}}, "'high', 'low'"),
        ({"intensity": 4}, "not a table"),
        ({"licence": "MIT"}, "'licence'"),
        ({"pixel_size": 10**400}, "pixel size"),
        ({"class_names": ["a", "\x1b[2J"]}, "class_names '\\x1b[2J'"),
        ({"instances": 1}, "instances 1"),
        ({"diameters": [8.0]}, "diameters [8.0]"),
        ({"diameters": [8.0, 4.0]}, "diameters"),
        ({"diameters": [0, float("inf")]}, "diameters"),
        ({"diameters": torch.ones(2)}, "diameters"),
        ({"about": "me"}, "about 'me'"),
        ({"about": {"author": "me"}}, "data, licence, recipe, note"),
        ({"about": {"data": 3}}, "data 3: one line"),
        ({"about": {"note": "a\nb"}}, "one line"),
        ({"about": {"note": "\x1b[31m"}}, "one line"),
        ({"about": {"note": "long" * 1000}}, "up to 1000 signs"),
        ({"scores": [1]}, "scores: a table"),
        ({"scores": {3: 1.0}}, "the name of a score 3"),
        ({"scores": {"a": float("nan")}}, "score of a nan"),
        ({"scores": {"a": True}}, "score of a True"),
        ({"scores": {"a": torch.ones(9, 9)}}, "score of a tensor"),
        ({"scores": {str(n): 1.0 for n in range(101)}}, "up to 100 lines"),
    ],
)
def test_cards_that_cannot_be_meant(path, card, line):
    if card is not None:
        card = {**torch.load(path, weights_only=True)["card"], **card}
    assert line in refusal(changed(path, card=card))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda t: t.double(), "float64 (2,); its architecture needs float32 (2,)"),
        (lambda t: t[:1].clone(), "float32 (1,)"),
        (lambda t: t * float("inf"), "not finite"),
        (lambda t: t.clone().fill_(float("nan")), "not finite"),
        # Torch 2.11 does not load it at all, later versions do.
        (lambda t: t.to_sparse(), "not a usable model file"),
        (lambda t: [0.0, 0.0], "not a tensor"),
    ],
)
def test_weights_that_do_not_fit(path, make, line):
    weights = torch.load(path, weights_only=True)["weights"]
    with torch.no_grad():
        weights["head.bias"] = make(weights["head.bias"] + 1)
    assert line in refusal(changed(path, weights=weights))


def test_weights_missing_and_unknown_are_named(path):
    weights = torch.load(path, weights_only=True)["weights"]
    bias = weights.pop("head.bias")
    assert "weights missing: 'head.bias'" in refusal(changed(path, weights=weights))
    weights |= {"head.bias": bias, **{f"a{i}": bias for i in range(5)}}
    assert "weights unknown: 'a0', 'a1', 'a2' and 2 more" in refusal(changed(path, weights=weights))
    assert "not a table" in refusal(changed(path, weights=[bias]))


def test_weights_that_claim_more_bytes_than_the_file_has(path):
    content = torch.load(path, weights_only=True)
    sizes = {**content["architecture"], "width": 8192}
    with torch.device("meta"):
        wide = UNet(**sizes).state_dict()
    weights = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in wide.items()}
    line = refusal(changed(path, weights=weights, architecture=sizes))
    assert "claim more bytes" in line


# Card


def test_defaults_of_a_card():
    assert ModelCard.from_dict(ModelCard().to_dict()) == ModelCard()
    assert default_class_names(2) == ("background", "foreground")
    assert default_class_names(1) == ("background",)
    colors = default_colors(20)
    assert len(colors) == 20
    assert len(set(colors[:8])) == 8
    ModelCard(class_colors=colors, class_names=default_class_names(20)).check_classes(20)


def test_the_card_is_read_without_torch():
    code = "import sys, bigunet.models.card; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_is_loaded_without_torchs_compiler() -> None:
    """To import it takes longer than a small image."""
    code = (
        "import sys, bigunet; bigunet.load_model('nuclei'); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
