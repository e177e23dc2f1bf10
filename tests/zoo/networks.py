"""One network by two libraries: torchvision's, timm's and transformers', with random weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

if TYPE_CHECKING:
    from collections.abc import Callable


class Twins(NamedTuple):
    """Makers of a baseline and of a candidate, and the size of their images in pixels."""

    baseline: Callable[[], Any]
    candidate: Callable[[], Any]
    size: int = 64

    def models(self) -> tuple[nn.Module, nn.Module]:
        """Both models in eval mode, each with weights of its own and no constant among them."""
        made = []
        for seed, make in enumerate((self.baseline, self.candidate)):
            torch.manual_seed(seed)
            made.append(excited(make().eval(), seed))
        return made[0], made[1]

    def images(self) -> Tensor:
        """Two standard normal images."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, 3, self.size, self.size, generator=generator)


def excited(model: nn.Module, seed: int) -> nn.Module:
    """The model with its constants (gains of 1, biases of 0, running statistics) moved, so that all of them tell."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() == 1 or float(parameter.std()) < 1e-4:
                parameter.add_(0.05 + 0.4 * torch.rand(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.mul_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def _torchvision(name: str) -> Callable[[], Any]:
    return partial(torchvision.models.get_model, name, weights=None)


def _timm(name: str) -> Callable[[], Any]:
    return partial(timm.create_model, name, pretrained=False)


def _config(kind: Any, **options: Any) -> Any:
    # The types of a configuration's constructor leave out what its base class takes.
    return kind(**options)


def _hf_resnet(kind: str, *sizes: int) -> Any:
    return transformers.ResNetForImageClassification(
        _config(
            transformers.ResNetConfig,
            depths=[3, 4, 6, 3],
            layer_type=kind,
            hidden_sizes=list(sizes),
            num_labels=1000,
        )
    )


def _vgg_torchvision() -> Any:
    """VGG-16 with 32 hidden features: 4096 would be nine tenths of all weights and tell no more."""
    model = torchvision.models.vgg16_bn(weights=None, num_classes=10)
    model.classifier[0] = nn.Linear(512 * 7 * 7, 32)
    model.classifier[3] = nn.Linear(32, 4096)
    return model


def _vgg_timm() -> Any:
    return timm.create_model("vgg16_bn", pretrained=False, mlp_ratio=32 / 4096, num_classes=10)


def _vit_torchvision() -> Any:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def _vit_timm() -> Any:
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, depth=2, num_heads=4, embed_dim=32, mlp_ratio=2, num_classes=10
    )


def _vit_hf() -> Any:
    return transformers.ViTForImageClassification(
        _config(
            transformers.ViTConfig,
            image_size=32,
            patch_size=8,
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_size=32,
            intermediate_size=64,
            layer_norm_eps=1e-6,  # as in the others; its own default is 1e-12
            num_labels=10,
        )
    )


def _swin_torchvision() -> Any:
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=10,
    )


def _swin_timm() -> Any:
    return timm.models.SwinTransformer(
        img_size=64,
        patch_size=4,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        num_classes=10,
    )


def _swin_hf() -> Any:
    return transformers.SwinForImageClassification(
        _config(
            transformers.SwinConfig,
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            num_labels=10,
        )
    )


_DEPTHS, _WIDTHS = (1, 2, 1, 1), (16, 32, 48, 64)


def _convnext_torchvision() -> Any:
    blocks = [
        CNBlockConfig(width, following, depth)
        for width, following, depth in zip(_WIDTHS, (*_WIDTHS[1:], None), _DEPTHS, strict=True)
    ]
    return torchvision.models.ConvNeXt(blocks, num_classes=10)


def _convnext_timm() -> Any:
    return timm.models.ConvNeXt(depths=_DEPTHS, dims=_WIDTHS, num_classes=10)


def _convnext_hf() -> Any:
    return transformers.ConvNextForImageClassification(
        _config(
            transformers.ConvNextConfig,
            depths=list(_DEPTHS),
            hidden_sizes=list(_WIDTHS),
            layer_norm_eps=1e-6,  # as in the others; its own default is 1e-12
            num_labels=10,
        )
    )


CONVOLUTIONAL = {
    "resnet18": Twins(_torchvision("resnet18"), _timm("resnet18")),
    "resnet50": Twins(_torchvision("resnet50"), _timm("resnet50")),
    "resnext50_32x4d": Twins(_torchvision("resnext50_32x4d"), _timm("resnext50_32x4d")),
    "wide_resnet50_2": Twins(_torchvision("wide_resnet50_2"), _timm("wide_resnet50_2")),
    "densenet121": Twins(_torchvision("densenet121"), _timm("densenet121")),
    "vgg16_bn": Twins(_vgg_torchvision, _vgg_timm),
    "efficientnet_b0": Twins(_torchvision("efficientnet_b0"), _timm("efficientnet_b0")),
    "regnet_y_400mf": Twins(_torchvision("regnet_y_400mf"), _timm("regnety_004")),
    "resnet34-transformers": Twins(_torchvision("resnet34"), partial(_hf_resnet, "basic", 64, 128, 256, 512)),
    "resnet50-transformers": Twins(
        _torchvision("resnet50"), partial(_hf_resnet, "bottleneck", 256, 512, 1024, 2048)
    ),
}
ATTENDING = {
    "vit-torchvision-timm": Twins(_vit_torchvision, _vit_timm, 32),
    "vit-torchvision-transformers": Twins(_vit_torchvision, _vit_hf, 32),
    "vit-timm-transformers": Twins(_vit_timm, _vit_hf, 32),
    "swin-torchvision-timm": Twins(_swin_torchvision, _swin_timm),
    "swin-torchvision-transformers": Twins(_swin_torchvision, _swin_hf),
    "swin-timm-transformers": Twins(_swin_timm, _swin_hf),
}
CONVNEXT = {
    "convnext-torchvision-timm": Twins(_convnext_torchvision, _convnext_timm),
    "convnext-torchvision-transformers": Twins(_convnext_torchvision, _convnext_hf),
    "convnext-timm-transformers": Twins(_convnext_timm, _convnext_hf),
}
ALL = CONVOLUTIONAL | ATTENDING | CONVNEXT
