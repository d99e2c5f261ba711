"""Every model: shapes, last layers, weights that fit and weights that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from hotrain.config import MODELS
from hotrain.errors import WeightsError
from hotrain.model import (
    carry_over,
    create_model,
    last_layers,
    load_body,
    load_coco,
    logits_of,
    read_weights,
)

SMALL = "lraspp_mobilenet_v3_large"


@pytest.mark.parametrize("name", [name for name in MODELS if name != "deeplabv3_resnet101"])
def test_every_model(name: str) -> None:
    model = create_model(name, 5).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 40, 48))
    assert all(logits.shape == (2, 5, 40, 48) for logits in outputs.values())
    assert set(outputs) == ({"out", "aux"} if "resnet" in name else {"out"})
    modules = dict(model.named_modules())
    for layer in last_layers(model):
        assert isinstance(modules[layer], nn.Conv2d) and modules[layer].out_channels == 5
    # Nothing else of a model depends on the number of classes.
    other = create_model(name, 3).state_dict()
    differing = {key.rsplit(".", 1)[0] for key, value in model.state_dict().items() if other[key].shape != value.shape}
    assert differing == set(last_layers(model))
    assert {module.momentum for module in modules.values() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_taps_that_training_never_reached_are_silent() -> None:
    """From random weights, the answer to a crop does not change where a wider image lets ASPP's rates reach further."""
    torch.manual_seed(0)
    model = create_model("deeplabv3_mobilenet_v3_large", 3).eval()
    branches = [
        branch for branch in model.classifier[0].convs if isinstance(branch[0], nn.Conv2d) and branch[0].dilation[0] > 1
    ]
    assert [branch[0].dilation[0] for branch in branches] == [12, 24, 36]
    small, wide = torch.randn(1, 960, 10, 10), torch.randn(1, 960, 10, 60)
    wide[..., 20:30] = small
    for branch in branches:
        assert branch[0].weight[:, :, 1, 1].abs().min() > 0
        torch.testing.assert_close(branch(wide)[..., 20:30], branch(small))
    # They learn where they are reached.
    branches[0](wide).square().sum().backward()
    assert branches[0][0].weight.grad[:, :, 1, 0].abs().min() > 0


def test_in_bfloat16_depthwise_convolutions_stay_float32_on_the_cpu() -> None:
    """They alone; without autocast, and in float64, they compute as any other convolution does."""
    torch.manual_seed(0)
    model = create_model(SMALL, 2).eval()
    depthwise = [each for each in model.modules() if isinstance(each, nn.Conv2d) and each.groups > 1]
    dense = [each for each in model.modules() if isinstance(each, nn.Conv2d) and each.groups == 1]
    assert len(depthwise) == 15  # one a block of MobileNetV3-Large
    kinds: dict[nn.Module, torch.dtype] = {}
    for each in depthwise + dense:
        each.register_forward_hook(lambda module, _, output: kinds.__setitem__(module, output.dtype))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = model(image)["out"].float()
    assert {kinds[each] for each in depthwise} == {torch.float32} and {kinds[each] for each in dense} == {
        torch.bfloat16
    }
    with torch.no_grad():
        exact = model(image)["out"]
        double = model.double()(image.double())["out"]
    assert {kinds[each] for each in depthwise} == {torch.float64}
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    torch.testing.assert_close(exact.double(), double, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(10, 10), (10, 14), (2, 4), (13, 10), (26, 26)])
def test_dilated_depthwise_convolutions_are_torch_s_own(height: int, width: int) -> None:
    """In training: values and gradients of every one of MobileNet's, in float64, on even and odd maps."""
    torch.manual_seed(0)
    model = create_model("deeplabv3_mobilenet_v3_large", 2)
    ours = [
        each for each in model.modules() if isinstance(each, nn.Conv2d) and each.groups > 1 and each.dilation[0] > 1
    ]
    assert [each.kernel_size for each in ours] == [(5, 5)] * 3
    for conv in ours:
        conv.double()
        image = torch.randn(3, conv.in_channels, height, width, dtype=torch.float64, requires_grad=True)
        answer = conv(image)
        twin = functional.conv2d(image, conv.weight, None, 1, conv.padding, conv.dilation, conv.groups)
        torch.testing.assert_close(answer, twin)
        given = torch.randn_like(twin)
        for one, other in zip(
            torch.autograd.grad(answer, (image, conv.weight), given),
            torch.autograd.grad(twin, (image, conv.weight), given),
            strict=True,
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("side", [64, 160, 208, 416])
def test_skipped_taps_change_nothing(side: int) -> None:
    """Logits and gradients are those of torchvision's own model, at sizes where none, some or all rates are skipped."""
    torch.manual_seed(0)
    name = "deeplabv3_mobilenet_v3_large"
    mine = create_model(name, 3).eval()
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3).eval()
    mine.load_state_dict(theirs.state_dict())  # whose outer taps are not 0
    image = torch.randn(1, 3, side, side)
    logits = [model(image)["out"] for model in (mine, theirs)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    for one in logits:
        one.square().mean().backward()
    for (key, one), other in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        if "classifier" in key:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6, msg=key)


class _Sampler(nn.Module):
    """What a network of stride 16 does to places: cell i sees pixel 16 i; torchvision's enlargement follows."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": functional.interpolate(image[..., ::16, ::16], image.shape[-2:], mode="bilinear")}


@pytest.mark.parametrize("width", [160, 161, 208, 213, 223, 240, 640])
def test_answers_lie_at_the_same_place_whatever_the_size(width: int) -> None:
    """The answer to a ramp is the ramp, half a cell off, at every width. Fails without the padding."""
    ramp = torch.arange(width, dtype=torch.float32).expand(1, 3, 96, width)
    found = logits_of(_Sampler(), ramp)["out"]
    assert found.shape == ramp.shape
    last_whole_cell = (width - 1) // 16 * 16
    expected = torch.arange(width, dtype=torch.float32) - 7.5
    torch.testing.assert_close(found[0, 0, 40, 8:last_whole_cell], expected[8:last_whole_cell])


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_a_file_fill_all_but_the_last_layers(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    trained, path = create_model(SMALL, 21), tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"model": {f"module.{key}": value for key, value in trained.state_dict().items()}}, path)
    else:
        save_file(trained.state_dict(), path)
    model = create_model(SMALL, 4)
    load_body(model, read_weights(path), str(path))
    for name, value in model.state_dict().items():
        same = value.shape == trained.state_dict()[name].shape and torch.equal(value, trained.state_dict()[name])
        assert same == (name.rsplit(".", 1)[0] not in last_layers(model))


def test_unfit_weights_are_refused(tmp_path: Path) -> None:
    model = create_model(SMALL, 3)
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_weights(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"lacks \d+ of the model's .*another --model"):
        load_body(model, {"conv.weight": torch.zeros(1)}, "x.pth")
    bad = create_model(SMALL, 3).state_dict()
    bad["backbone.0.0.weight"] = torch.zeros(8, 3, 3, 3)
    with pytest.raises(WeightsError, match=r"0\.0\.weight is \[8, 3, 3, 3\], this model needs \[16, 3, 3, 3\]"):
        load_body(model, bad, "x.pth")


class _Program:
    """A pickle is a program: this one makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_program_in_a_weights_file_is_never_run(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1), "more": _Program(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_weights(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "x.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


def test_missing_coco_weights_name_file_address_and_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    url = torchvision.models.get_model_weights(MODELS[0])["COCO_WITH_VOC_LABELS_V1"].url
    with pytest.raises(WeightsError) as caught:
        load_coco(create_model(MODELS[0], 3), MODELS[0])
    for part in (url, url.rsplit("/", 1)[1], str(tmp_path / "checkpoints"), "--weights FILE", "--weights none"):
        assert part in str(caught.value)


def test_coco_weights_come_from_the_place_that_the_error_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file put there by hand is found, and its own mean and std are used."""
    weights = torchvision.models.get_model_weights(SMALL)["COCO_WITH_VOC_LABELS_V1"]
    trained = create_model(SMALL, 21)
    (tmp_path / "checkpoints").mkdir()
    torch.save(trained.state_dict(), tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = create_model(SMALL, 3)
    mean, std = load_coco(model, SMALL)
    assert (mean, std) == (tuple(weights.transforms().mean), tuple(weights.transforms().std))
    assert torch.equal(model.state_dict()["backbone.0.0.weight"], trained.state_dict()["backbone.0.0.weight"])


@pytest.mark.parametrize("name", [SMALL, "deeplabv3_resnet50"])
def test_a_second_stage_keeps_what_both_tasks_know(name: str) -> None:
    known, classes = ["background", "hand", "arm"], ["background", "hand", "object", "arm"]
    torch.manual_seed(2)
    first, second = create_model(name, 3), create_model(name, 4)
    fresh = {key: value.clone() for key, value in second.state_dict().items()}
    assert carry_over(second, classes, first.state_dict(), known, "run") == ["background", "hand", "arm"]
    image = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        one, two = first.eval()(image), second.eval()(image)
    for head in one:
        torch.testing.assert_close(two[head][:, [0, 1, 3]], one[head])
    for layer in last_layers(second):
        assert torch.equal(second.state_dict()[f"{layer}.weight"][2], fresh[f"{layer}.weight"][2])
